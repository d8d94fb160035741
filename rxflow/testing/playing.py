"""Turns made ready to be played: what is said when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from rxflow.testing.diagrams import parse_script
from rxflow.testing.timeline import Completed, Failed
from rxflow.testing.turns import Calling, Said, Thinking, Turn, Value
from rxflow.types.usage import UsageMetrics


@dataclass(frozen=True, slots=True)
class Moment:
    """What is said ``at`` so many seconds after the subscription."""

    at: float
    said: tuple[Said | BaseException, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One turn. ``ends_at`` is None where it stays open; ``shown`` is how it was written."""

    shown: str
    moments: tuple[Moment, ...]
    ends_at: float | None
    usage: UsageMetrics | None
    cost: float | None
    finish_reason: str | None


def line_of(
    given: str | Turn | Value,
    values: Mapping[str, Value],
    error: BaseException | None,
    usage: UsageMetrics | None,
    cost: float | None,
) -> Line:
    """Read one turn. What it does not say of itself it takes from the model.

    Raises:
        ValueError: a script that cannot be read.
        TypeError: what a model cannot say.
    """
    turn = given if isinstance(given, Turn) else Turn(answer=given)
    answer = turn.answer
    if isinstance(answer, str):
        moments, ends_at = _read(answer, values, error)
    else:
        moments, ends_at = (Moment(0.0, _things(answer)),), 0.0
    return Line(
        shown=str(turn) if isinstance(answer, str) else repr(answer),
        moments=moments,
        ends_at=ends_at,
        usage=usage if turn.usage is None else turn.usage,
        cost=cost if turn.cost is None else turn.cost,
        finish_reason=turn.finish_reason,
    )


def _read(
    script: str, values: Mapping[str, Value], error: BaseException | None
) -> tuple[tuple[Moment, ...], float | None]:
    breaks_off = values.get("#", error)
    if breaks_off is not None and not isinstance(breaks_off, BaseException):
        raise TypeError(f"'#' in a script stands for an exception; values has {breaks_off!r} for it")
    moments: list[Moment] = []
    for each in parse_script(script, values, breaks_off):
        at = each.time / 1000
        if isinstance(each.signal, Completed):
            return tuple(moments), at
        value = each.signal.error if isinstance(each.signal, Failed) else each.signal.value
        moments.append(Moment(at, _things(value)))
    return tuple(moments), None


def _things(value: object) -> tuple[Said | BaseException, ...]:
    """One thing, or several."""
    several = cast(Iterable[object], value) if isinstance(value, list | tuple) else (value,)
    said: list[Said | BaseException] = []
    for each in several:
        if not isinstance(each, str | Calling | Thinking | BaseException):
            raise TypeError(
                f"a model says text, tool_call(…), thinking(…), an exception, or a list of these; got {each!r}"
            )
        said.append(each)
    return tuple(said)
