"""Tools for models without function calling.

The prompt describes the tools. To call one, the model writes a fence, which is removed from the answer::

    ```tool_call
    {"name": "search", "arguments": {"query": "rx"}}
    ```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.llm._stop_sequences import count_overlap
from rxflow.llm.source import Delta, Ending, Message, Request, Source, ToolCallDelta

_OPEN = "```tool_call"
_CLOSE = "\n```"  # on a line of its own; JSON escapes line breaks, so arguments may contain fences


def offering_in_text(source: Source, request: Request) -> Observable[Delta]:
    """Call ``source`` with the tools of ``request`` in the prompt.

    Calls in its answer become tool-call deltas. ::

        source    "Let me look. "---"```tool_call⏎{…}"---"⏎```"---E|
        result    "Let me look."-------------------------T--------E|

    T is a :class:`ToolCallDelta`, E is the :class:`Ending`.
    """
    instructions = [_instructions(request)] if request.may_call_tools and request.functions else []
    worded = replace(
        request,
        messages=[*instructions, *map(_in_words, request.messages)],
        tools=[tool for tool in request.tools if "function" not in tool],  # the provider's own
        parameters=_without_tool_choice(request.parameters),
        hints=_without_tool_choice(request.hints),
    )

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        reader = _FenceReader()

        def on_next(delta: Delta) -> None:
            if isinstance(delta, str):
                _emit(observer.on_next, reader.feed(delta))
            elif isinstance(delta, Ending):
                _emit(observer.on_next, reader.flush())
                observer.on_next(replace(delta, finish_reason="tool_calls") if reader.calls else delta)
            else:
                observer.on_next(delta)

        def on_error(error: Exception) -> None:
            _emit(observer.on_next, reader.flush_text())
            observer.on_error(error)

        def on_completed() -> None:
            _emit(observer.on_next, reader.flush())  # a source need not emit an Ending
            observer.on_completed()

        return source.stream(worded).subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


def _without_tool_choice(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "tool_choice"}


def _emit(on_next: Callable[[Delta], None], deltas: Iterator[Delta]) -> None:
    for delta in deltas:
        on_next(delta)


class _FenceReader:
    """Splits growing text into the answer and tool calls. Text is held back only if it may be the beginning of a fence.

    White space around a fence belongs to the fence. Otherwise the text would depend on how the answer is split into
    deltas.
    """

    def __init__(self) -> None:
        self.calls = 0
        # A list of pieces, so that each is searched only once: a fence that is never closed is as long as the answer.
        self._held: list[str] = []  # white space, or the content of a fence
        self._end = ""  # may be the beginning of the next marker
        self._inside = False
        self._is_after_a_call = False

    def feed(self, text: str) -> Iterator[Delta]:
        text = self._end + text
        start = 0
        while (at := text.find(self._marker, start)) >= 0:
            before = self._released(text[start:at])
            start = at + len(self._marker)
            self._inside = not self._inside
            if self._inside:
                yield from self._text(before.rstrip())
            else:
                yield from self._call(before)
        end = len(text) - count_overlap(text[start:], self._marker)
        kept, self._end = text[start:end], text[end:]
        if not self._inside:
            free = kept.rstrip()
            kept = kept[len(free) :]
            if free:
                yield from self._text(self._released(free))
        self._held.append(kept)

    def flush(self) -> Iterator[Delta]:
        """Handle the end of the text. A fence that was never closed counts as closed here."""
        if self._inside:
            body = self._released(self._end)
            self._inside, self._end = False, ""
            yield from self._call(body.rstrip().rstrip("`"))
        else:
            yield from self.flush_text()

    def flush_text(self) -> Iterator[Delta]:
        """Handle an error. The content of an open fence is neither text nor a call, because it is incomplete."""
        if not self._inside:
            held, self._end = self._released(self._end), ""
            yield from self._text(held)

    @property
    def _marker(self) -> str:
        return _CLOSE if self._inside else _OPEN

    def _released(self, text: str) -> str:
        """Return the held text followed by ``text``, and clear the held text."""
        held = "".join([*self._held, text])
        self._held.clear()
        return held

    def _text(self, text: str) -> Iterator[Delta]:
        if self._is_after_a_call:
            text = text.lstrip()
        if text:
            self._is_after_a_call = False
            yield text

    def _call(self, body: str) -> Iterator[Delta]:
        name, arguments = _parse(body)
        index = self.calls
        self.calls += 1
        self._is_after_a_call = True
        yield ToolCallDelta(index, id=f"call_text_{index}", name=name, arguments=arguments)


def _parse(body: str) -> tuple[str, str]:
    """Return the name and arguments of the call in a fence.

    A body that is not JSON is passed on as arguments, so that the model gets an error.
    """
    try:
        call = from_json(body.strip())
        return str(call["name"]), json.dumps(call.get("arguments") or {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", body.strip()


def _instructions(request: Request) -> Message:
    tools = "\n".join(map(json.dumps, request.functions))
    return {
        "role": "system",
        "content": (
            "You can use these tools, each described by a JSON schema:\n"
            f"{tools}\n\n"
            "To use one, write exactly this and stop; the result comes in the next message:\n"
            f'{_OPEN}\n{{"name": "<tool>", "arguments": {{…}}}}{_CLOSE}\n'
            "When you need no tool (any more), write the answer itself."
        ),
    }


def _in_words(message: Message) -> Message:
    """Put a message about tools into plain text, for a model that does not know such messages."""
    if message.get("role") == "tool":
        return {"role": "user", "content": f"Result of the tool {message.get('name')}:\n{message['content']}"}
    if message.get("tool_calls"):
        calls = "\n".join(
            f'{_OPEN}\n{{"name": "{call["function"]["name"]}", "arguments": {call["function"]["arguments"]}}}{_CLOSE}'
            for call in message["tool_calls"]
        )
        return {"role": "assistant", "content": f"{message.get('content') or ''}\n{calls}".strip()}
    return message
