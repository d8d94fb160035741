"""Text as it may arrive: cut anywhere, also inside of what people see as one character, and inside of code points."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from hypothesis import strategies as st
from reactivex import Observable, Subject

from rxflow.operators._core.text import compile_grapheme

SCRAPS = [
    *"aB.1 \n!?-_@(“”)",
    "\r\n",
    "\r",
    "\n\n",
    "e\u0301",  # a letter and its accent
    "\u0301",
    " \u0301",
    "👩\u200d👩\u200d👧",  # one family
    "👍🏽",
    "🇩🇪🇫🇷",
    "\u200d",
    "\ufe0f",
    "1\ufe0f\u20e3",
    "你好",
    "。",
    "「",
    "」",
    "カタ",
    "ｶﾞ",
    "が",
    "か\u3099",
    "ที่ทำ",
    "한국",
    "क्षि",
    "က္က",
    "\u0600",  # a sign that joins what follows
    "\u00a0",
    "\x1c",
    "e.g.",
    "Dr.",
    "3.14",
]

TEXTS = st.lists(st.sampled_from(SCRAPS) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> tuple[str, list[str]]:
    """A text, and the same in pieces of UTF-16: a code point may be two halves, in one piece or in two."""
    text = draw(texts)
    encoded = text.encode("utf-16-le")
    units = [encoded[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(encoded), 2)]
    places = sorted(draw(st.sets(st.integers(0, len(units)), max_size=len(units))))
    ends = [*places, len(units)]
    return text, ["".join(units[begin:end]) for begin, end in zip([0, *places], ends, strict=True)]


def made_of(
    operator: Callable[[Observable[Any]], Observable[Any]],
    items: Iterable[Any],
    between: Callable[[], object] = lambda: None,
) -> list[Any]:
    """What an operator makes of items that come one by one. ``between`` is called after each, and at the end."""
    source: Subject[Any] = Subject()
    made: list[Any] = []
    errors: list[Exception] = []
    source.pipe(operator).subscribe(made.append, errors.append)
    for item in items:
        source.on_next(item)
        between()
    source.on_completed()
    between()
    assert not errors
    return made


def splits_a_character(text: str, pieces: Iterable[str]) -> bool:
    """Some piece ends inside of what people see as one character of ``text``."""
    whole = {match.end() for match in compile_grapheme().finditer(text)}
    return not whole.issuperset(accumulate(map(len, pieces)))
