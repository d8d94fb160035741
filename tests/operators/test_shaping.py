"""What holds for all operators that shape text: nothing is lost, nothing is cut, whatever way the text arrives."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from reactivex import Observable
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from tests.operators.cuts import cut_texts, made_of, splits_a_character

Text = tuple[str, list[str]]
Make = Callable[[], Callable[[Observable[Any]], Observable[Any]]]

CUTTING: dict[str, Make] = {"words": ops.words, "sentences": ops.sentences, "lines": ops.lines}
SHAPING: dict[str, Make] = {
    **CUTTING,
    "coalesce": lambda: ops.coalesce(characters=3),
    "hold_back": lambda: ops.hold_back(lambda _: ops.Release(), until=ops.sentences()),
    "redact": lambda: ops.redact("never said by anyone"),
    "stop_at": lambda: ops.stop_at("never said by anyone"),
}


@pytest.mark.parametrize("name", SHAPING)
@given(cut=cut_texts())
def test_nothing_is_lost_and_no_character_is_cut(name: str, cut: Text) -> None:
    text, chunks = cut
    pieces = made_of(SHAPING[name](), chunks)
    assert "".join(pieces) == text
    assert not splits_a_character(text, pieces)


@pytest.mark.parametrize("name", CUTTING)
@given(cut=cut_texts())
def test_the_pieces_are_the_same_however_the_text_arrives(name: str, cut: Text) -> None:
    text, chunks = cut
    assert made_of(CUTTING[name](), chunks) == made_of(CUTTING[name](), [text])


@given(cut=cut_texts())
def test_the_text_so_far_is_never_cut_either(cut: Text) -> None:
    text, chunks = cut
    texts = made_of(ops.accumulate(), chunks)
    assert (texts or [""])[-1] == text
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    for each in texts:
        assert not splits_a_character(text, [each])


TIMED: dict[str, Callable[[TestScheduler], Callable[[Observable[Any]], Observable[Any]]]] = {
    "coalesce": lambda clock: ops.coalesce(seconds=2, scheduler=clock),
    "smooth": lambda clock: ops.smooth(2, catch_up=5, scheduler=clock),
}


@pytest.mark.parametrize("name", TIMED)
@given(cut=cut_texts(), seconds=st.integers(1, 4))
def test_neither_is_it_where_time_decides(name: str, cut: Text, seconds: int) -> None:
    text, chunks = cut
    clock = TestScheduler()
    pieces = made_of(TIMED[name](clock), chunks, between=lambda: clock.advance_by(seconds))
    clock.advance_by(10)
    assert "".join(pieces) == text
    assert not splits_a_character(text, pieces)


def test_halves_of_a_character_that_never_meet_are_kept() -> None:
    assert made_of(ops.words(), ["a\ud83d", "b \ude00", "\ud83d"]) == ["a\ud83db", " \ude00\ud83d"]


def test_two_halves_in_two_chunks_become_the_character() -> None:
    assert made_of(ops.lines(), ["a\ud83d", "\ude00\n", "b"]) == ["a😀\n", "b"]
