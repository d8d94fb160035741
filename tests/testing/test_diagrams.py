"""Marble diagrams: what they say, what is none, and how timelines are drawn."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxflow.testing._diagrams import (
    Completed,
    Failed,
    Lifetime,
    MarbleError,
    MarbleSyntaxError,
    Ms,
    Next,
    Signal,
    Timeline,
    parse,
    parse_hot,
    parse_script,
    parse_subscription,
)
from rxflow.testing._drawing import difference, draw, draw_lifetimes, draw_together
from rxflow.types.chunks import StreamChunk

END = Completed()


def said(timeline: Timeline) -> list[tuple[Ms, Any]]:
    """Items by their values, other signals as they are."""
    return [(each.time, each.signal.value if isinstance(each.signal, Next) else each.signal) for each in timeline]


@pytest.mark.parametrize(
    ("diagram", "expected"),
    [
        ("", []),
        ("---", []),
        ("|", [(0, END)]),
        ("-a--b|", [(1, "a"), (4, "b"), (5, END)]),
        ("a  - b |", [(0, "a"), (2, "b"), (3, END)]),
        ("-(ab|)", [(1, "a"), (1, "b"), (1, END)]),
        ("(ab)c|", [(0, "a"), (0, "b"), (4, "c"), (5, END)]),
        ("(a b)c", [(0, "a"), (0, "b"), (4, "c")]),
        ("a 9ms b", [(0, "a"), (10, "b")]),
        ("1.5s a 2m |", [(1500, "a"), (121_501, END)]),
        ("1h a", [(3_600_000, "a")]),
        ("0.5ms a", [(0.5, "a")]),
        ("0.1ms 0.2ms a", [(0.3, "a")]),
        ("a9ms b", [(0, "a"), (1, "9"), (2, "m"), (3, "s"), (4, "b")]),
        ("9m s", [(540_000, "s")]),
    ],
)
def test_each_character_is_a_millisecond(diagram: str, expected: list[tuple[Ms, object]]) -> None:
    assert said(parse(diagram)) == expected


def test_items_stand_for_values_and_else_for_themselves() -> None:
    assert said(parse("abc", {"a": 1, "b": None})) == [(0, 1), (1, None), (2, "c")]


def test_an_error_is_the_one_given_or_else_ours() -> None:
    assert parse("-#") == Timeline.of([(1, Failed(MarbleError("#")))])
    assert parse("-#", error=ValueError("x")) == Timeline.of([(1, Failed(ValueError("x")))])
    assert parse("#") != parse("#", error=ValueError("#"))


def test_a_hot_source_counts_from_its_zero() -> None:
    assert said(parse_hot("-a-^-b-|")) == [(-2, "a"), (2, "b"), (4, END)]
    assert said(parse_hot("-a|")) == [(1, "a"), (2, END)]


def test_a_subscription_begins_and_ends() -> None:
    assert parse_subscription("^") == Lifetime(0)
    assert parse_subscription("--^--!") == Lifetime(2, 5)
    assert parse_subscription("-(^!)") == Lifetime(1, 1)
    assert parse_subscription("^ 59s !") == Lifetime(0, 59_001)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("he-ll-o|", [(0, "he"), (3, "ll"), (6, "o"), (7, END)]),
        ("Hi! 2s you^|", [(0, "Hi!"), (2003, "you^"), (2007, END)]),
        ("he ll", [(0, "he"), (2, "ll")]),
        ("(he llo)-x", [(0, "he"), (0, "llo"), (8, "x")]),
        ("5s", []),
        ("x5s", [(0, "x5s")]),
    ],
)
def test_a_run_of_a_script_is_one_item(script: str, expected: list[tuple[Ms, object]]) -> None:
    assert said(parse_script(script)) == expected


def test_a_run_can_be_a_name() -> None:
    assert said(parse_script("call--#", {"call": 5})) == [(0, 5), (6, Failed(MarbleError("#")))]


@pytest.mark.parametrize(
    ("read", "diagram", "column", "problem"),
    [
        (parse, "a-(b", 3, "never closed"),
        (parse, "a-(b-c)", 5, "no time passes in a group"),
        (parse, "(a 9ms b)", 4, "no time passes in a group"),
        (parse, "(a(b))", 3, "groups cannot be nested"),
        (parse, "a)", 2, "no group is open"),
        (parse, "()", 2, "at least one mark"),
        (parse, "a|-", 3, "nothing may follow after '|'"),
        (parse, "#a", 2, "nothing may follow after '#'"),
        (parse, "(|a)", 3, "nothing may follow after '|'"),
        (parse, "(a|)b", 5, "nothing may follow after '|'"),
        (parse, "(a|)|", 5, "nothing may follow after '|'"),
        (parse, "a.b", 2, "'.' has no meaning"),
        (parse, "a\tb", 2, "has no meaning"),
        (parse, "a^", 2, "'^' is only allowed in"),
        (parse, "a!", 2, "'!' is only allowed in"),
        (parse_hot, "^a^", 3, "one '^' at most"),
        (parse_hot, "^a!", 3, "'!' is only allowed in"),
        (parse_script, "he\nllo", 3, "is not allowed in a script"),
        (parse_script, "(he", 1, "never closed"),
        (parse_subscription, "---", 4, "has one '^'"),
        (parse_subscription, "^-^", 3, "has only one '^'"),
        (parse_subscription, "-!", 2, "which must begin with"),
        (parse_subscription, "^a!", 2, "not allowed in a subscription diagram"),
        (parse_subscription, "^-!-", 4, "nothing may follow after '!'"),
    ],
)
def test_what_is_no_diagram_is_refused_at_its_place(
    read: Callable[[str], object], diagram: str, column: int, problem: str
) -> None:
    with pytest.raises(MarbleSyntaxError) as caught:
        read(diagram)
    message, shown, caret = str(caught.value).split("\n")
    assert caught.value.column == column
    assert problem in message
    assert repr(diagram) in message
    assert len(caret) == len("    ") + column
    assert shown.strip() == diagram.replace("\t", " ").replace("\n", " ").strip()


@st.composite
def timelines(draw_from: st.DrawFn, letters: str = "abcXYZ019") -> Timeline:
    """What a diagram can say: no two instants are closer than the marks of the first are wide."""
    signals: list[tuple[Ms, Signal]] = []
    now: Ms = 0
    for size in draw_from(st.lists(st.integers(1, 3), max_size=8)):
        now += draw_from(st.integers(0, 4) | st.sampled_from([40, 999, 59_000, 3_600_000, 12_345_678]))
        signals += [(now, Next(draw_from(st.sampled_from(letters)))) for _ in range(size)]
        now += 1 if size == 1 else size + 2
    terminal = draw_from(st.sampled_from([None, END, Failed(MarbleError("#"))]))
    if terminal is not None:
        signals.append((now, terminal))
    return Timeline.of(signals)


@given(timelines())
def test_a_drawn_timeline_reads_as_it_was(timeline: Timeline) -> None:
    assert parse(draw(timeline)) == timeline


@example(parse("5 s 30ms |"), parse("1 ms"))
@given(timelines("15hms"), timelines("15hms"))
def test_items_are_not_taken_for_times(one: Timeline, other: Timeline) -> None:
    assert parse(draw(one)) == one
    assert tuple(map(parse, draw_together([one, other]).rows)) == (one, other)


@given(timelines(), timelines())
def test_each_of_two_drawn_together_reads_as_it_was(one: Timeline, other: Timeline) -> None:
    assert tuple(map(parse, draw_together([one, other]).rows)) == (one, other)


@pytest.mark.parametrize(
    ("items", "drawn"),
    [("5s", "5 s"), ("12ms", "12 ms"), ("7h|", "7h|"), ("a5s", "a5s"), ("5sa", "5sa"), ("(5s)", "(5s)")],
)
def test_items_that_look_like_a_time_are_drawn_with_a_space_between_them(items: str, drawn: str) -> None:
    assert draw(parse(f"- 30ms -{items}")) == f"32ms {drawn}"


@pytest.mark.parametrize("diagram", ["", "-a-(bc)|", "a 59s b", "a-#", "1.5s (a|)"])
def test_a_diagram_is_drawn_as_one_writes_it(diagram: str) -> None:
    assert draw(parse(diagram)) == diagram.rstrip("-")


def test_what_no_diagram_can_say_shows_its_instant() -> None:
    assert draw(Timeline.of([(0, Next("a")), (0, Next("b")), (1, Next("c")), (5, END)])) == "(ab)[1ms]c-|"


def test_an_instant_before_zero_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="begins at 0 ms"):
        draw(Timeline.of([(-1, END)]))


def test_names_are_given_ones_then_own_ones_then_free_ones() -> None:
    timeline = Timeline.of([(0, Next("he")), (1, Next("b")), (2, Next(7)), (3, Next("he")), (4, Next([1]))])
    drawing = draw_together([timeline], {"x": 7})
    assert drawing.rows == ("abxac",)
    assert set(drawing.legend) == {"x = 7", "a = 'he'", "c = [1]"}


def test_long_empty_spans_are_shortened_alike() -> None:
    one, other = parse("a 59s b|"), parse("a 59s --b")
    assert draw_together([one, other]).rows == ("a 59s b|", "a 59s --b")


def test_one_row_passes_the_time_in_which_another_has_marks() -> None:
    assert draw_together([parse("a 30ms b 30ms c|"), parse("a|")]).rows == ("a- 29ms b 30ms c|", "a|")
    assert draw_together([parse("a 30ms b 30ms c|"), parse("a 62ms |")]).rows == (
        "a 30ms b 30ms c|",
        "a 30ms - 30ms -|",
    )


def test_subscriptions_are_drawn_to_one_scale() -> None:
    assert draw_lifetimes([Lifetime(0, 4), Lifetime(2, 2), Lifetime(1)]) == ("^---!", "--(^!)", "-^----")


def test_equal_timelines_have_no_difference() -> None:
    chunks = Timeline.of([(0, Next(StreamChunk(content="he"))), (2, END)])
    assert difference(parse("a-|", {"a": "he"}), chunks) is None


def test_a_difference_is_drawn_and_the_first_place_named() -> None:
    found = difference(parse("a-b|", {"a": "he", "b": "llo"}), parse("a--b|", {"a": "he", "b": "llo"}), {"a": "he"})
    assert found == (
        "  expected  a-b|\n"
        "  actual    a--b|\n"
        "  a = 'he'\n"
        "  b = 'llo'\n"
        "  first difference: expected 'llo' at 2ms; it came at 3ms"
    )


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        ("a|", "a", "expected the completion at 1ms, but nothing more came"),
        ("a", "a-b", "'b' came at 2ms, where nothing more was expected"),
        ("a-b", "a-c", "at 2ms expected 'b', but 'c' came"),
        ("a-b", "a--c", "expected 'b' at 2ms, but 'c' came at 3ms"),
        ("a|", "a#", "at 1ms expected the completion, but the error MarbleError('#') came"),
    ],
)
def test_the_first_difference_is_said_in_words(expected: str, actual: str, words: str) -> None:
    found = difference(parse(expected), parse(actual))
    assert found is not None
    assert found.endswith(f"first difference: {words}")


def test_only_the_neighbourhood_of_a_difference_is_drawn() -> None:
    long = "ab" * 100
    found = difference(parse(long), parse(f"{long[:150]}c{long[151:]}"))
    assert found is not None
    assert "from 130ms on:" in found
    assert max(map(len, found.split("\n"))) < 80
