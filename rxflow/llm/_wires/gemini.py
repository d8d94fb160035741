"""The wire of Gemini, as used by Google AI Studio and Vertex AI with ``alt=sse``.

Each event is a complete response object, which contains the next parts of the answer. The body has no mark for its end.
An answer is complete if no more parts follow its last finish reason. An answer may have several finish reasons: some
models send one in each event, and others send one after they use a built-in tool. The format is described at
https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rxflow.llm._wires.sse import Wire, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, ToolCallDelta, UsageMetrics

_FINISH_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"} | dict.fromkeys(
    (
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
    ),
    "content_filter",
)
_UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"  # Google's encoders write this for a field that is not set
_METADATA = {
    "groundingMetadata": "citation",
    "citationMetadata": "citation",
    "urlContextMetadata": "server_tool",
}
_PATH_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\]""")


@dataclass(slots=True)
class _PartialCall:
    """A function call. Its arguments may still be incomplete."""

    index: int
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    open_path: str | None = None


class GeminiWire(Wire):
    """Parses the responses of a stream.

    Some data must be sent back to the provider. litellm sends back data with these names:

    - ``ToolCallDelta.extra["provider_specific_fields"]["thought_signature"]``: the signature of a function call;
    - ``message["provider_specific_fields"]["thought_signatures"]``: the signatures of texts;
    - ``message["provider_specific_fields"]["server_side_tool_invocations"]``: uses of server tools, with signatures.
    """

    may_go_on = True

    def __init__(self) -> None:
        super().__init__()
        self._call_count = 0
        self._partial_call: _PartialCall | None = None
        self._reported: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        for candidate in event.get("candidates") or ():
            if candidate.get("index"):
                continue  # with candidateCount > 1, only the first answer is used
            known = len(batch)
            for part in get_object(candidate, "content").get("parts") or ():
                self._read_part(part, batch)
            if len(batch) > known:
                self.is_complete = False  # the answer goes on until the next finish reason
            for name in candidate:
                if name in _METADATA:
                    self._read_metadata(name, candidate[name], batch)
            reason = candidate.get("finishReason")
            if reason and reason != _UNSPECIFIED:
                self._finish(check(str, "finishReason", reason), batch)
        if "promptFeedback" in event and get_object(event, "promptFeedback").get("blockReason"):
            self.finish_reason = "content_filter"
            self.is_complete = True
        if "usageMetadata" in event:
            self._reported.update(get_object(event, "usageMetadata"))
        # Each report has the totals so far. The last report may come before the finish reason, so reports are kept.
        if self.is_complete:
            self.usage = read_usage(self._reported)
        if not self.response_id:
            self.response_id = str(event.get("responseId") or "")
            self.response_model = str(event.get("modelVersion") or "")

    def _read_part(self, part: dict[str, Any], batch: list[Delta]) -> None:
        text = part.get("text")
        if text is not None:
            is_thought = part.get("thought")
            text = self.join("reasoning" if is_thought else "content", check(str, "text", text))
            if text:
                batch.append(ReasoningDelta(text) if is_thought else text)
            if len(part) == 1:  # true of almost all parts
                return
        signature = part.get("thoughtSignature")
        if "functionCall" in part:
            self._read_call(part["functionCall"], signature, batch)
            return
        if "toolCall" in part:
            self._keep_server_tool(part["toolCall"], signature)
        elif "toolResponse" in part:
            self._keep_server_tool_response(part["toolResponse"], signature)
        elif signature:
            self._fields().setdefault("thought_signatures", []).append(signature)
        if text is None:
            kind = _kind_of(part)
            if kind:
                batch.append(PartDelta(kind, part))

    def _read_metadata(self, name: str, value: Any, batch: list[Delta]) -> None:
        if value and value != self._metadata.get(name):  # some models repeat the metadata in each event
            self._metadata[name] = value
            batch.append(PartDelta(_METADATA[name], {name: value}))

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.message.setdefault("provider_specific_fields", {})
        return fields

    def _keep_server_tool(self, call: Mapping[str, Any], signature: str | None) -> None:
        kept = {"tool_type": call.get("toolType"), "id": call.get("id"), "args": call.get("args")}
        if signature:
            kept["thought_signature"] = signature
        self._fields().setdefault("server_side_tool_invocations", []).append(kept)

    def _keep_server_tool_response(self, response: Mapping[str, Any], signature: str | None) -> None:
        for kept in self._fields().get("server_side_tool_invocations", ()):
            if kept["id"] == response.get("id"):
                kept["response"] = response.get("response")
                if signature:
                    kept["response_thought_signature"] = signature

    def _read_call(self, call: dict[str, Any], signature: str | None, batch: list[Delta]) -> None:
        """Parse a function call.

        A call arrives whole, or as its name and then pieces of its arguments. Pieces are collected, and the arguments
        are emitted when they are complete.
        """
        name = check(str, "the name of a function call", call.get("name") or "") or None
        call_id = check(str, "the id of a function call", call.get("id") or "") or None
        partial = self._partial_call
        if name:
            partial = _PartialCall(self._call_count)
            self._call_count += 1
        elif partial is None:
            return  # an empty call, which may follow the last piece of a call
        given: dict[str, Any] = call.get("args") or {}
        check(dict, "args", given)
        partial.arguments.update(given)
        for piece in call.get("partialArgs") or ():
            _add_piece(partial, piece)
        if call.get("willContinue"):
            self._partial_call = partial
            arguments = ""
        else:
            self._partial_call = None
            arguments = self.join(partial.index, json.dumps(partial.arguments, ensure_ascii=False))
        if name or arguments or signature:
            extra = {"provider_specific_fields": {"thought_signature": signature}} if signature else None
            batch.append(ToolCallDelta(partial.index, call_id, name, arguments, extra))

    def _finish(self, reason: str, batch: list[Delta]) -> None:
        self.replace_halves(batch)
        self.finish_reason = _FINISH_REASONS.get(reason, reason)
        if self.finish_reason == "stop" and self._call_count:
            self.finish_reason = "tool_calls"
        self.is_complete = True


