"""``lines``: text line by line."""

from rxflow import operators as ops
from rxflow.testing import Marbles
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said


def test_a_line_comes_with_its_end(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c|", {"a": "he", "b": "llo\nwo", "c": "rld"})
    marbles.expect(source.pipe(ops.lines())).to_be("--x--(y|)", {"x": "hello\n", "y": "world"})


def test_each_subscription_has_lines_of_its_own(marbles: Marbles) -> None:
    lines = marbles.hot("a--b|", {"a": "one", "b": "two\n"}).pipe(ops.lines())
    marbles.expect(lines).to_be("---x|", {"x": "onetwo\n"})
    marbles.expect(lines, "-^").to_be("---x|", {"x": "two\n"})


def test_line_ends_are_kept_as_they_are() -> None:
    assert made_of(ops.lines(), ["a\r", "\nb\n", "\nc\rd\r\n"]) == ["a\r\n", "b\n", "\n", "c\rd\r\n"]


def test_what_is_no_text_keeps_its_place() -> None:
    lines = made_of(ops.lines(), [said("a\nb", span_id="a"), delta("{}", span_id="a"), said("c", span_id="a")])
    assert [line.content for line in lines] == ["a\n", "b", "{}", "c"]
