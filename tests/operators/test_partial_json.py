"""``partial_json`` reads an answer in JSON while it is being written."""

import asyncio
import json
from datetime import date
from itertools import pairwise
from typing import Any, Literal

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from reactivex import Observable

from rxflow import Crew, Flow, operators as ops
from rxflow.flow import start
from rxflow.testing import Marbles, check_operator
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMFailed, LLMFinished, ReasoningChunk, Retracted
from tests.operators.pieces import bare, cut, delta, said
from tests.scripted import Scripted, calls
from tests.signals import Signals, signals_of
from tests.team import a_crew, a_task, an_agent, solo


class Point(BaseModel):
    x: int
    y: int = 0


class Report(BaseModel):
    title: str = ""
    points: list[Point] = Field(default_factory=list[Point])
    text: str = ""


CALL = Origin(span_id="r/1")
VALUES = {
    "a": said('{"title": "On', span_id="r/1"),
    "b": said(' Rx", "text": "We', span_id="r/1"),
    "c": said('ll"}', span_id="r/1"),
    "x": delta("{}", span_id="r/1"),
    "n": said("no", span_id="r/1"),
    "o": said('{"title": "other"}', span_id="r/2"),
    "h": ReasoningChunk(origin=CALL, content='{"title": "thought"}'),
    "F": LLMFinished(origin=CALL, text=""),
    "X": LLMFailed(origin=CALL, error=OSError("gone")),
}
REPORTS = {
    "1": Report(title="On"),
    "2": Report(title="On Rx", text="We"),
    "3": Report(title="On Rx", text="Well"),
    "o": Report(title="other"),
}
DRAFT = '{"title": "On Rx", "points": [{"x": 1, "y": 22}, {"x": 3}], "text": "Well said"}'


def read(*items: Any, model: Any = Report) -> Signals:
    return signals_of(rx.of(*items).pipe(ops.partial_json(model)))


def misfit(model: type[BaseModel], text: str) -> str:
    with pytest.raises(ValidationError) as raised:
        model.model_validate_json(text)
    return str(raised.value)


def test_it_keeps_the_rules() -> None:
    check_operator(ops.partial_json(Report), items=cut(DRAFT, 7))


class TestValues:
    def test_are_ever_more_complete(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c-|", VALUES)
        marbles.expect(source.pipe(ops.partial_json(Report))).to_be("-1-2-3-|", REPORTS)
        marbles.expect_subscriptions(source).to_be("^------!")

    def test_come_only_where_they_are_others_than_before(self) -> None:
        pieces = ['{"title"', ' : "A', '"', "  ,", '"unknown": ', '"ignored', '"', "}", "\n"]
        assert read(*pieces).items == [Report(), Report(title="A")]

    def test_leave_out_what_is_not_whole_enough(self) -> None:
        seen = read(*DRAFT).items
        assert [len(report.points) for report in seen if not report.text][-1] == 2
        assert {(point.x, point.y) for report in seen for point in report.points} == {(1, 0), (1, 22), (3, 0)}
        assert seen[-1] == Report.model_validate_json(DRAFT)

    def test_never_show_a_number_before_its_last_digit(self) -> None:
        class Price(BaseModel):
            amount: float = 0.0

        assert read(*'{"amount": 12.50}', model=Price).items == [Price(), Price(amount=12.5)]

    def test_of_which_something_is_required_come_once_it_has_begun(self) -> None:
        class Note(BaseModel):
            title: str
            text: str

        assert read('{"title": "A"', ', "text": "wh', 'at"}', model=Note).items == [
            Note(title="A", text="wh"),
            Note(title="A", text="what"),
        ]

    def test_are_validated_as_json_also_by_a_strict_model(self) -> None:
        class Entry(BaseModel):
            model_config = ConfigDict(strict=True)
            state: Literal["open", "closed"] = "open"
            day: date | None = None

        assert read(*'{"state": "closed", "day": "2026-01-31"}', model=Entry).items == [
            Entry(),
            Entry(state="closed"),
            Entry(state="closed", day=date(2026, 1, 31)),
        ]

    @pytest.mark.parametrize("written", ["-12", "3.25", "1e12", "-1.5E+3", "2e-04"])
    def test_have_no_number_that_is_unfinished(self, written: str) -> None:
        class Entry(BaseModel):
            a: float | None = None
            b: list[float] = Field(default_factory=list[float])

        whole = Entry(a=float(written), b=[float(written)])
        items = read(*f'{{"a": {written}, "b": [{written}]}}', model=Entry).items
        assert items == [Entry(), Entry(a=whole.a), whole]

    @given(st.integers(1, 30))
    def test_end_with_the_whole_answer_however_it_is_cut(self, size: int) -> None:
        shown = read(*cut(DRAFT, size))
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 1)

    @given(st.text(), st.text(), st.integers(1, 9))
    def test_show_texts_that_only_grow(self, title: str, text: str, size: int) -> None:
        whole = Report(title=title, text=text)
        for written in (whole.model_dump_json(), json.dumps(whole.model_dump())):
            seen = read(*cut(written, size)).items
            assert seen[-1] == whole
            assert all(later.text.startswith(earlier.text) for earlier, later in pairwise(seen))

    def test_of_a_long_answer_come_in_steps_and_the_last_is_whole(self) -> None:
        whole = Report(text="word " * 4000)
        seen = read(*cut(whole.model_dump_json(), 4)).items
        steps = [len(later.text) - len(earlier.text) for earlier, later in pairwise(seen)]
        assert (seen[-1], min(steps) > 0, 100 < max(steps[:-1]) < 200) == (whole, True, True)


