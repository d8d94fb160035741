"""Comparing what a stream did with what a diagram says, and saying where they part."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from rxflow.testing.drawing import draw_together, duration, shown
from rxflow.testing.timeline import Completed, Moment, Next, Signal, Timeline, tidy
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import ReasoningChunk

_BEFORE = 20  # moments that are drawn before the first difference
_AFTER = 10  # and from it on


def same(expected: Any, actual: Any) -> bool:
    """Equal; and text equals a chunk with that content."""
    if isinstance(expected, str) and isinstance(actual, StreamChunk | ReasoningChunk):
        return actual.content == expected
    return bool(expected == actual)


def difference(expected: Timeline, actual: Timeline, values: Mapping[str, Any] | None = None) -> str | None:
    """None where they say the same; else both drawn to one scale, what the names mean, and the first difference."""
    at = 0
    for wanted, came in zip_longest(expected, actual):
        if not _agree(wanted, came):
            break
        at += 1
    else:
        return None
    first, last = max(0, at - _BEFORE), at + _AFTER
    parts = [expected.moments[first:last], actual.moments[first:last]]
    start = min(moment.time for moment in (*parts[0], *parts[1])) if first else 0
    drawing = draw_together(
        [Timeline.of((tidy(each.time - start), each.signal) for each in part) for part in parts], values, same
    )
    rows = [
        f"{row} …" if len(whole) > last else row for row, whole in zip(drawing.rows, (expected, actual), strict=True)
    ]
    lines = [
        *([f"  from {duration(start)} on:"] if first else []),
        f"  expected  {rows[0]}",
        f"  actual    {rows[1]}",
        *(f"  {line}" for line in drawing.legend),
        f"  first difference: {_said(wanted, came)}",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _agree(expected: Moment | None, actual: Moment | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return expected.time == actual.time and _same_signal(expected.signal, actual.signal)


def _same_signal(expected: Signal, actual: Signal) -> bool:
    if isinstance(expected, Next) and isinstance(actual, Next):
        return same(expected.value, actual.value)
    return expected == actual


def _said(expected: Moment | None, actual: Moment | None) -> str:
    if expected is None or actual is None:
        if actual is not None:
            return f"{_named(actual.signal)} came at {duration(actual.time)}, where nothing more was expected"
        assert expected is not None
        return f"expected {_named(expected.signal)} at {duration(expected.time)}, but nothing more came"
    if expected.time == actual.time:
        return f"at {duration(expected.time)} expected {_named(expected.signal)}, but {_named(actual.signal)} came"
    if _same_signal(expected.signal, actual.signal):
        return f"expected {_named(expected.signal)} at {duration(expected.time)}; it came at {duration(actual.time)}"
    return (
        f"expected {_named(expected.signal)} at {duration(expected.time)}, "
        f"but {_named(actual.signal)} came at {duration(actual.time)}"
    )


def _named(signal: Signal) -> str:
    if isinstance(signal, Next):
        return shown(signal.value)
    if isinstance(signal, Completed):
        return "the completion"
    return f"the error {shown(signal.error)}"
