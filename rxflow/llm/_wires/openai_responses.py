"""The wire of OpenAI's Responses API.

An answer is a list of output items. For each item, the server sends an "added" event, deltas, and a "done" event with
the whole item. Not every server sends deltas for everything. Content without deltas is taken from the "done" event. The
format is described at https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from rxflow.llm._wires.sse import ErrorEvent, Wire, add_up, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, UsageMetrics

_REASONING_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


@dataclass(slots=True)
class _Item:
    """What was emitted of one output item.

    ``call_index`` is the number of its tool call; None if the item is not a tool call.
    """

    call_index: int | None = None
    has_deltas: bool = False
    is_done: bool = False
    citation_count: int = 0


class OpenAIResponsesWire(Wire):
    """Parses the events of a response.

    ``message`` may get two fields, which must be sent back to the provider. litellm expects these names when it turns a
    chat request into a request to the Responses API:

    - ``reasoning_items``: a list of ``{"type": "reasoning", "id", "summary", "encrypted_content"}``;
    - ``provider_specific_fields["phase"]``: the phase of the message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[Hashable, _Item] = {}
        self._call_count = 0
        self._is_stored = True

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self._item(event).has_deltas = True
            self.add_text(event["delta"], batch)
        elif kind in _REASONING_DELTAS:
            self._item(event).has_deltas = True
            self._add_reasoning(event["delta"], batch)
        elif kind == "response.function_call_arguments.delta":
            self._add_arguments(self._item(event), event["delta"], batch)
        elif kind == "response.function_call_arguments.done":
            if not self._item(event).has_deltas:
                self._add_arguments(self._item(event), event["arguments"], batch)
        elif kind == "response.refusal.delta":
            self._item(event).has_deltas = True
            self._add_refusal(event["delta"], batch)
        elif kind == "response.output_text.annotation.added":
            self._item(event).citation_count += 1
            batch.append(PartDelta("citation", event["annotation"]))
        elif kind == "response.output_item.added":
            self._begin_item(self._item(event), event["item"], batch)
        elif kind == "response.output_item.done":
            self._end_item(self._item(event), event["item"], batch)
        elif kind in ("response.completed", "response.incomplete"):
            self._finish(event["response"], batch, is_incomplete=kind == "response.incomplete")
        elif kind == "response.failed":
            raise ErrorEvent(event["response"].get("error") or event["response"])
        elif kind == "error":
            raise ErrorEvent(event)
        elif kind == "response.created":
            self._identify(event["response"])

    def _item(self, event: dict[str, Any]) -> _Item:
        """Return the item that an event belongs to. Create it if needed.

        Items are found by position, because some servers change an item's id in each event. Other servers never send
        positions: their items are found by id. If no item has that id, an "added" event begins an item, and any other
        event belongs to the newest item.
        """
        key = event.get("output_index")
        if key is None:
            key = event.get("item_id") or get_object(event, "item").get("id")
            if key not in self._items and self._items and event["type"] != "response.output_item.added":
                return next(reversed(self._items.values()))
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = _Item()
        return item

    def _add_refusal(self, text: Any, batch: list[Delta]) -> None:
        text = self.join("refusal", check(str, "refusal", text))
        if text:
            batch.append(RefusalDelta(text))

    def _add_reasoning(self, text: Any, batch: list[Delta]) -> None:
        text = self.join("reasoning", check(str, "reasoning", text))
        if text:
            batch.append(ReasoningDelta(text))

    def _add_arguments(self, item: _Item, arguments: Any, batch: list[Delta]) -> None:
        if item.call_index is None:
            raise TypeError("arguments come before their function call")
        arguments = self.join(item.call_index, check(str, "arguments", arguments))
        if arguments:
            item.has_deltas = True
            batch.append(ToolCallDelta(item.call_index, arguments=arguments))

    def _begin_item(self, item: _Item, content: dict[str, Any], batch: list[Delta]) -> None:
        if content.get("type") == "function_call" and item.call_index is None:
            item.call_index = self._call_count
            self._call_count += 1
            call_id = check(str, "the id of a function call", content["call_id"])
            batch.append(
                ToolCallDelta(item.call_index, call_id, check(str, "the name of a function call", content["name"]))
            )

    def _end_item(self, item: _Item, content: dict[str, Any], batch: list[Delta]) -> None:
        item.is_done = True
        match content.get("type"):
            case "message":
                self._end_message(item, content, batch)
            case "reasoning":
                if not item.has_deltas:
                    self._add_reasoning(_reasoning_text(content), batch)
                self._keep_reasoning(content)
            case "function_call":
                self._begin_item(item, content, batch)
                if not item.has_deltas:
                    self._add_arguments(item, content.get("arguments") or "{}", batch)
            case "image_generation_call":
                batch.append(PartDelta("image", content))
            case _:
                batch.append(PartDelta("server_tool", content))

    def _end_message(self, item: _Item, content: dict[str, Any], batch: list[Delta]) -> None:
        for part in content.get("content") or ():
            if not item.has_deltas and part.get("type") == "output_text":
                self.add_text(part["text"], batch)
            elif not item.has_deltas and part.get("type") == "refusal":
                self._add_refusal(part["refusal"], batch)
            annotations = part.get("annotations") or ()
            batch.extend(PartDelta("citation", annotation) for annotation in annotations[item.citation_count :])
            item.citation_count = max(0, item.citation_count - len(annotations))
        if content.get("phase"):
            self.message["provider_specific_fields"] = {"phase": content["phase"]}

    def _keep_reasoning(self, content: dict[str, Any]) -> None:
        """Keep a reasoning item, if it can be sent back to the server.

        If the server has not stored the response, it accepts the item only with ``encrypted_content``.
        """
        if self._is_stored or content.get("encrypted_content"):
            kept = {name: content[name] for name in ("type", "id", "encrypted_content") if content.get(name)}
            self.message.setdefault("reasoning_items", []).append({**kept, "summary": content.get("summary") or []})

    def _identify(self, response: dict[str, Any]) -> None:
        self.response_id = str(response.get("id") or "")
        self.response_model = str(response.get("model") or "")
        self._is_stored = response.get("store") is not False

    def _finish(self, response: dict[str, Any], batch: list[Delta], *, is_incomplete: bool) -> None:
        self._identify(response)
        if not any(item.has_deltas or item.is_done for item in self._items.values()):
            for index, content in enumerate(response.get("output") or ()):
                item = self._items.get(content.get("id")) or self._item({"output_index": index})
                self._end_item(item, content, batch)
        self.replace_halves(batch)
        self.usage = read_usage(response.get("usage"))
        if is_incomplete or response.get("status") == "incomplete":
            reason = get_object(response, "incomplete_details").get("reason")
            self.finish_reason = "length" if reason == "max_output_tokens" else reason
        else:
            self.finish_reason = "tool_calls" if self._call_count else "stop"
        self.is_complete = self.is_done = True


def _reasoning_text(content: dict[str, Any]) -> str:
    """Return the summary of a reasoning item. If there is none, return its full text, which some models show."""
    parts = content.get("summary") or content.get("content") or ()
    return "".join(str(part.get("text") or "") for part in parts)


def read_usage(reported: object) -> UsageMetrics | None:
    """Return the usage of a response; None if it has no counts."""
    prompt, completion = count(reported, "input_tokens"), count(reported, "output_tokens")
    return add_up(
        prompt,
        completion,
        count(reported, "total_tokens"),
        cached_prompt_tokens=count(get_object(reported, "input_tokens_details"), "cached_tokens"),
        reasoning_tokens=count(get_object(reported, "output_tokens_details"), "reasoning_tokens"),
    )
