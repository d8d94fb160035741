"""``lines``: splits text into lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import shape_text

T = TypeVar("T")


def lines() -> Callable[[Observable[T]], Observable[T]]:
    r"""Split text after each ``\n`` (like ``buffer``).

    Each piece is one line with its line break, which may be ``\r\n``.

    No text is lost. A last line without a line break is emitted when its call ends or continues with something else,
    such as a tool call. It is also emitted when the source completes or fails. The operator works on chunks and on
    strings. Items without text pass unchanged. A line never mixes the texts of two calls. ::

        source     --he--llo\nwo--------rld|
        lines()    ------(hello\n)---------(world)|

    Example::

        flow.observe().pipe(ops.lines()).subscribe(log_one_line)
    """
    return shape_text(_Lines)


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
