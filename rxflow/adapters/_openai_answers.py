"""Translates a run into a chat completion or a response of OpenAI's APIs, streamed or as one object."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

from rxflow._streaming import WAITS
from rxflow._text import describe, encodable
from rxflow.adapters._translation import Part, PartTracker, Step
from rxflow.tools import as_text
from rxflow.types import (
    Cancelled,
    CrewFinished,
    Event,
    FlowFinished,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    MethodFinished,
    Retracted,
    StreamChunk,
    UsageMetrics,
)

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A client's request.

    Attributes:
        model: the model name in the request.
        messages: the conversation as messages of the chat completions API. The ``instructions`` of a request become a
            system message.
        text: the text of the last user message.
        parameters: all fields of the request.
    """

    model: str
    messages: list[Json]
    text: str
    parameters: Json


class _Run:
    """Collects what both APIs need from a run: its usage, its result and the parts of the models' answers."""

    def __init__(self) -> None:
        self.usage = UsageMetrics()
        self.result: Any = None
        self.is_cancelled = False
        # For each model answer that was cut off: an empty chunk with the labels of the answer, and the finish reason.
        self._cut_off: list[tuple[StreamChunk, str]] = []
        self._parts = PartTracker()

    @property
    def finish_reason(self) -> str:
        return self._cut_off[-1][1] if self._cut_off else "stop"

    def find_failure(self, error: BaseException | None) -> str | None:
        """Return the reason why an ended run failed or was cancelled; None if the run completed or paused."""
        if error is not None:
            return describe_error(error)
        return "the run was cancelled" if self.is_cancelled else None

    def read(self, event: Event) -> list[Step]:
        match event:
            case LLMFinished() | LLMFailed() | LLMCancelled():
                self.usage += event.usage
                if isinstance(event, LLMFinished) and event.finish_reason in ("length", "content_filter"):
                    self._cut_off.append((event.origin.chunk(""), event.finish_reason))
            case Retracted():
                self._cut_off = [each for each in self._cut_off if not event.covers(each[0])]
            case FlowFinished() | MethodFinished() | CrewFinished():
                self.result = event.result
            case Cancelled(origin=origin, reason=reason) if not origin.parent_span_id:
                self.is_cancelled = reason != WAITS  # a crew that waits for a person is not cancelled
            case _:
                pass
        # Tool calls are left out. rxflow calls the tools, and a client that saw the calls would call the tools again.
        return [step for step in self._parts.read(event) if step.part.kind != "tool_call"]

    def end(self) -> list[Step]:
        return [step for step in self._parts.end_all() if step.part.kind != "tool_call"]


