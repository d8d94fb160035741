"""``redact``: what matches a pattern is not shown, wherever chunks are cut."""

import re
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st

from rxflow import operators as ops
from rxflow.operators._core.text import load_regex
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking, tool_call
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMCancelled, LLMFailed, LLMFinished
from tests.operators.cuts import cut_texts, made_of
from tests.operators.pieces import delta, said
from tests.signals import outcome, signals_of

PATTERNS = [
    r"\d+",
    r"b\d{4}|\d",
    r"ab(cab)?",
    r"\d{3}(-\d{4})?",
    r"a.*?b",
    r"(?s)a.*?b",
    r"(a|b)\1",
    r"(?>ab|a)c",
    r"a++b",
    r"x?ab|b",
    r"[^a]a",
    r"(?i)AbC",
    r"(?x) a b  # a comment",
    r"\w+@\w+",
    r"^a",
    r"(?m)^a",
    r"\Ab",
    r"a$",
    r"(?m)b$",
    r"a\Z",
    r"\s+$",
    r"\bab\b",
    r"a\b",
    r"@\b\w+",
    r"b\b.b",
    r"(?!1)\d\d\b",
    r"\b\d\d\b(?!\.)",
    r"ab(?!c)",
    r"a(?=b)",
    r"a(?=.*c)",
    r"(?<=a)b+",
    r"(?<!a)b",
    r"(?<=\bab)1",
    r"a(?!$)",
    r"a\B",
    r"(?:a\B)+b",
]
REDACT = r"\b\d{3}-\d{2}-\d{4}\b"


def marked(match: re.Match[str]) -> str:
    return f"<{match[0]}>" if match[0] else ""


