"""``words``: text word by word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from reactivex import Observable

from rxflow.operators._core.regexes import regex
from rxflow.operators._core.voices import shaped

T = TypeVar("T")

# White space as Unicode has it, which re and regex do not quite agree on.
_SPACE = re.compile(r"[^\S\x1c-\x1f]")
_WORD = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+(?=[^\S\x1c-\x1f])")

# Scripts that are written without spaces.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}--[\p{N}\p{P}]]"
_OPENING = r"[\p{Ps}\p{Pi}]"
_JOINING = r"[\p{GCB=Extend}\p{GCB=SpacingMark}]"
_STACKING = r"[\u1039\u17d2]"  # signs of Myanmar and Khmer that put the next letter under this one


def words() -> Callable[[Observable[T]], Observable[T]]:
    """Cut text between words: each piece is one word and the white space before it. Nothing is lost.

    Punctuation stays with its word. Where a script has no spaces (Chinese, Japanese, Thai …) the word boundaries of
    Unicode decide, which for most of them means character by character. The last word of a call comes when the call
    ends, as until then it may go on; also where its source fails. Works on chunks and on strings; what carries no text
    passes. Each call is shaped by itself. ::

        source     --he--llo wo---------rld|
        words()    ------hello----------( world)|

    Example::

        flow.observe().pipe(ops.words()).subscribe(show_one_word)
    """
    return shaped(_Words)


class _Words:
    def __init__(self) -> None:
        self._held: list[str] = []
        self._is_special = False

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        if not self._is_special:
            self._is_special = not text.isascii() and _special().search(text) is not None
            if not self._is_special and _SPACE.search(text) is None:
                return ()
        held = "".join(self._held)
        complete = _split(held) if self._is_special else _WORD.findall(held)
        rest = held[sum(map(len, complete)) :]
        self._held = [rest]
        if self._is_special and complete:
            self._is_special = _special().search(rest) is not None
        return complete

    def flush(self) -> Sequence[str]:
        rest = "".join(self._held)
        self._held = []
        return (rest,) if rest else ()


def _split(text: str) -> list[str]:
    """The words of ``text`` but for the last, where some are in a script without spaces."""
    starts = [match.start() for match in _start().finditer(text)]
    return [text[begin:end] for begin, end in zip([0, *starts], starts, strict=False)]


@cache
def _special() -> Any:
    """What calls for the rules of Unicode; also number signs, which join the space behind them to one character."""
    return regex().compile(rf"[{_UNSPACED}\p{{GCB=Prepend}}]", regex().VERSION1)


@cache
def _start() -> Any:
    """Where a word starts: at white space, at or behind an unspaced letter. Opening brackets go with what follows."""
    return regex().compile(
        rf"""
        (?<=\S) (?<!\p{{GCB=Prepend}}) (?:
            (?=\s)
          | (?w:\b) (?<!{_OPENING}) (?<!{_STACKING}[{_JOINING}\u200d]*) (?!{_JOINING}) (?:
                (?={_OPENING}*+{_UNSPACED})
              | (?<={_UNSPACED}[[^\w\s]--{_OPENING}||\p{{M}}]*+) (?=[\w||{_OPENING}])
            )
        )""",
        regex().VERSION1 | regex().VERBOSE,
    )
