"""``from_cassette``: a recorded run, played again."""

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel
from reactivex import operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.crew._guardrails import GuardrailError
from rxflow.operators import from_cassette, record
from rxflow.testing import Marbles, ScriptedLLM, check_source
from rxflow.testing._scripted import thinking, tool_call
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.tools import tool
from rxflow.types import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    CrewFailed,
    CrewFinished,
    CrewOutput,
    CrewStarted,
    FlowFailed,
    FlowFinished,
    FlowStarted,
    Heartbeat,
    LLMFailed,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Origin,
    OutputFormat,
    ReasoningChunk,
    Retracted,
    TaskFailed,
    TaskFinished,
    TaskOutput,
    TaskRejected,
    TaskStarted,
    ToolCall,
    ToolFailed,
    ToolFinished,
    ToolStarted,
    UsageMetrics,
)
from tests.operators.pieces import delta, said
from tests.signals import Signals, outcome, signals_of
from tests.team import solo

HEADER = '{"cassette": "rxflow", "version": 1}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.cassette"


def written(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_text(HEADER + "\n".join(lines) + (end if lines else ""), encoding="utf-8")
    return path


def recorded(path: Path, items: Sequence[Any], error: BaseException | None = None) -> Path:
    source = rx.from_iterable(items)
    if error is not None:
        source = rx.concat(source, rx.throw(error))  # type: ignore[arg-type]
    source.pipe(record(path)).subscribe(on_error=lambda _: None)
    return path


def again(path: Path) -> Signals:
    return signals_of(from_cassette(path, None))


PLACE = Origin(flow_name="Flow", task_index=2, namespace=("Flow", "method"), span_id="r/1", parent_span_id="r/0")
TASK = TaskOutput(description="Do it", raw="done", messages=[{"role": "user", "content": "Do it"}])
EVENTS = [
    FlowStarted(origin=PLACE, inputs={"topic": "tea"}),
    FlowFinished(origin=PLACE, result="text", usage=UsageMetrics(total_tokens=3)),
    MethodStarted(origin=PLACE),
    MethodFinished(origin=PLACE, result=[1, None, "a"]),
    CrewStarted(origin=PLACE, inputs=None),
    CrewFinished(origin=PLACE, result=CrewOutput(raw="done", tasks_output=[TASK])),
    TaskStarted(origin=PLACE, description="Do it"),
    TaskRejected(origin=PLACE, reason="too short"),
    TaskFinished(origin=PLACE, result=TASK),
    AgentStarted(origin=PLACE),
    AgentFinished(origin=PLACE, result="done"),
    ToolStarted(origin=PLACE, tool_id="1", tool_name="look", arguments={"where": "north"}),
    ToolFinished(origin=PLACE, tool_id="1", tool_name="look", result={"seen": 1}),
    LLMStarted(origin=PLACE, model="m", messages=[{"role": "user", "content": "Hello"}]),
    ReasoningChunk(origin=PLACE, content="hm"),
    LLMFinished(
        origin=PLACE,
        text="done",
        tool_calls=(ToolCall(id="1", name="look", arguments="{}"),),
        usage=UsageMetrics(total_tokens=3),
        cost=0.5,
    ),
    Heartbeat(origin=PLACE, silent_for=1.5),
    said("hello", task_id="t", namespace=("a", "b"), seq=4),
    delta("{}", span_id="r/1"),
    "text",
]
FAILURES = [
    FlowFailed(origin=PLACE, error=ValueError("no")),
    MethodFailed(origin=PLACE, error=KeyError("a")),
    CrewFailed(origin=PLACE, error=FileNotFoundError(2, "No such file")),
    TaskFailed(origin=PLACE, error=GuardrailError("no")),
    AgentFailed(origin=PLACE, error=ops.IdleTimeout(3, "a")),
    ToolFailed(origin=PLACE, tool_id="1", tool_name="look", error=TimeoutError()),
    LLMFailed(origin=PLACE, error=ValueError("no"), text="so far"),
    LLMRetrying(origin=PLACE, error=ValueError("no"), delay=1.0),
    Retracted(origin=PLACE, attempts=(0, 1), error=ValueError("no")),
]


@pytest.mark.slow
def test_it_keeps_the_rules(path: Path) -> None:
    recorded(path, ["a", "b", "c"])
    check_source(lambda: from_cassette(path))
    check_source(lambda: from_cassette(path, None))


class TestItems:
    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_events_chunks_and_strings_are_what_they_were(self, path: Path, event: Any) -> None:
        seen = again(recorded(path, [event]))
        assert (seen.items, seen.ends) == ([event], ["completed"])
        assert type(seen.items[0]) is type(event)

    @pytest.mark.parametrize("event", FAILURES, ids=lambda event: type(event).__name__)
    def test_so_are_the_errors_in_them_by_type_and_message(self, path: Path, event: Any) -> None:
        (same,) = again(recorded(path, [event])).items
        assert type(same) is type(event)
        assert (type(same.error), str(same.error)) == (type(event.error), str(event.error))
        assert (same.origin, getattr(same, "attempts", None)) == (event.origin, getattr(event, "attempts", None))

    def test_half_a_character_survives(self, path: Path) -> None:
        assert again(recorded(path, ["\ud83d", "\ude00"])).items == ["\ud83d", "\ude00"]

    def test_a_structured_answer_comes_as_a_dict(self, path: Path) -> None:
        class Trip(BaseModel):
            place: str

        answer = TaskOutput(
            description="Go", raw="{}", pydantic=Trip(place="Lisbon"), output_format=OutputFormat.PYDANTIC
        )
        task, crew = again(
            recorded(
                path,
                [
                    TaskFinished(origin=PLACE, result=answer),
                    CrewFinished(origin=PLACE, result=CrewOutput(pydantic=Trip(place="Rome"), tasks_output=[answer])),
                ],
            )
        ).items
        assert task.result["place"] == crew.result.tasks_output[0]["place"] == "Lisbon"
        assert crew.result.to_dict() == {"place": "Rome"}

    def test_a_run_is_the_same_again(self, path: Path) -> None:
        @tool
        def look(where: str) -> str:
            """Look somewhere."""
            return f"seen {where}"

        llm = ScriptedLLM([thinking("hm"), tool_call("look", {"where": "north"})], "so-be-it|")
        crew = solo(llm, agent={"tools": [look]})
        original = outcome(crew.events().pipe(record(path)))
        assert again(path).items == original.events
        assert [str(chunk) for chunk in signals_of(from_cassette(path, None).pipe(ops.text())).items] == [
            "so",
            "be",
            "it",
        ]


class TestTheEnd:
    @pytest.mark.parametrize("error", [ValueError("no"), KeyError("a"), ops.IdleTimeout(3, "a")])
    def test_an_error_is_of_the_type_that_it_was(self, path: Path, error: Exception) -> None:
        (same,) = again(recorded(path, ["a"], error)).errors
        assert (type(same), str(same)) == (type(error), str(error))

    def test_or_says_of_which_type_it_was(self, path: Path) -> None:
        class Foreign(Exception):
            pass

        (same,) = again(recorded(path, [], Foreign("no"))).errors
        assert isinstance(same, ops.RecordedError)
        assert same.message == "no"
        assert same.type == f"{Foreign.__module__}.{Foreign.__qualname__}"
        assert str(same) == f"{same.type}: no"

    def test_so_it_does_when_it_is_recorded_again(self, path: Path) -> None:
        recorded(path, [], ops.RecordedError("litellm.Timeout", "no"))
        (same,) = again(path).errors
        assert str(same) == "litellm.Timeout: no"

    @pytest.mark.parametrize("name", ["os.system", "rxflow.testing.Marbles", "SystemExit", "print", "no.such"])
    def test_nothing_but_errors_is_made_from_a_file(self, path: Path, name: str) -> None:
        line = json.dumps({"at": 0, "kind": "failed", "error": {"type": name, "message": "m", "args": ["m"]}})
        (error,) = again(written(path, line)).errors
        assert str(error) == f"{name}: m"

    def test_where_the_reader_had_enough_it_says_so(self, path: Path) -> None:
        rx.of("a", "b").pipe(record(path), rxops.take(1)).subscribe()
        seen = again(path)
        assert seen.items == ["a"]
        assert str(seen.errors[0]).startswith(f"{path}, line 3: the recording ends here: the stream was disposed")

    @pytest.mark.parametrize("torn", ["", '{"at": 1, "kind": "st'])
    def test_where_the_program_died_it_says_so_after_what_there_is(self, path: Path, torn: str) -> None:
        seen = again(written(path, '{"at": 0, "kind": "str", "data": "a"}', end="\n" + torn))
        assert seen.items == ["a"]
        assert (
            str(seen.errors[0])
            == f"{path}, line 3: the recording is cut short: its program ended before the stream did"
        )


class TestTime:
    def lines(self, path: Path) -> Path:
        return written(
            path,
            '{"at": 0.002, "kind": "str", "data": "a"}',
            '{"at": 0.002, "kind": "str", "data": "b"}',
            '{"at": 60.0, "kind": "str", "data": "c"}',
            '{"at": 60.004, "kind": "completed"}',
        )

    def test_items_come_when_they_came(self, path: Path, marbles: Marbles) -> None:
        marbles.expect(from_cassette(self.lines(path))).to_be("--(ab) 59994ms c---|")

    def test_or_so_many_times_faster(self, path: Path, marbles: Marbles) -> None:
        marbles.expect(from_cassette(self.lines(path), 2)).to_be("-(ab) 29995ms c-|")

    @pytest.mark.parametrize("speed", [None, math.inf])
    def test_or_all_at_once(self, path: Path, marbles: Marbles, speed: float | None) -> None:
        marbles.expect(from_cassette(self.lines(path), speed)).to_be("(abc|)")

    def test_disposing_stops_it(self, path: Path, marbles: Marbles) -> None:
        marbles.expect(from_cassette(self.lines(path)), "^---!").to_be("--(ab)")

    def test_who_has_enough_gets_no_more(self, path: Path) -> None:
        looked_at: list[str] = []
        signals_of(from_cassette(self.lines(path), None).pipe(rxops.do_action(looked_at.append), rxops.take(2)))
        assert looked_at == ["a", "b"]

    def test_each_subscription_plays_it_from_its_beginning(self, path: Path, marbles: Marbles) -> None:
        source = from_cassette(self.lines(path))
        one, other = marbles.expect(source, "^-----!"), marbles.expect(source, "-^------!")
        one.to_be("--(ab)")
        other.to_be("---(ab)")

    def test_awaited_it_plays_in_the_loops_time_too(self, path: Path, virtual_clock: VirtualClock) -> None:
        async def main() -> list[str]:
            return await from_cassette(self.lines(path)).pipe(rxops.to_list())

        assert virtual_clock.run(main) == ["a", "b", "c"]
        assert virtual_clock.now == pytest.approx(60.004)

    def test_a_given_scheduler_keeps_the_time(self, path: Path) -> None:
        scheduler = TestScheduler()
        seen = Signals()
        seen.subscribe_to(from_cassette(self.lines(path), scheduler=scheduler))
        scheduler.advance_by(59)
        assert seen.items == ["a", "b"]
        scheduler.advance_by(2)
        assert (seen.items, seen.ends) == (["a", "b", "c"], ["completed"])

    def test_without_a_loop_a_timer_thread_does(self, path: Path) -> None:
        assert signals_of(from_cassette(self.lines(path), 1e4)).items == ["a", "b", "c"]

    def test_a_recording_in_virtual_time_replays_to_the_millisecond(self, path: Path, marbles: Marbles) -> None:
        llm = ScriptedLLM("--he--llo|")
        marbles.expect(llm.observe("Hello").pipe(record(path))).to_say("--he--llo|")
        marbles.expect(from_cassette(path).pipe(ops.text())).to_say("--he--llo|")


class TestBrokenFiles:
    def test_one_that_is_missing(self, path: Path) -> None:
        assert [type(error) for error in signals_of(from_cassette(path)).errors] == [FileNotFoundError]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "line 1: not a cassette of this version"),
            ('{"cassette": "rxflow", "version": 2}\n', "line 1: not a cassette of this version, which begins with"),
            ("[1]\n", "line 1: not a JSON object: b'[1]'"),
            ("hello\n", "line 1: not JSON (Expecting value: line 1 column 1 (char 0)): b'hello'"),
            (HEADER + '{"at": 0, "kind": "str", "data": "a"}\nhm\n', "line 3: not JSON (Expecting value"),
            (HEADER + '{"at": 0}\n', "line 2: KeyError: 'kind'"),
            (HEADER + '{"at": 0, "kind": "Nothing", "data": 1}\n', "line 2: CodecError: unknown kind 'Nothing'"),
            (
                HEADER + '{"at": 0, "kind": "StreamChunk", "data": {}}\n',
                "line 2: CodecError: not a StreamChunk: ValidationError: 1 validation error",
            ),
            (
                HEADER + '{"at": 0, "kind": "MethodStarted", "data": {"x": 1}}\n',
                "line 2: CodecError: not a MethodStarted: ValueError: it has no field 'x'",
            ),
            (
                HEADER + '{"at": 0, "kind": "MethodStarted", "data": 5}\n',
                "line 2: CodecError: the data of 'MethodStarted' are not a JSON object: 5",
            ),
            (HEADER + '{"at": "x", "kind": "str", "data": "a"}\n', "line 2: ValueError: could not convert string"),
            (
                HEADER + '{"at": -1, "kind": "str", "data": "a"}\n',
                "line 2: ValueError: times cannot go back: -1.0 follows 0.0",
            ),
            (
                HEADER + '{"at": 2, "kind": "str", "data": "a"}\n{"at": 1, "kind": "completed"}\n',
                "line 3: ValueError: times cannot go back: 1.0 follows 2.0",
            ),
            (HEADER + '{"at": NaN, "kind": "completed"}\n', "line 2: ValueError: the time is not finite: nan"),
            (
                HEADER + '{"at": 0, "kind": "completed"}\n{"at": 0, "kind": "completed"}\n',
                "line 2: ValueError: there are lines after the end, which is 'completed'",
            ),
        ],
    )
    def test_one_that_is_no_cassette_names_the_line_before_any_item(self, path: Path, text: str, said: str) -> None:
        path.write_text(text, encoding="utf-8")
        seen = signals_of(from_cassette(path))
        assert seen.items == []
        (error,) = seen.errors
        assert isinstance(error, ops.CassetteError)
        assert str(error).startswith(f"{path}, {said}")


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_the_speed_is_above_zero(speed: float) -> None:
    with pytest.raises(
        ValueError, match=r"from_cassette\(speed\) must be a number above 0, or None for all at once; got"
    ):
        from_cassette("run.cassette", speed)


@pytest.mark.parametrize("speed", ["2", True, [1]])
def test_the_speed_is_a_number(speed: Any) -> None:
    with pytest.raises(TypeError, match=r"^from_cassette\(speed\) is not a number: "):
        from_cassette("run.cassette", speed)


@pytest.mark.parametrize("path", [None, 5])
def test_the_path_is_one(path: Any) -> None:
    for operator, name in (from_cassette, "from_cassette"), (record, "record"):
        with pytest.raises(TypeError, match=rf"^{name}\(path\) is not a path: {path}$"):
            operator(path)


def test_a_recording_takes_no_longer_to_read_than_to_wait_for(path: Path) -> None:
    """Thousands of lines, in a loop."""
    recorded(path, [said("word", span_id="a")] * 5000)

    async def main() -> int:
        return len(await from_cassette(path, None).pipe(rxops.to_list()))

    assert asyncio.run(main()) == 5000
