"""``tool_calls`` puts tool calls together, whole and validated."""

import json
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from pydantic import BaseModel, ValidationError, field_validator
from reactivex import Subject

from rxflow import operators as ops
from rxflow.testing import Marbles, check_operator
from rxflow.tools import tool
from rxflow.types import CompletedToolCall
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFailed, LLMFinished, MethodFailed, MethodFinished, ReasoningChunk, Retracted
from tests.operators.pieces import cut, delta, said
from tests.scripted import Scripted, calls, thinking
from tests.signals import Signals, outcome, signals_of
from tests.team import solo


@tool
def look(where: str, times: int = 1) -> str:
    """Look somewhere."""
    return where * times


class Query(BaseModel):
    city: str


CALL = Origin(span_id="r/1")
VALUES = {
    "a": delta('{"where"', span_id="r/1"),
    "b": delta(': "north"}', span_id="r/1"),
    "c": delta('{"where": "south"}', index=1, span_id="r/1"),
    "t": said("text", span_id="r/1"),
    "h": ReasoningChunk(origin=CALL, content="Hm."),
    "F": LLMFinished(origin=CALL, text=""),
    "X": LLMFailed(origin=CALL, error=OSError("gone")),
    "s": "no chunk",
}


def made(arguments: dict[str, Any], number: int = 0) -> CompletedToolCall:
    """A call as it should come out."""
    written = '{"where": "' + arguments["where"] + '"}'
    return CompletedToolCall(
        origin=CALL, tool_id=f"call_{number}", tool_name="look", written=written, arguments=arguments
    )


MADE = {"N": made({"where": "north"}), "S": made({"where": "south"}, 1)}


def read(*items: Any, tools: tuple[Any, ...] = (), **models: Any) -> list[CompletedToolCall]:
    return signals_of(rx.of(*items).pipe(ops.tool_calls(*tools, **models))).items


def test_it_keeps_the_rules() -> None:
    check_operator(ops.tool_calls(), items=[VALUES[each] for each in "abtcs"], holds_back=True)