class TestTheText:
    def test_a_match_over_several_chunks_is_replaced(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|", {"a": "card 12", "b": "34", "c": " ok"})
        marbles.expect(source.pipe(ops.redact(r"\d{4}"))).to_be(
            "x-y-z(u|)", {"x": "card", "y": " [redacted", "z": "] o", "u": "k"}
        )

    def test_what_cannot_become_a_match_is_shown_at_once(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-|", {"a": "12 ", "b": "sk"})
        marbles.expect(source.pipe(ops.redact(r"sk-\w+"))).to_be("x---(y|)", {"x": "12", "y": " sk"})

    @pytest.mark.parametrize("pattern", PATTERNS)
    @given(cut=cut_texts(st.text("aabbc1.2-@\n x", max_size=16)))
    def test_the_result_is_that_of_sub_however_the_text_arrives(self, pattern: str, cut: tuple[str, list[str]]) -> None:
        text, chunks = cut
        made = made_of(ops.redact(pattern, marked, hold_back=20), chunks)
        assert "".join(made) == re.sub(pattern, marked, text)

    @given(cut=cut_texts(), pattern=st.sampled_from([r"\w+", r"\w{3}", r"e", r"\s+", "[👩🇩]", r"\X\X"]))
    def test_so_it_is_for_any_text(self, cut: tuple[str, list[str]], pattern: str) -> None:
        text, chunks = cut
        made = made_of(ops.redact(pattern, "*"), chunks)
        assert "".join(made) == load_regex().sub(pattern, "*", text)

    def test_text_is_taken_as_it_is_and_a_function_gets_the_match(self) -> None:
        assert made_of(ops.redact(r"(\d)", r"\1"), ["a1 "]) == [r"a\1", " "]
        assert made_of(ops.redact(r"(\d)", lambda match: match[1] * 2), ["a1 "]) == ["a11", " "]

    def test_compiled_patterns_keep_their_flags(self) -> None:
        assert "".join(made_of(ops.redact(re.compile("abc", re.IGNORECASE)), ["xA", "Bc"])) == "x[redacted]"
        assert "".join(made_of(ops.redact(load_regex().compile(r"\p{Lu}+"), "*"), ["xÄ", "Ö1"])) == "x*1"

    def test_each_subscription_redacts_for_itself(self, marbles: Marbles) -> None:
        redacted = marbles.hot("a--b|", {"a": "1", "b": "2 "}).pipe(ops.redact("12", "*"))
        marbles.expect(redacted).to_be("---x(y|)", {"x": "*", "y": " "})
        marbles.expect(redacted, "-^").to_be("---x(y|)", {"x": "2", "y": " "})

    def test_the_error_of_the_source_is_the_context_of_one_of_the_replacement(self) -> None:
        def refuse(match: re.Match[str]) -> str:
            raise ValueError(match[0])

        gone = OSError("gone")
        (error,) = signals_of(rx.concat(rx.of("12"), rx.throw(gone)).pipe(ops.redact(r"\d+", refuse))).errors
        assert (type(error), error.__context__) == (ValueError, gone)

    def test_a_replacement_that_returns_no_string_ends_it_and_says_so(self) -> None:
        def count(match: re.Match[str]) -> Any:
            return len(match[0])

        (error,) = signals_of(rx.of("12 ").pipe(ops.redact(r"\d+", count))).errors
        assert isinstance(error, TypeError)
        assert str(error) == "redact: the function of the match must return a string; it returned 2"

    def test_a_replacement_that_raises_ends_the_stream_and_the_source(self, marbles: Marbles) -> None:
        def refuse(match: re.Match[str]) -> str:
            raise ValueError(match[0])

        source = marbles.cold("a-b-|", {"a": "a 12", "b": "34 "})
        marbles.expect(source.pipe(ops.redact(r"\d+", refuse))).to_be("x-#", {"x": "a"}, ValueError("1234"))
        marbles.expect_subscriptions(source).to_be("^-!")
        at_the_end = marbles.cold("a-b|", {"a": "a 12", "b": "34"})
        marbles.expect(at_the_end.pipe(ops.redact(r"\d+", refuse))).to_be("x--#", {"x": "a"}, ValueError("1234"))
        finished = marbles.cold("a-|", {"a": LLMFinished(origin=Origin(), text="12")})
        marbles.expect(finished.pipe(ops.redact(r"\d+", refuse))).to_be("#", error=ValueError("12"))


class TestTheBound:
    def test_where_more_may_become_a_match_it_is_replaced_and_nothing_more_is_shown(self) -> None:
        chunks = ["key: BEGIN", *["x"] * 50, "END", " and more"]
        assert "".join(made_of(ops.redact("(?s)BEGIN.*?END", hold_back=20), chunks)) == "key: [redacted]"

    def test_a_longer_bound_judges_it(self) -> None:
        chunks = ["key: BEGIN", *["x"] * 50, "END", " and more", "!" * 100]
        made = made_of(ops.redact("(?s)BEGIN.*?END", hold_back=60), chunks)
        assert "".join(made) == "key: [redacted] and more" + "!" * 100

    def test_other_calls_go_on(self) -> None:
        chunks = [said("BEGIN" + "x" * 30, span_id="a"), said("more", span_id="a"), said("fine", span_id="b")]
        made = made_of(ops.redact("BEGIN.*END", hold_back=20), chunks)
        assert "".join(chunk.content for chunk in made if chunk.span_id == "a") == "[redacted]"
        assert "".join(chunk.content for chunk in made if chunk.span_id == "b") == "fine"

    def test_a_function_is_not_asked_about_what_is_no_match(self) -> None:
        assert "".join(made_of(ops.redact("b.*e", marked, hold_back=5), ["a" + "b" * 9])) == "a[redacted]"

    def test_no_more_is_kept_than_is_needed(self) -> None:
        """Ten million characters are no more work a chunk than ten."""
        text = ["some words and 123 "] * 20_000
        made = "".join(made_of(ops.redact(r"(?<=and )\d+", "*"), text))
        assert made == "some words and * " * 20_000

    def test_many_matches_in_one_chunk_take_linear_time(self) -> None:
        assert "".join(made_of(ops.redact(r"\d+", "*"), ["1 a " * 50_000])) == "* a " * 50_000


class TestItems:
    def test_tool_calls_are_redacted_each_by_itself(self) -> None:
        chunks = [delta('{"n": 1', index=0), delta('{"n": 3', index=1), delta("2}", index=0), delta("4}", index=1)]
        made = made_of(ops.redact(r"\d+", "0"), chunks)
        for index in (0, 1):
            calls = [chunk.tool_call for chunk in made if chunk.tool_call.index == index]
            assert "".join(call.arguments for call in calls) == '{"n": 0}'
            assert {call.tool_id for call in calls} == {f"call_{index}"}
        assert all(chunk.content == chunk.tool_call.arguments for chunk in made)

    def test_the_beginning_of_a_tool_call_passes(self) -> None:
        first = delta("")
        assert made_of(ops.redact("x"), [first]) == [first]

    def test_a_match_is_found_behind_a_tool_call_in_its_midst(self) -> None:
        chunks = [said("see 12", span_id="a"), delta("{}", span_id="a"), said("34.", span_id="a")]
        made = made_of(ops.redact(r"\d{4}"), chunks)
        assert "".join(chunk.content for chunk in made if chunk.tool_call is None) == "see [redacted]."

    def test_what_is_complete_comes_before_what_follows_it(self) -> None:
        chunks = [said("Let me see.", span_id="a"), delta("{}", span_id="a")]
        made = made_of(ops.redact(REDACT), chunks)
        assert [chunk.content for chunk in made] == ["Let me se", "e.", "{}"]

    def test_two_who_speak_at_once_as_the_same_agent_are_not_mixed(self) -> None:
        labels = {"task_id": "t", "agent_id": "a"}
        chunks = [said(text, span_id=place, **labels) for text in ("x12", "34.", "y56", "78.") for place in ("a", "b")]
        made = made_of(ops.redact(r"\d{4}", "*"), chunks)
        for place in ("a", "b"):
            assert "".join(chunk.content for chunk in made if chunk.span_id == place) == "x*.y*."

    def test_reasoning_and_what_the_end_of_the_call_repeats(self) -> None:
        llm = ScriptedLLM([thinking("my 12"), thinking("34"), "is 56", "78.", tool_call("look", {"n": 9876})])
        run = outcome(llm.events("Hi").pipe(ops.redact(r"\d{4}", "*")))
        finished = run.one(LLMFinished)
        assert "".join(run.texts) == finished.text == "is *."
        assert finished.reasoning == "my *"
        assert finished.tool_calls[0].arguments == '{"n": *}'
        assert "9876" not in str(run.events[1:])

    def test_so_it_is_where_the_call_fails(self) -> None:
        made = made_of(ops.redact(r"\d+", "*"), [LLMFailed(origin=Origin(), error=ValueError("no"), text="a 12")])
        assert [event.text for event in made] == ["a *"]

    def test_so_it_is_where_the_call_is_cancelled(self) -> None:
        made = made_of(ops.redact(r"\d+", "*"), [LLMCancelled(origin=Origin(), reason="enough", text="a 12")])
        assert [event.text for event in made] == ["a *"]

    @pytest.mark.parametrize("end", [LLMFinished, LLMCancelled])
    def test_what_is_held_comes_when_the_call_ends(self, end: type[LLMFinished] | type[LLMCancelled]) -> None:
        chunks: list[Any] = [
            StreamChunk(content="a 1", span_id="a"),
            end(origin=Origin(span_id="a"), text="a 1"),
            StreamChunk(content="b", span_id="b"),
        ]
        made = made_of(ops.redact(r"\d{2}"), chunks)
        assert [item.content if isinstance(item, StreamChunk) else "end" for item in made] == ["a", " 1", "end", "b"]

    def test_void_text_makes_no_match_with_what_comes_instead(self) -> None:
        failing = rx.concat(rx.of("a 1"), rx.throw(ValueError("no")))
        shown = signals_of(failing.pipe(ops.fallback_to(rx.of("2 b")), ops.redact(r"\d{2}")))
        assert [item for item in shown.items if isinstance(item, str)] == ["a", " 1", "2 ", "b"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pattern": "("}, ValueError, r"'\(' is not a regular expression"),
        ({"pattern": r"\d*"}, ValueError, "matches the empty text"),
        ({"pattern": b"a"}, TypeError, "got b'a'"),
        (
            {"pattern": "a", "replacement": 5},
            TypeError,
            r"redact\(replacement\) takes a string, or a function of the match; got 5",
        ),
        ({"pattern": re.compile(b"a")}, TypeError, "compiled from a string"),
        (
            {"pattern": "a", "hold_back": 0},
            ValueError,
            r"redact\(hold_back\) must be at least 1; got 0",
        ),
        ({"pattern": "a", "hold_back": 2.5}, TypeError, r"redact\(hold_back\) is not an integer: 2\.5"),
    ],
)
def test_arguments_are_checked_at_the_call(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.redact(**given)
