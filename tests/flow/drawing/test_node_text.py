"""Text that fits its box."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from rxflow.flow._drawing.node_text import Font, clean_text, measure_width, shorten, wrap

SANS = Font(12)


def test_what_fits_stays_as_it_is() -> None:
    assert shorten("short", SANS, 100) == "short"


@given(st.text(), st.floats(20, 300), st.booleans())
def test_what_is_shortened_fits(text: str, limit: float, is_mono: bool) -> None:
    font = Font(13, is_mono)
    cut = shorten(text, font, limit)
    assert measure_width(cut, font) <= limit
    assert cut == text or text.startswith(cut.removesuffix("…"))


@given(st.text(), st.integers(1, 4))
@example("00)<\x80\x80🀀🀀00", 1)  # widths that once added up differently when summed up in another order
def test_wrapped_text_keeps_to_its_lines(text: str, lines: int) -> None:
    done = wrap(text, SANS, 90, lines)
    assert len(done) <= lines
    assert all(measure_width(line, SANS) <= 90 for line in done)


def test_text_is_wrapped_between_words_and_its_rest_is_left_out() -> None:
    assert wrap("one two three four five six seven eight", SANS, 80, 2) == ["one two", "three four…"]


def test_wide_scripts_are_known_to_be_wide() -> None:
    assert measure_width("日本語", SANS) > 1.5 * measure_width("abc", SANS)


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\ud800", "\u202e", "\ufffe"])
def test_what_a_page_cannot_hold_is_replaced(char: str) -> None:
    assert clean_text(f"a{char}b") == "a\ufffdb"


def test_line_breaks_become_spaces() -> None:
    assert clean_text("a\nb\u2028c") == "a b c"