def _kind_of(part: Mapping[str, Any]) -> str | None:
    """Return the :class:`PartDelta` kind of a part that is neither text nor a function call.

    Return None if the part has no content, but only a signature or the mark of a thought.
    """
    for name in ("inlineData", "fileData"):
        if name in part:
            return str(part[name].get("mimeType")).partition("/")[0]
    return "server_tool" if part.keys() - {"thought", "thoughtSignature"} else None


def _add_piece(call: _PartialCall, piece: Mapping[str, Any]) -> None:
    """Add ``piece`` to the arguments of ``call``. ``piece`` has a whole value, or the next part of a string."""
    path: str = piece["jsonPath"]
    container, key = _find_slot(call.arguments, path)
    if "stringValue" in piece:
        value: Any = check(str, "stringValue", piece["stringValue"])
        if call.open_path == path:
            value = container[key] + value
    elif "nullValue" in piece:
        value = None
    else:
        value = piece["numberValue"] if "numberValue" in piece else piece["boolValue"]
    container[key] = value
    call.open_path = path if piece.get("willContinue") else None


def _find_slot(arguments: dict[str, Any], path: str) -> tuple[Any, str | int]:
    """Return the object or array that contains the value at ``path``, and the value's name or index there.

    For ``$.people[0].name``, these are the object at ``$.people[0]``, and "name". Missing objects and arrays are
    created.
    """
    matches = list(_PATH_STEP.finditer(path, 1))
    if not path.startswith("$") or "".join(match[0] for match in matches) != path[1:] or not matches:
        raise TypeError(f"jsonPath is not a path to a value: {path!r}")
    keys = [int(match[2]) if match[2] else match[1] or match[3] or match[4] or "" for match in matches]
    container: Any = arguments
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        check(list if isinstance(key, int) else dict, f"what {path!r} leads to", container)
        if isinstance(key, int):
            if key > len(container):
                raise TypeError(f"jsonPath leaves out items of an array: {path!r}")
            if key == len(container):
                container.append(None)
        else:
            container.setdefault(key)
        if following is not None:
            if container[key] is None:
                container[key] = [] if isinstance(following, int) else {}
            container = container[key]
    return container, keys[-1]


def read_usage(reported: Mapping[str, Any]) -> UsageMetrics | None:
    """Return Gemini's usage; None if all counts of the prompt and of the completion are missing.

    If only some of these counts are missing, each missing count is added as 0, because Google's JSON leaves out zeros.
    Prompt tokens include what server tools added to the prompt. Completion tokens include thoughts.
    """
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    counts = [count(reported, name) for name in names]
    if all(each is None for each in counts):
        return None
    prompt, tool_use, candidates, thoughts = (each or 0 for each in counts)
    total = count(reported, "totalTokenCount")
    return UsageMetrics(
        total_tokens=prompt + tool_use + candidates + thoughts if total is None else total,
        prompt_tokens=prompt + tool_use,
        completion_tokens=candidates + thoughts,
        cached_prompt_tokens=count(reported, "cachedContentTokenCount"),
        reasoning_tokens=counts[-1],
    )