class TestACallIsComplete:
    def test_when_the_next_begins(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c-|", VALUES)
        marbles.expect(source.pipe(ops.tool_calls(look))).to_be("-----N-(S|)", MADE)
        marbles.expect_subscriptions(source).to_be("^------!")

    def test_when_its_llm_call_ends(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("-a-b-F-s|", VALUES).pipe(ops.tool_calls(look))).to_be("-----N--|", MADE)

    @pytest.mark.parametrize("other", ["t", "h"])
    def test_when_the_model_goes_on_with_something_else(self, marbles: Marbles, other: str) -> None:
        source = marbles.cold(f"-a-b-{other}-F|", VALUES)
        marbles.expect(source.pipe(ops.tool_calls(look))).to_be("-----N--|", MADE)

    def test_when_its_agent_speaks_in_another_llm_call(self) -> None:
        heard: list[CompletedToolCall] = []
        labels: dict[str, Any] = {"task_id": "1", "agent_id": "1"}
        source: rx.Subject[Any] = rx.Subject()
        source.pipe(ops.tool_calls()).subscribe(heard.append)
        source.on_next(delta('{"a": 1}', span_id="r/1", **labels))
        source.on_next(said("Done.", span_id="r/2", **labels))
        assert [call.arguments for call in heard] == [{"a": 1}]


class TestItsSource:
    def test_an_error_passes_and_takes_along_what_was_not_complete(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c-#", VALUES, OSError("gone"))
        marbles.expect(source.pipe(ops.tool_calls(look))).to_be("-----N-#", MADE, OSError("gone"))

    def test_what_a_failed_llm_call_said_is_void(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("-a-b-X-|", VALUES).pipe(ops.tool_calls(look))).to_be("-------|")

    def test_what_is_taken_back_is_void(self) -> None:
        taken_back = Retracted(origin=Origin(), attempts=(0,), error=OSError("gone"))
        again = [delta('{"a":', attempt=1), delta("2}", attempt=1)]
        assert [call.arguments for call in read(delta('{"a":'), taken_back, *again)] == [{"a": 2}]

    def test_each_subscription_puts_together_its_own(self, marbles: Marbles) -> None:
        made_of = marbles.cold("-a-b-F|", VALUES).pipe(ops.tool_calls(look))
        marbles.expect(made_of).to_be("-----N|", MADE)
        marbles.expect(made_of, "--^").to_be("-------N|", MADE)


class TestArguments:
    def test_are_validated_by_the_tool(self) -> None:
        (call,) = read(delta('{"where": "north", "times": "2"}'), tools=(look,))
        assert (call.arguments, call.error) == ({"where": "north", "times": 2}, None)

    def test_are_validated_by_a_model_under_the_tools_name(self) -> None:
        fits, misfit = read(delta('{"city": "Rome"}', "get", index=0), delta("{}", "get", index=1), get=Query)
        assert (fits.arguments, fits.error) == ({"city": "Rome"}, None)
        assert isinstance(misfit.error, ValidationError)

    def test_that_do_not_fit_come_with_the_error_and_end_nothing(self) -> None:
        bad, good = read(delta('{"times": 2}'), delta('{"where": "up"}', index=1), tools=(look,))
        assert (bad.arguments, bad.written) == ({}, '{"times": 2}')
        assert isinstance(bad.error, ValidationError)
        assert good.arguments == {"where": "up"}

    @pytest.mark.parametrize("written", ['{"where": ', "[1]", "where?", '{"where": "\ud83d"}'])
    def test_that_are_no_object_come_with_the_error(self, written: str) -> None:
        for tools in ((look,), ()):
            (call,) = read(delta(written), tools=tools)
            assert isinstance(call.error, ValueError)
            assert (call.arguments, call.written) == ({}, written)

    def test_of_a_tool_that_was_not_given_are_read_as_json(self) -> None:
        (call,) = read(delta('{"times": "2"}', "jump"), tools=(look,))
        assert (call.tool_name, call.arguments, call.error) == ("jump", {"times": "2"}, None)

    def test_may_be_none_at_all(self) -> None:
        (call,) = read(delta("", "jump"))
        assert (call.arguments, call.written, call.error) == ({}, "", None)

    def test_of_a_tool_are_known_by_the_name_that_providers_accept(self) -> None:
        @tool("look around")
        def around(where: int) -> str:
            """Look around."""
            return str(where)

        (call,) = read(delta('{"where": "x"}', "look_around"), tools=(around,))
        assert isinstance(call.error, ValidationError)

    def test_whose_validator_breaks_down_end_the_stream(self) -> None:
        class Broken(BaseModel):
            a: int

            @field_validator("a")
            @classmethod
            def _check(cls, value: int) -> int:
                raise ZeroDivisionError("oh")

        source: rx.Subject[Any] = rx.Subject()
        heard = Signals()
        heard.subscribe_to(source.pipe(ops.tool_calls(look=Broken)))
        source.on_next(delta('{"a": 1}'))
        source.on_next(said("text"))
        assert (heard.ends, source.observers) == ([repr(ZeroDivisionError("oh"))], [])


class TestSeveralAtOnce:
    def test_of_different_agents_are_not_mixed(self) -> None:
        one: dict[str, Any] = {"span_id": "r/1", "agent_role": "A"}
        other: dict[str, Any] = {"span_id": "r/2", "agent_role": "B"}
        pieces = [delta('{"a":', **one), delta('{"b":', **other), delta("1}", **one), delta("2}", **other)]
        assert [(call.origin.agent_role, call.arguments) for call in read(*pieces)] == [
            ("A", {"a": 1}),
            ("B", {"b": 2}),
        ]

    def test_may_be_interleaved_by_a_provider(self) -> None:
        pieces = [delta('{"a":'), delta('{"b":', index=1), delta("1}"), delta("2}", index=1)]
        assert [call.arguments for call in read(*pieces)] == [{"a": 1}, {"b": 2}]

    def test_may_share_an_index_as_long_as_they_have_ids(self) -> None:
        pieces = [delta('{"a": 1}', tool_id="x"), delta('{"b":', tool_id="y"), delta("2}", tool_id="y")]
        assert [(call.tool_id, call.arguments) for call in read(*pieces)] == [("x", {"a": 1}), ("y", {"b": 2})]

    @given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1), st.integers(1, 9))
    def test_come_out_the_same_however_they_are_cut(self, arguments: list[dict[str, Any]], size: int) -> None:
        deltas = [
            delta(piece, index=index)
            for index, each in enumerate(map(json.dumps, arguments))
            for piece in cut(each, size)
        ]
        assert [call.arguments for call in read(*deltas)] == arguments