class TestJson:
    @pytest.mark.parametrize(
        "around",
        [
            "{}",
            "Here it is: {} I hope it helps, in 10 ways.",
            "Sure {{:\n```json\n{}\n```\nDone.",
            "```\n{}```",
            "\n {}\n",
        ],
    )
    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_is_found_in_what_stands_around_it(self, around: str, size: int) -> None:
        shown = read(*cut(around.replace("{}", DRAFT).replace("{{", "{"), size))
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 1)

    def test_may_have_a_surrogate_pair_cut_in_two(self) -> None:
        shown = read('{"title": "\ud83d', '\ude00"}')
        assert shown.items[-1] == Report(title="😀")

    def test_may_come_in_strings_or_chunks(self) -> None:
        assert read(*map(said, cut(DRAFT, 9))).items == read(*cut(DRAFT, 9)).items

    def test_is_not_looked_for_in_reasoning(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-h-b-c|", VALUES)
        marbles.expect(source.pipe(ops.partial_json(Report))).to_be("-1---2-3|", REPORTS)


class TestAnAnswerThatDoesNotFit:
    def test_ends_the_stream_at_its_end(self) -> None:
        shown = read('{"title": "A', '", "points": "none"}')
        assert shown.items == [Report(title="A")]
        assert [str(error) for error in shown.errors] == [misfit(Report, '{"title": "A", "points": "none"}')]

    @pytest.mark.parametrize("text", ["I cannot say.", '{"title": "A', "{", "[]"])
    def test_is_also_one_without_whole_json(self, text: str) -> None:
        (error,) = read(text).errors
        assert isinstance(error, ValidationError)

    def test_is_forgiven_where_the_same_agent_then_answers_better(self) -> None:
        labels = {"task_id": "1", "agent_id": "1"}
        bad, good = said("nonsense", span_id="r/1", **labels), said('{"title": "A"}', span_id="r/2", **labels)
        shown = read(bad, LLMFinished(origin=CALL, text=""), good)
        assert (shown.items, shown.completions) == ([Report(title="A")], 1)
        assert read(good, bad).completions == 0

    def test_is_not_forgiven_where_the_same_agent_only_calls_a_tool_later(self) -> None:
        labels: dict[str, Any] = {"task_id": "1", "agent_id": "1"}
        shown = read(said("nonsense", span_id="r/1", **labels), delta("{}", span_id="r/2", **labels))
        assert [str(error) for error in shown.errors] == [misfit(Report, "nonsense")]

    def test_is_forgiven_where_the_better_answer_has_no_new_value_at_its_end(self) -> None:
        labels = {"task_id": "1", "agent_id": "1"}
        bad, good = said("nonsense", span_id="r/1", **labels), said('{"title": "A"}', span_id="r/2", **labels)
        shown = read(bad, good, LLMFinished(origin=Origin(span_id="r/2"), text=""))
        assert (shown.items, shown.completions) == ([Report(title="A")], 1)

    def test_is_forgiven_where_it_is_taken_back(self) -> None:
        bad = [said("nonsense", span_id="r/1"), LLMFinished(origin=CALL, text="")]
        taken_back = Retracted(origin=Origin(), attempts=(0,), error=OSError("gone"))
        shown = read(*bad, taken_back, said('{"title": "A"}', span_id="r/2", attempt=1))
        assert (shown.items, shown.completions) == ([Report(title="A")], 1)

    def test_is_not_forgiven_to_another_agent(self) -> None:
        shown = read(said("nonsense", span_id="r/1", task_id="1"), said('{"title": "A"}', span_id="r/2", task_id="2"))
        assert (shown.items, shown.completions) == ([Report(title="A")], 0)

    def test_is_no_answer_where_it_calls_a_tool(self, marbles: Marbles) -> None:
        source = marbles.cold("-n-x-F-o|", VALUES)
        marbles.expect(source.pipe(ops.partial_json(Report))).to_be("-------o|", REPORTS)

    def test_is_no_answer_where_its_call_failed(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-X-o|", VALUES)
        marbles.expect(source.pipe(ops.partial_json(Report))).to_be("-1---o|", REPORTS)


class TestItsSource:
    def test_each_subscription_reads_for_itself(self, marbles: Marbles) -> None:
        growing = marbles.cold("-a-b-c|", VALUES).pipe(ops.partial_json(Report))
        marbles.expect(growing).to_be("-1-2-3|", REPORTS)
        marbles.expect(growing, "--^").to_be("---1-2-3|", REPORTS)

    def test_a_validator_that_breaks_down_ends_the_stream_and_its_source(self) -> None:
        class Broken(BaseModel):
            a: str = ""

            @field_validator("a")
            @classmethod
            def _check(cls, value: str) -> str:
                raise ZeroDivisionError("oh")

        source: rx.Subject[str] = rx.Subject()
        heard = Signals()
        heard.subscribe_to(source.pipe(ops.partial_json(Broken)))
        source.on_next('{"a": "x')
        assert (heard.items, heard.ends, source.observers) == ([], [repr(ZeroDivisionError("oh"))], [])

    def test_several_answers_at_once_are_not_mixed(self) -> None:
        one, other = ([said(piece, span_id=span) for piece in cut(DRAFT, 20)] for span in ("r/1", "r/2"))
        alone = read(*one).items
        both = [item for pair in zip(one, other, strict=True) for item in pair]
        assert read(*both).items == [report for report in alone for _ in range(2)]


class TestInARun:
    def test_the_answer_of_a_task_is_seen_to_grow(self) -> None:
        model = Scripted(["Let me look. ", *calls(("look", {}))], cut(DRAFT, 20))
        shown = signals_of(solo(model).observe().pipe(ops.partial_json(Report)))
        assert shown.items[0].title == "On Rx"
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 1)

    def test_an_answer_that_is_sent_back_does_not_end_it(self) -> None:
        crew = solo(Scripted("I cannot say.", DRAFT), output_pydantic=Report)
        shown = signals_of(crew.observe().pipe(ops.partial_json(Report)))
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 1)

    def test_one_task_among_others_is_chosen_before(self) -> None:
        def two_tasks() -> Observable[StreamChunk]:
            agent = an_agent(Scripted("I have looked.", DRAFT))
            return a_crew(a_task(agent, name="research"), a_task(agent, name="report")).observe()

        shown = signals_of(two_tasks().pipe(ops.only_task("report"), ops.partial_json(Report)))
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 1)
        shown = signals_of(two_tasks().pipe(ops.partial_json(Report)))
        assert (shown.items[-1], shown.completions) == (Report.model_validate_json(DRAFT), 0)


