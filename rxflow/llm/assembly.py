"""Putting the deltas of one call together: chunks for the stream, and the whole answer at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from rxflow.llm.source import Delta, Ending, ReasoningDelta, ToolCallDelta
from rxflow.streaming.emitter import Emitter
from rxflow.types.chunks import ToolCallChunk
from rxflow.types.events import LLMFinished, ReasoningChunk, ToolCall


@dataclass(slots=True)
class _PartialCall:
    index: int
    id: str
    name: str
    pieces: list[str] = field(default_factory=list[str])


class Assembly:
    """Turns deltas into chunks as they come, and remembers them."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._chunk = emitter.origin.chunk
        self._seq = emitter.run.seq
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_PartialCall] = []
        self._latest: dict[int, _PartialCall] = {}  # by index
        self._ending: Ending | None = None

    @property
    def has_begun(self) -> bool:
        """Something of the answer has been shown: trying again would show it twice."""
        return bool(self._text or self._reasoning or self._calls)

    @property
    def text(self) -> str:
        """The answer text so far."""
        return "".join(self._text)

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        if type(delta) is str:
            if delta:
                self._text.append(delta)
                self._emitter.on_next(self._chunk(delta, seq=next(self._seq)))
        elif isinstance(delta, ToolCallDelta):
            self._add_call(delta)
        elif isinstance(delta, ReasoningDelta):
            self._reasoning.append(delta.content)
            self._emitter.on_next(ReasoningChunk(origin=self._emitter.origin, content=delta.content))
        elif isinstance(delta, Ending):
            self._ending = delta

    def _add_call(self, delta: ToolCallDelta) -> None:
        call = self._latest.get(delta.index)
        # Some providers give all calls of a turn one index, and tell them apart by id.
        if call is None or (delta.name and delta.id and delta.id != call.id):
            call = _PartialCall(delta.index, delta.id or f"call_{delta.index}", delta.name or "")
            self._calls.append(call)
            self._latest[delta.index] = call
        elif delta.name and not call.name:
            call.name = delta.name
        call.pieces.append(delta.arguments)
        chunk = ToolCallChunk(tool_id=call.id, tool_name=call.name, arguments=delta.arguments, index=delta.index)
        self._emitter.on_next(self._emitter.origin.tool_chunk(chunk, seq=next(self._seq)))

    def finished(self) -> LLMFinished:
        """The whole answer."""
        ending = self._ending or Ending()
        return LLMFinished(
            origin=self._emitter.origin,
            text=self.text,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.name, arguments="".join(call.pieces))
                for call in sorted(self._calls, key=lambda call: call.index)
            ),
            reasoning="".join(self._reasoning),
            finish_reason=ending.finish_reason,
            usage=ending.usage,
            cost=ending.cost,
        )
