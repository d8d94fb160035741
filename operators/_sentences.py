"""``sentences``: splits text into sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import compile_grapheme, shape_text

T = TypeVar("T")

_CLOSING = "\"'”’»)\\]}*_」』】》〉）］"  # noqa: RUF001 - includes Chinese and Japanese brackets
_STOPS, _WIDE_STOPS = ".!?…", "。！？｡"  # noqa: RUF001 - Chinese full stops need no space after them
_MAY_END = re.compile(rf"[{_STOPS}{_WIDE_STOPS}\n]")
_END = re.compile(
    rf"(?P<stop>[{_STOPS}]+)[{_CLOSING}]*|(?P<wide>[{_WIDE_STOPS}][{_WIDE_STOPS}{_STOPS}]*)[{_CLOSING}]*|\n"
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*(?:\n|(?:[-*+•]|#{1,6}|\d{1,3}[.)])[ \t])")
_PERHAPS_PARAGRAPH = re.compile(r"\n[^\S\n]*(?:[-*+•]|#{1,6}|\d{1,3}[.)]?)?\Z")
_BEFORE_WORD = re.compile(r"[\s\"'“‘«(\[{*_—–/]")  # noqa: RUF001 - quotes of several languages
_HARD_SPACES = "\u00a0\u2007\u202f"

# A full stop after one of _ABBREVIATIONS never ends a sentence.
# A full stop after one of _ABBREVIATIONS_BEFORE_NUMBERS does not end a sentence if a digit follows.
# A full stop after one of _OTHER_ABBREVIATIONS does not end a sentence if a small letter follows.
_ABBREVIATIONS = re.compile(
    r"mr|mrs|ms|dr|prof|st|mt|gen|col|sgt|capt|lt|rev|hon|e\.g|i\.e|cf|vs|viz|z\.b|d\.h|bzw", re.IGNORECASE
)
_ABBREVIATIONS_BEFORE_NUMBERS = re.compile(r"no|nos|nr|fig|figs|eq|eqs|sec|ch|vol|p|pp|art", re.IGNORECASE)
_OTHER_ABBREVIATIONS = re.compile(
    r"etc|inc|ltd|co|corp|jr|sr|al|ca|approx|dept|est|bros|[ap]\.m|ph\.d|usw|ggf", re.IGNORECASE
)
_INITIALS = re.compile(r"[A-HJ-Z]|[^\W\d_](?:\.[^\W\d_])+")
_MAX_WORD_CHARACTERS = 16  # how many characters before a full stop are searched for an abbreviation or list number

_UNDECIDED = -1


def sentences() -> Callable[[Observable[T]], Observable[T]]:
    """Split text between sentences (like ``buffer``). Each piece is one sentence with the white space before it.

    No text is lost. A sentence ends:

    - after ``. ! ? …`` and any closing quotes or brackets, if white space follows,
    - after the Chinese and Japanese forms of ``. ! ?``,
    - before an empty line, a list item or a heading.

    A sentence does not end inside a number (``3.14``), after common abbreviations of English and German (``Dr.``,
    ``e.g.``, ``Fig. 3``), after initials, or after the number of a list item. After ``…``, ``...`` and abbreviations
    such as ``etc.``, a sentence does not end if a small letter follows. Such rules have limits: an unknown abbreviation
    ends a sentence, and "Take plan B. Then rest." counts as one sentence.

    A sentence is emitted as soon as the following text shows that the sentence has ended. The last sentence is emitted
    when its call ends or continues with something else, such as a tool call. It is also emitted when the source
    completes or fails. The operator works on chunks and on strings. Items without text pass unchanged. A sentence never
    mixes the texts of two calls. ::

        source         --Hi--. How------- are you?|
        sentences()    ------Hi.------------------( How are you?)|

    Example::

        flow.observe().pipe(ops.sentences()).subscribe(speak)
    """
    return shape_text(_Sentences)


class _Sentences:
    def __init__(self) -> None:
        self._held: list[str] = []
        self._decided = 0  # the search for the end of the sentence continues at this index of the joined held text
        self._is_undecided = False

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        if not self._is_undecided and _MAY_END.search(text) is None:
            return ()
        held = "".join(self._held)
        pieces: list[str] = []
        begin, at = 0, self._decided
        self._is_undecided = False
        while (match := _END.search(held, at)) is not None:
            end = _find_end(held, begin, match)
            if end == _UNDECIDED:
                self._is_undecided = True
                break
            at = match.end()
            if end:
                pieces.append(held[begin:end])
                begin = end
        self._decided = (match.start() if match is not None else len(held)) - begin
        self._held = [held[begin:]]
        return pieces

    def flush(self) -> Sequence[str]:
        rest = "".join(self._held)
        self._held, self._decided, self._is_undecided = [], 0, False
        return (rest,) if rest else ()


def _find_end(text: str, begin: int, match: re.Match[str]) -> int:
    """Decide whether the sentence that starts at ``begin`` ends at ``match``.

    If so, return the index of the end of the sentence. If not, return 0. If more text is needed to decide, return
    _UNDECIDED.
    """
    if match["stop"]:
        return _find_end_at_stop(text, begin, match)
    if match["wide"]:
        end = match.end()
        return _UNDECIDED if end == len(text) else end if _is_between(text, end) else 0
    if _PERHAPS_PARAGRAPH.match(text, match.start()):
        return _UNDECIDED
    if not _PARAGRAPH.match(text, match.start()):
        return 0
    end = begin + len(text[begin : match.start()].rstrip())
    return end if end > begin and _is_between(text, end) else 0


def _find_end_at_stop(text: str, begin: int, match: re.Match[str]) -> int:
    end, stop = match.end(), match["stop"]
    if end == len(text):
        return _UNDECIDED
    if not text[end].isspace() or text[end] in _HARD_SPACES:
        return 0
    if "!" in stop or "?" in stop:
        return end
    if stop == ".":
        before = text[max(begin, match.start() - _MAX_WORD_CHARACTERS) : match.start()]
        word = _BEFORE_WORD.split(before)[-1]
        if _ABBREVIATIONS.fullmatch(word) or _is_list_number(before):
            return 0
        if _ABBREVIATIONS_BEFORE_NUMBERS.fullmatch(word):
            return _end_unless(str.isdigit, text, end)
        if not _OTHER_ABBREVIATIONS.fullmatch(word):
            return 0 if _INITIALS.fullmatch(word) else end
    return _end_unless(str.islower, text, end)


def _end_unless(goes_on: Callable[[str], bool], text: str, end: int) -> int:
    """Return ``end``, or 0 if the sentence goes on after ``end``.

    ``goes_on`` decides this from the first character after ``end`` that is not white space. If no such character has
    arrived, return _UNDECIDED.
    """
    following = text[end:].lstrip()[:1]
    return _UNDECIDED if not following else 0 if goes_on(following) else end


def _is_list_number(text: str) -> bool:
    """Return whether the last line of ``text`` is one to three digits. Such a line may begin a list item."""
    *_, line = text.split("\n")
    number = line.strip()
    return number.isdigit() and len(number) <= 3 and len(line) < _MAX_WORD_CHARACTERS


def _is_between(text: str, index: int) -> bool:
    """Return whether ``index`` is between two characters (grapheme clusters), not inside one."""
    return text[index - 1 : index + 1].isascii() or compile_grapheme().match(text, index - 1).end() == index
