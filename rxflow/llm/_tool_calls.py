"""Finds the tool call that a delta belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from rxflow.llm.source import ToolCallDelta
from rxflow.types import ToolCall, ToolCallChunk

_PLACEHOLDER = "{}"


@dataclass(slots=True)
class _OpenCall:
    number: int
    index: int | None
    id: str
    name: str
    has_own_id: bool
    pieces: list[str] = field(default_factory=list[str])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    held: str = ""
    """The arguments ``{}``, if they may be a placeholder. They are dropped if the real arguments follow."""

    @property
    def arguments(self) -> str:
        return "".join(self.pieces) + self.held

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object."""
        try:
            return isinstance(from_json(self.arguments), dict)
        except ValueError:
            return False


class ToolCallAssembler:
    """Joins the deltas of an answer's tool calls.

    Providers disagree on how a delta identifies its call. The first of these rules that fits decides:

    1. A delta with a known id belongs to the call with that id. But if that call is complete, and the delta has another
       index, the provider may have used the id twice. If the delta also has a name, or if the call at its index has no
       id of its own, the id is ignored, and the next rules decide.
    2. A delta with neither name nor id, and with an unknown index, belongs to the last call without arguments. If all
       calls have arguments, the delta belongs to the last call. If there is no call yet, rule 3 decides.
    3. A delta with an unknown index begins a call.
    4. A delta with a name begins another call in three cases: the call at its index is complete, that call has another
       name, or both the delta and that call have an id. In the third case, the ids differ, because rule 1 has handled
       equal ids.
    5. Any other delta belongs to the call at its index.

    A call without an id gets a random id. Some providers send ``{}`` as a placeholder before the real arguments. So
    ``{}`` is held back until more arguments arrive or the answer ends.
    """

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int | None, _OpenCall] = {}
        self._by_id: dict[str, _OpenCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, delta: ToolCallDelta) -> ToolCallChunk:
        """Return the chunk for ``delta``, with the id and name of its call."""
        call = self._find(delta)
        if delta.extra:
            call.extra |= delta.extra
        arguments = self._take_arguments(call, delta.arguments)
        return ToolCallChunk(tool_id=call.id, tool_name=call.name, arguments=arguments, index=call.number)

    def finish(self) -> Iterator[ToolCallChunk]:
        """Yield a chunk for each ``{}`` that is still held back. Call this when the answer has ended."""
        for call in self._calls:
            if call.held:
                held, call.held = call.held, ""
                call.pieces.append(held)
                yield ToolCallChunk(tool_id=call.id, tool_name=call.name, arguments=held, index=call.number)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls so far, in the order of their starts."""
        return tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in self._calls)

    @property
    def extras(self) -> Mapping[str, Mapping[str, Any]]:
        """A mapping from a call's id to the extra fields that must be sent back to the provider with this call."""
        return {call.id: call.extra for call in self._calls if call.extra}

    def _find(self, delta: ToolCallDelta) -> _OpenCall:
        known = self._by_id.get(delta.id) if delta.id else None
        if known is not None and self._is_of_another(delta, known):
            return self._find(replace(delta, id=None))  # the provider has used the id twice
        if known is not None:
            if delta.name and not known.name:
                known.name = delta.name
            return known
        at_index = self._by_index.get(delta.index)
        if at_index is None and not delta.name and not delta.id:
            at_index = self._call_without_arguments()
        if at_index is None or self._begins_another(delta, at_index):
            return self._begin(delta)
        if delta.id and not at_index.has_own_id:
            self._rename(at_index, delta.id)
        if delta.name and not at_index.name:
            at_index.name = delta.name
        return at_index

    def _is_of_another(self, delta: ToolCallDelta, known: _OpenCall) -> bool:
        if delta.index == known.index:
            return False
        at_index = self._by_index.get(delta.index)
        return bool(delta.name or (at_index is not None and not at_index.has_own_id)) and known.is_whole

    def _call_without_arguments(self) -> _OpenCall | None:
        empty = [call for call in self._calls if not call.pieces]
        return empty[-1] if empty else (self._calls[-1] if self._calls else None)

    def _begins_another(self, delta: ToolCallDelta, call: _OpenCall) -> bool:
        if not delta.name:
            # Some gateways invent a new id for each delta. So a new id alone does not begin another call.
            return False
        if delta.id and call.has_own_id:
            return True
        return call.is_whole or bool(call.name and delta.name != call.name)

    def _begin(self, delta: ToolCallDelta) -> _OpenCall:
        number = len(self._calls)
        call = _OpenCall(number, delta.index, delta.id or f"call_{uuid4().hex[:24]}", delta.name or "", bool(delta.id))
        self._calls.append(call)
        self._by_index[delta.index] = call
        self._by_id[call.id] = call
        return call

    def _rename(self, call: _OpenCall, new_id: str) -> None:
        del self._by_id[call.id]
        call.id, call.has_own_id = new_id, True
        self._by_id[new_id] = call

    def _take_arguments(self, call: _OpenCall, arguments: str) -> str:
        """Add ``arguments`` to ``call``, and return what to emit now. A possible placeholder is held back."""
        if not arguments:
            return ""
        if not call.pieces and not call.held and arguments == _PLACEHOLDER:
            call.held = arguments
            return ""
        if call.held:
            held, call.held = call.held, ""
            if not arguments.lstrip().startswith("{"):
                arguments = held + arguments
        call.pieces.append(arguments)
        return arguments
