"""What a scripted model says in one turn, written as values, and the deltas that go out for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rxflow.llm.source import Delta, ReasoningDelta, ToolCallDelta
from rxflow.types.usage import UsageMetrics

_PIECE = 8  # characters of arguments in one delta


@dataclass(frozen=True, slots=True)
class Calling:
    """The model calls a tool; made by :func:`tool_call`."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model reasons; made by :func:`thinking`."""

    text: str


Said: TypeAlias = str | Calling | Thinking
"""One thing that a model says; a string is answer text as it is."""

Value: TypeAlias = Said | BaseException | Sequence[Said | BaseException]
"""What a name in a script stands for: one thing, several at once, or the error that breaks the turn off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer with its own usage, cost or reason for ending; made by :func:`turn`. None: the model's."""

    answer: str | Value
    usage: UsageMetrics | None = None
    cost: float | None = None
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.answer if isinstance(self.answer, str) else repr(self.answer)


def tool_call(name: str, arguments: Mapping[str, Any] | str | None = None, *, id: str | None = None) -> Calling:  # noqa: A002
    """The model calls ``name``. Arguments that are a string go out as they are, broken JSON for instance."""
    return Calling(name, arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {})), id)


def thinking(text: str) -> Thinking:
    """The model reasons: not a part of its answer."""
    return Thinking(text)


def turn(
    answer: str | Value,
    *,
    usage: UsageMetrics | None = None,
    cost: float | None = None,
    finish_reason: str | None = None,
) -> Turn:
    """One turn that reports what the others do not."""
    return Turn(answer=answer, usage=usage, cost=cost, finish_reason=finish_reason)


class Speaker:
    """Puts what is said in one turn into deltas. ``native`` models call tools by deltas, others in a fence of text."""

    def __init__(self, turn: int, *, native: bool) -> None:
        self.deltas = 0
        self.reasoning = 0
        self.calls = 0
        self._turn = turn
        self._native = native

    def deltas_of(self, said: Said) -> Iterator[Delta]:
        """The deltas of one thing, counted."""
        for delta in self._deltas_of(said):
            self.deltas += 1
            yield delta

    def _deltas_of(self, said: Said) -> Iterator[Delta]:
        if isinstance(said, str):
            yield said
        elif isinstance(said, Thinking):
            self.reasoning += 1
            yield ReasoningDelta(said.text)
        else:
            index, self.calls = self.calls, self.calls + 1
            yield from self._call(said, index) if self._native else _fence(said)

    def _call(self, called: Calling, index: int) -> Iterator[Delta]:
        yield ToolCallDelta(index, called.id or f"call_{self._turn}_{index}", called.name)
        for piece in _pieces(called.arguments):
            yield ToolCallDelta(index, arguments=piece)


def _fence(called: Calling) -> Iterator[Delta]:
    yield "```tool_call\n"
    yield from _pieces(f'{{"name": {json.dumps(called.name)}, "arguments": {called.arguments}}}')
    yield "\n```\n"


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
