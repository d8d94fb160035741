"""``lines``: text line by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.voices import shaped

T = TypeVar("T")


def lines() -> Callable[[Observable[T]], Observable[T]]:
    r"""Cut text after each ``\n``: a piece is one line with its end, which may be ``\r\n``. Nothing is lost.

    A last line without an end comes when its call ends. Works on chunks and on strings; what carries no text passes.
    Each call is shaped by itself. A source that fails has what it said cut and shown first. ::

        source     --he--llo\nwo--------rld|
        lines()    ------(hello\n)------(world)|

    Example::

        flow.observe().pipe(ops.lines()).subscribe(log_one_line)
    """
    return shaped(_Lines)


class _Lines:
    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> Sequence[str]:
        first, end, rest = text.partition("\n")
        self._held.append(first)
        if not end:
            return ()
        whole = ["".join(self._held) + end]
        *more, last = rest.split("\n")
        whole += [line + end for line in more]
        self._held = [last]
        return whole

    def flush(self) -> Sequence[str]:
        rest = "".join(self._held)
        self._held = []
        return (rest,) if rest else ()