class ChatAnswer:
    """Translates a run into one chat completion, which has the texts of all LLM calls, separated by blank lines.

    Only one text at a time is sent as it arrives. The texts of concurrent LLM calls wait until that text has ended.
    If the run has no texts, its result is sent.
    """

    failure: str | None = None
    """The reason why the run failed or was cancelled. None before the end of the run, and if it completed or paused."""

    def __init__(self, asked: Asked) -> None:
        self._run = _Run()
        self._head: Json = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": asked.model}
        options: Any = asked.parameters.get("stream_options") or {}
        self._shows_usage = bool(options.get("include_usage"))
        self._speaker: Part | None = None
        self._waiting: dict[Part, list[str]] = {}  # texts that are sent later, because another text is being sent
        self._ended: set[Part] = set()  # the parts that ended while another part was being sent
        # The texts that were sent and not retracted. The key None stands for the run's result.
        self._texts: dict[Part | None, list[str]] = {}
        self._has_begun = False

    @property
    def whole(self) -> Json:
        text = "\n\n".join("".join(each) for each in self._texts.values())
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._run.finish_reason}
        usage = _count_tokens(self._run.usage, "prompt", "completion")
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": usage}

    def read(self, event: Event) -> Iterator[Json]:
        steps = self._run.read(event)
        # First drop all retracted parts. The loop below sends waiting parts when a part ends, and some of the waiting
        # parts may be retracted too.
        for step in steps:
            if step.verb == "retract":
                self._texts.pop(step.part, None)
                self._waiting.pop(step.part, None)
        for step in steps:
            yield from self._show(step)

    def finish(self, error: BaseException | None) -> Iterator[Json]:
        for step in self._run.end():
            yield from self._show(step)
        self.failure = self._run.find_failure(error)
        if self.failure is not None:
            yield {"error": {"message": self.failure, "type": "server_error", "param": None, "code": "server_error"}}
            return
        if not self._texts and self._run.result is not None:
            yield self._say(None, as_text(self._run.result))
        yield self._chunk({}, self._run.finish_reason)
        if self._shows_usage:
            usage = _count_tokens(self._run.usage, "prompt", "completion")
            yield self._head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _show(self, step: Step) -> Iterator[Json]:
        part = step.part
        if part.kind != "text":
            return
        if self._speaker is None and step.verb == "begin":
            self._speaker = part
        elif part is self._speaker:
            if step.verb == "say":
                yield self._say(part, step.text)
            else:
                yield from self._hand_on()
        elif step.verb == "say":
            self._waiting.setdefault(part, []).append(step.text)
        elif step.verb == "end":
            self._ended.add(part)

    def _hand_on(self) -> Iterator[Json]:
        """Send the texts of the waiting parts. The part that was being sent has ended.

        If a waiting part has not ended, send its text so far, and stop. The rest of its text is sent as it arrives.
        """
        self._speaker = None
        while self._waiting and self._speaker is None:
            part = next(iter(self._waiting))
            yield self._say(part, "".join(self._waiting.pop(part)))
            if part not in self._ended:
                self._speaker = part

    def _say(self, part: Part | None, text: str) -> Json:
        text = encodable(text)
        role, separator = ({}, "\n\n") if self._has_begun else ({"role": "assistant"}, "")
        if part in self._texts:
            separator = ""
        self._has_begun = True
        self._texts.setdefault(part, []).append(text)
        return self._chunk(role | {"content": separator + text}, None)

    def _chunk(self, delta: Json, finish_reason: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]}


