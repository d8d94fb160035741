"""``words``: text word by word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import shaped

T = TypeVar("T")

_WORD = re.compile(r"\s*\S+")
_SPACE = re.compile(r"\s")


def words() -> Callable[[Observable[T]], Observable[T]]:
    """Cut text between words: each piece is one word and the white space before it. Nothing is lost.

    The last word of a call comes when the call ends, as until then it may go on. Works on chunks and on strings;
    what carries no text passes. Each call has a lane of its own. ::

        source     --he--llo wo---------rld|
        words()    ------hello----------( world)|

    Example::

        flow.observe().pipe(ops.words()).subscribe(show_one_word)
    """
    return shaped(_Words)


class _Words:
    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        if _SPACE.search(text) is None:
            return ()
        held = "".join(self._held)
        complete = _WORD.findall(held)[:-1]
        self._held = [held[sum(map(len, complete)) :]]
        return complete

    def flush(self) -> Sequence[str]:
        rest = "".join(self._held)
        return [rest] if rest else ()
