"""``words``: splits text into words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from reactivex import Observable

from rxflow.operators._core import load_regex, shape_text

T = TypeVar("T")

# White space as Unicode and the regex package define it. These two patterns are compiled by re, whose \s also contains
# \x1c to \x1f. So the patterns exclude these characters.
_SPACE = re.compile(r"[^\S\x1c-\x1f]")
_WORD = re.compile(r"[^\S\x1c-\x1f]*[\S\x1c-\x1f]+(?=[^\S\x1c-\x1f])")

# Scripts that have no spaces between words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}--[\p{N}\p{P}]]"
_OPENING = r"[\p{Ps}\p{Pi}]"
_JOINING = r"[\p{GCB=Extend}\p{GCB=SpacingMark}]"
_STACKING = (
    r"[\u1039\u17d2]"  # signs of Myanmar and Khmer: the letter after the sign is drawn below the letter before it
)


def words() -> Callable[[Observable[T]], Observable[T]]:
    """Split text between words (like ``buffer``). Each piece is one word with the white space before it.

    No text is lost. Punctuation stays with its word. In scripts without spaces (Chinese, Japanese, Thai …), the word
    boundaries of Unicode are used. In most of these scripts, there is a boundary between any two characters.

    The last word is held, because more letters may follow. It is emitted when its call ends or continues with something
    else, such as a tool call. It is also emitted when the source completes or fails. The operator works on chunks and
    on strings. Items without text pass unchanged. A word never mixes the texts of two calls. ::

        source     --he--llo wo---------rld|
        words()    ------hello-------------( world)|

    Example::

        flow.observe().pipe(ops.words()).subscribe(show_one_word)
    """
    return shape_text(_Words)


class _Words:
    def __init__(self) -> None:
        self._held: list[str] = []
        self._is_special = False

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        if not self._is_special:
            self._is_special = not text.isascii() and _compile_special().search(text) is not None
            if not self._is_special and _SPACE.search(text) is None:
                return ()
        held = "".join(self._held)
        complete = _split(held) if self._is_special else _WORD.findall(held)
        rest = held[sum(map(len, complete)) :]
        self._held = [rest]
        if self._is_special and complete:
            self._is_special = _compile_special().search(rest) is not None
        return complete

    def flush(self) -> Sequence[str]:
        rest = "".join(self._held)
        self._held = []
        return (rest,) if rest else ()


def _split(text: str) -> list[str]:
    """Return all words of ``text`` except the last one. This is for text that needs Unicode's word boundaries."""
    starts = [match.start() for match in _compile_start().finditer(text)]
    return [text[begin:end] for begin, end in zip([0, *starts], starts, strict=False)]


@cache
def _compile_special() -> Any:
    """Compile a pattern for the characters that need Unicode's word boundaries.

    These are the letters of scripts without spaces, and signs such as the Arabic number sign. Unicode joins such a sign
    to the character after it, even to a space.
    """
    return load_regex().compile(rf"[{_UNSPACED}\p{{GCB=Prepend}}]", load_regex().VERSION1)


@cache
def _compile_start() -> Any:
    """Compile a pattern for the start of a word.

    A word starts before white space, which belongs to the word after it. So does an opening bracket. A word also starts
    at a word boundary that has a letter of a script without spaces on one side.
    """
    return load_regex().compile(
        rf"""
        (?<=\S) (?<!\p{{GCB=Prepend}}) (?:
            (?=\s)
          | (?w:\b) (?<!{_OPENING}) (?<!{_STACKING}[{_JOINING}\u200d]*) (?!{_JOINING}) (?:
                (?={_OPENING}*+{_UNSPACED})
              | (?<={_UNSPACED}[[^\w\s]--{_OPENING}||\p{{M}}]*+) (?=[\w||{_OPENING}])
            )
        )""",
        load_regex().VERSION1 | load_regex().VERBOSE,
    )