class ResponseAnswer:
    """Translates a run into one response.

    Each text of an LLM call becomes a message item, and each reasoning text becomes a reasoning item. If there are no
    texts, the run's result becomes a message item.
    """

    failure: str | None = None
    """The reason why the run failed or was cancelled. None before the end of the run, and if it completed or paused."""

    def __init__(self, asked: Asked) -> None:
        self._run = _Run()
        self._asked = asked
        self._head: Json = {"id": f"resp_{uuid4().hex}", "object": "response", "created_at": time.time()}
        self._sequence = 0
        self._has_begun = False
        self._items: dict[Part | None, Json] = {}  # oldest first; the key None stands for the run's result
        self._texts: dict[Part | None, list[str]] = {}
        self._indices: dict[Part | None, int] = {}
        self._status = "in_progress"
        self._error: Json | None = None

    @property
    def whole(self) -> Json:
        parameters = self._asked.parameters
        why = "content_filter" if self._run.finish_reason == "content_filter" else "max_output_tokens"
        has_ended = self._status != "in_progress"
        return self._head | {
            "model": self._asked.model,
            "status": self._status,
            "error": self._error,
            "incomplete_details": {"reason": why} if self._status == "incomplete" else None,
            "instructions": parameters.get("instructions"),
            "metadata": parameters.get("metadata") or {},
            "output": list(self._items.values()),
            "parallel_tool_calls": False,
            "temperature": None,
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "usage": _count_tokens(self._run.usage, "input", "output") if has_ended else None,
        }

    def read(self, event: Event) -> Iterator[Json]:
        yield from self._begin()
        for step in self._run.read(event):
            yield from self._show(step)

    def finish(self, error: BaseException | None) -> Iterator[Json]:
        yield from self._begin()
        for step in self._run.end():
            yield from self._show(step)
        self.failure = self._run.find_failure(error)
        if self.failure is not None:
            self._error = {"code": "server_error", "message": self.failure}
            self._status = "failed"
        else:
            if not any(item["type"] == "message" for item in self._items.values()) and self._run.result is not None:
                yield from self._begin_item(None)
                yield from self._say(None, as_text(self._run.result))
                yield from self._end_item(None)
            self._status = "completed" if self._run.finish_reason == "stop" else "incomplete"
        yield self._event(f"response.{self._status}", response=self.whole)

    def _begin(self) -> Iterator[Json]:
        if not self._has_begun:
            self._has_begun = True
            yield self._event("response.created", response=self.whole)
            yield self._event("response.in_progress", response=self.whole)

    def _show(self, step: Step) -> Iterator[Json]:
        match step.verb:
            case "begin":
                yield from self._begin_item(step.part)
            case "say":
                yield from self._say(step.part, step.text)
            case "end":
                yield from self._end_item(step.part)
            case _:
                # A client that reads the stream has the retracted part already, but ``whole`` leaves this part out.
                self._items.pop(step.part, None)

    def _begin_item(self, part: Part | None) -> Iterator[Json]:
        self._texts[part] = []
        self._indices[part] = index = len(self._indices)
        if part is not None and part.kind == "reasoning":
            item: Json = {"id": f"rs_{uuid4().hex}", "type": "reasoning", "summary": []}
            name, place, empty = "reasoning_summary_part", "summary_index", {"type": "summary_text", "text": ""}
        else:
            item = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "content": []}
            item["status"] = "in_progress"
            name, place, empty = "content_part", "content_index", _text_part("")
        self._items[part] = item
        yield self._event("response.output_item.added", output_index=index, item=item.copy())
        yield self._event(f"response.{name}.added", item_id=item["id"], output_index=index, part=empty, **{place: 0})

    def _say(self, part: Part | None, text: str) -> Iterator[Json]:
        text = encodable(text)
        self._texts[part].append(text)
        place: Json = {"item_id": self._items[part]["id"], "output_index": self._indices[part], "delta": text}
        if part is not None and part.kind == "reasoning":
            yield self._event("response.reasoning_summary_text.delta", summary_index=0, **place)
        else:
            yield self._event("response.output_text.delta", content_index=0, logprobs=[], **place)

    def _end_item(self, part: Part | None) -> Iterator[Json]:
        item, text = self._items[part], "".join(self._texts.pop(part))
        place: Json = {"item_id": item["id"], "output_index": self._indices[part]}
        if part is not None and part.kind == "reasoning":
            item["summary"] = [{"type": "summary_text", "text": text}]
            yield self._event("response.reasoning_summary_text.done", summary_index=0, text=text, **place)
            yield self._event("response.reasoning_summary_part.done", summary_index=0, part=item["summary"][0], **place)
        else:
            item["content"], item["status"] = [_text_part(text)], "completed"
            yield self._event("response.output_text.done", content_index=0, text=text, logprobs=[], **place)
            yield self._event("response.content_part.done", content_index=0, part=item["content"][0], **place)
        yield self._event("response.output_item.done", output_index=self._indices[part], item=item)

    def _event(self, kind: str, **given: Any) -> Json:
        number = self._sequence
        self._sequence += 1
        return {"type": kind, "sequence_number": number, **given}


def describe_error(error: BaseException) -> str:
    return encodable(describe(error))


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _count_tokens(usage: UsageMetrics, given: str, made: str) -> Json:
    """Return the usage in OpenAI's fields. Unreported numbers become 0, because the API requires a number.

    ``given`` and ``made`` are the words for input and output in the fields' names, for example "prompt" and
    "completion".
    """
    return {
        f"{given}_tokens": usage.prompt_tokens or 0,
        f"{given}_tokens_details": {"cached_tokens": usage.cached_prompt_tokens or 0},
        f"{made}_tokens": usage.completion_tokens or 0,
        f"{made}_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens or 0,
    }