class TestInARun:
    def test_calls_come_before_their_tools_begin(self) -> None:
        model = Scripted([thinking("Hm."), "Let me look.", *calls(("look", {"where": "up"}))], "Done.")
        crew = solo(model, agent={"role": "Scout", "tools": [look]}, name="scouting")
        (call,) = signals_of(crew.observe().pipe(ops.tool_calls(look))).items
        assert (call.origin.task_name, call.origin.agent_role) == ("scouting", "Scout")
        assert (call.tool_name, call.arguments) == ("look", {"where": "up"})

    def test_a_bad_call_does_not_end_a_run_whose_agent_recovers(self) -> None:
        model = Scripted(calls(("look", '{"where": ')), calls(("look", {"where": "up"})), "Done.")
        crew = solo(model, agent={"tools": [look]})
        shown = signals_of(crew.observe().pipe(ops.tool_calls(look)))
        assert [call.error is None for call in shown.items] == [False, True]
        assert shown.completions == 1

    def test_they_are_what_the_llm_call_reports(self) -> None:
        turn = calls(("look", {"where": "up"}), ("look", {"where": "down"}))
        crews = (solo(Scripted(turn, "Done."), agent={"tools": [look]}) for _ in range(2))
        reported = outcome(next(crews).events()).of(LLMFinished)[0].tool_calls
        shown = signals_of(next(crews).events().pipe(ops.tool_calls(look)))
        assert [(call.tool_id, call.tool_name, call.written) for call in shown.items] == [
            (call.id, call.name, call.arguments) for call in reported
        ]


def plain(where: str) -> str:
    return where


@pytest.mark.parametrize(
    ("tools", "models", "error", "message"),
    [
        ((plain,), {}, TypeError, r"^tool_calls\(\) takes tools, and models by the name of their tool"),
        ((Query,), {}, TypeError, r"^tool_calls\(\) takes tools, and models by the name of their tool"),
        ((look, look), {}, ValueError, r"^two tools are called 'look'"),
        ((look,), {"look": Query}, ValueError, r"^'look' is given twice"),
        ((), {"get": Query(city="Rome")}, TypeError, r"^tool_calls\(get=…\) takes a pydantic model, which is a class"),
    ],
)
def test_what_cannot_be_meant_is_refused(tools: Any, models: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.tool_calls(*tools, **models)


def test_a_call_that_its_method_cut_off_is_complete_when_the_method_ends() -> None:
    source: Subject[Any] = Subject()
    heard: list[CompletedToolCall] = []
    source.pipe(ops.tool_calls()).subscribe(heard.append)
    around = Origin(span_id="r/1", namespace=("flow", "write"))
    source.on_next(delta('{"a": 1}', span_id="r/2", namespace=("flow", "write", "crew")))
    source.on_next(delta('{"b": 1}', span_id="r/3", namespace=("flow", "check")))
    source.on_next(MethodFinished(origin=around, result=None))
    assert [call.arguments for call in heard] == [{"a": 1}]
    source.on_next(MethodFailed(origin=Origin(span_id="r/4", namespace=("flow", "check")), error=ValueError()))
    source.on_completed()
    assert [call.arguments for call in heard] == [{"a": 1}]