@pytest.mark.parametrize("given", [dict, Report(), "Report", None])
def test_what_is_no_model_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^partial_json\(\) takes a pydantic model, which is a class; got "):
        ops.partial_json(given)


class TestOneCrewTwiceAtOnce:
    """Is two speakers, however alike their labels are: what the one begins does not end what the other says."""

    def test_in_two_methods(self) -> None:
        crew = two_answers()

        class Both(Flow):
            @start()
            def left(self) -> Observable[Any]:
                return crew.observe().pipe(bare)

            @start()
            def right(self) -> Observable[Any]:
                return crew.observe().pipe(bare)

        said = signals_of(Both().observe().pipe(ops.partial_json(Report)))
        assert (said.items[-2:], said.errors) == ([Report(title="one two"), Report(title="one two")], [])

    def test_in_one_method(self) -> None:
        crew = two_answers()

        class Both(Flow):
            @start()
            async def work(self) -> None:
                await asyncio.gather(crew.kickoff_async(), crew.kickoff_async())

        said = signals_of(Both().observe().pipe(ops.partial_json(Report)))
        assert (said.items[-2:], said.errors) == ([Report(title="one two"), Report(title="one two")], [])


def two_answers() -> Crew:
    """A crew that answers word by word, so that two runs of it speak in turns."""
    return solo(Scripted('{"title": "one two"}'))
