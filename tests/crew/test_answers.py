"""What becomes of an answer: guardrails, output types, files, callbacks, and what a crew gives back."""

import asyncio
import json
import re
import sys
import typing
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    ValidationError,
    computed_field,
    field_validator,
)

from rxflow import operators as ops
from rxflow.crew._guardrails import GuardrailError
from rxflow.llm.source import ReasoningDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished, LLMFinished, Retracted, TaskFailed, TaskFinished, TaskRejected
from rxflow.types.results import CrewOutput, OutputFormat, TaskOutput, UsageMetrics
from tests.scripted import Scripted, calls, thinking
from tests.signals import signals_of
from tests.team import a_crew, a_task, an_agent, played, prompt, solo


class City(BaseModel):
    name: str
    people: int


BERN = '{"name": "Bern", "people": 134000}'


def short(output: TaskOutput) -> tuple[bool, Any]:
    return (len(output.raw) < 6, output.raw if len(output.raw) < 6 else "longer than five letters")


class TestGuardrails:
    def test_an_async_guardrail_may_return_what_it_has_not_awaited(self) -> None:
        async def judge(output: TaskOutput) -> tuple[bool, str]:
            return (False, "too long") if len(output.raw) > 4 else (True, output.raw)

        async def forgetful(output: TaskOutput) -> Any:
            return judge(output)

        assert solo(Scripted("Far too long", "Fine"), guardrail=forgetful).kickoff().raw == "Fine"

    def test_an_answer_that_is_accepted_goes_on(self) -> None:
        model = Scripted("Fine")
        assert solo(model, guardrail=short).kickoff().raw == "Fine"
        assert len(model.requests) == 1

    def test_a_rejected_answer_is_sent_back_with_the_reason(self) -> None:
        model = Scripted("Far too long", "Fine")
        seen = played(solo(model, guardrail=short))
        assert seen.one(TaskFinished).result.raw == "Fine"
        assert seen.one(TaskRejected).reason == "longer than five letters"
        answer, reason = model.conversations[1][-2:]
        assert answer == {"role": "assistant", "content": "Far too long"}
        assert "longer than five letters" in reason["content"]

    def test_the_chunks_of_each_attempt_say_which_it_is(self) -> None:
        seen = played(solo(Scripted("Far too long", "Fine"), guardrail=short))
        assert [(chunk.content, chunk.attempt) for chunk in seen.of(StreamChunk)] == [
            ("Far", 0),
            (" too", 0),
            (" long", 0),
            ("Fine", 1),
        ]

    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_when_the_retries_are_spent_the_error_says_after_how_many_and_why(self, retries: int) -> None:
        model = Scripted("Far too long")
        seen = played(solo(model, guardrail=short, guardrail_max_retries=retries))
        assert isinstance(seen.error, ValueError)
        assert f"failed its guardrail after {retries} retries" in str(seen.error)
        assert "the last reason: longer than five letters" in str(seen.error)
        assert len(model.requests) == retries + 1
        assert seen.one(TaskFailed).error is seen.error

    def test_the_value_of_a_guardrail_takes_the_place_of_the_answer(self) -> None:
        def louder(output: TaskOutput) -> tuple[bool, Any]:
            return (True, output.raw.upper())

        assert solo(Scripted("fine"), guardrail=louder).kickoff().raw == "FINE"

    def test_a_guardrail_may_be_async(self) -> None:
        async def check(output: TaskOutput) -> tuple[bool, Any]:
            await asyncio.sleep(0)
            return short(output)

        assert solo(Scripted("Far too long", "Fine"), guardrail=check).kickoff().raw == "Fine"

    def test_several_guardrails_are_asked_in_turn_each_with_what_the_last_one_gave(self) -> None:
        def mark(sign: str, output: TaskOutput) -> tuple[bool, Any]:
            return (True, output.raw + sign)

        crew = solo(
            Scripted("Fine"),
            guardrail=partial(mark, "1"),
            guardrails=[partial(mark, "2"), partial(mark, "3")],
            agent={"guardrail": partial(mark, "4")},
        )
        assert crew.kickoff().raw == "Fine1234"

    def test_a_guardrail_in_words_is_judged_by_the_model(self) -> None:
        model = Scripted(
            "Bad answer",
            ['{"accepted": false, "reason": "it is bad"}'],
            "Good answer",
            ['{"accepted": true}'],
        )
        seen = played(solo(model, guardrail="The answer must be good"))
        assert seen.one(TaskFinished).result.raw == "Good answer"
        assert seen.one(TaskRejected).reason == "it is bad"
        assert "The answer must be good" in prompt(model, 1)
        assert "Bad answer" in prompt(model, 1)

    def test_the_words_of_the_judge_are_no_chunks_but_its_call_counts(self) -> None:
        model = Scripted("Good answer", ['{"accepted": true}'])
        seen = played(solo(model, guardrail="The answer must be good"))
        assert seen.text == "Good answer"
        assert len(seen.of(LLMFinished)) == 2
        assert seen.one(CrewFinished).result.token_usage.successful_requests == 2

    def test_a_judge_that_gives_no_verdict_does_not_let_the_answer_pass(self) -> None:
        model = Scripted("Answer", "Hm.")
        with pytest.raises(ValueError, match="returned no verdict on 'The answer must be good'"):
            solo(model, guardrail="The answer must be good", guardrail_max_retries=0).kickoff()

    @pytest.mark.parametrize("value", [{"name": "Bern", "people": 1}, City(name="Bern", people=1)])
    def test_a_structure_that_a_guardrail_gives_takes_the_place_of_the_answer(self, value: Any) -> None:
        def mend(output: TaskOutput) -> tuple[bool, Any]:
            return (True, value)

        result = solo(Scripted([BERN]), guardrail=mend, output_pydantic=City).kickoff()
        assert result.pydantic == City(name="Bern", people=1)
        assert json.loads(result.raw) == {"name": "Bern", "people": 1}

    def test_a_guardrail_that_gives_back_the_answer_leaves_it_as_it_is(self) -> None:
        def fine(output: TaskOutput) -> tuple[bool, Any]:
            return (True, output)

        assert solo(Scripted("Fine"), guardrail=fine).kickoff().raw == "Fine"

    def test_none_in_place_of_an_answer_is_refused(self) -> None:
        def forgetful(output: TaskOutput) -> tuple[bool, Any]:
            return (True, None)

        with pytest.raises(TypeError, match="the guardrail forgetful returned None as result; to keep the answer"):
            solo(Scripted("Fine"), guardrail=forgetful).kickoff()

    @pytest.mark.parametrize("value", [5, ["Fine"], True])
    def test_a_value_that_cannot_take_the_place_of_an_answer_is_refused(self, value: Any) -> None:
        def odd(output: TaskOutput) -> tuple[bool, Any]:
            return (True, value)

        with pytest.raises(
            TypeError, match=r"the guardrail odd accepted the answer with .*; the value must be the new text"
        ):
            solo(Scripted("Fine"), guardrail=odd).kickoff()

    @pytest.mark.parametrize("verdict", [None, True, "no", (1, "x"), (True,), (True, 1, 2), [True, "x"]])
    def test_a_guardrail_that_gives_something_else_is_told_what_to_give(self, verdict: object) -> None:
        def odd(output: TaskOutput) -> Any:
            return verdict

        with pytest.raises(TypeError, match=r"the guardrail odd must return \(accepted: bool, value or reason\)"):
            solo(Scripted("Answer"), guardrail=odd).kickoff()

    def test_what_a_guardrail_raises_ends_the_task(self) -> None:
        def broken(output: TaskOutput) -> Any:
            raise LookupError("lost")

        with pytest.raises(LookupError, match="lost"):
            solo(Scripted("Answer"), guardrail=broken).kickoff()


class TestTheSignatureOfAGuardrail:
    """Is checked when the task or the agent is built."""

    @pytest.mark.parametrize(
        "source",
        [
            "def good(output): ...",
            "def good(output, strict=True): ...",
            "def good(*args): ...",
            "async def good(output): ...",
            "def good(output) -> tuple[bool, str]: ...",
            "def good(output) -> Tuple[bool, Any]: ...",
            "def good(output) -> tuple: ...",
            "def good(output) -> Tuple: ...",
            "def good(output) -> Awaitable: ...",
            "def good(output) -> Any: ...",
            "def good(output) -> 'tuple[bool, TaskOutput | str]': ...",
            "def good(output) -> 'Missing': ...",
            "def good(output) -> 'partial.Missing': ...",
            "def good(output) -> 'not a type': ...",
            "def good(output) -> tuple[Literal[True], str] | tuple[Literal[False], str]: ...",
            "def good(output) -> Awaitable[tuple[bool, Any]]: ...",
            "async def good(output) -> tuple[bool, Any]: ...",
            "class Good:\n    def __call__(self, output) -> tuple[bool, Any]: ...\ngood = Good()",
            "class Good:\n    def method(self, output) -> tuple[bool, Any]: ...\ngood = Good().method",
            "good = partial(lambda sign, output: ..., '1')",
        ],
    )
    def test_one_argument_and_a_pair_are_right(self, source: str) -> None:
        good = named("good", source)
        a_task(an_agent(Scripted("Fine"), guardrail=good), guardrail=good, guardrails=[good])

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("def bad(): ...", "the guardrail bad must take one argument, the TaskOutput; it is bad()"),
            ("def bad(output, context): ...", "it is bad(output, context): missing a required argument"),
            ("def bad(*, output): ...", "must take one argument"),
            ("def bad(output) -> bool: ...", "its annotation says bool"),
            ("def bad(output) -> 'str | None': ...", "its annotation says str | None"),
            ("def bad(output) -> None: ...", "its annotation says NoneType"),
            ("def bad(output) -> tuple[()]: ...", "must return (accepted: bool, value or reason)"),
            ("def bad(output) -> tuple[str, Any]: ...", "must return (accepted: bool, value or reason)"),
            ("def bad(output) -> tuple[bool, Any, str]: ...", "its annotation says tuple[bool, typing.Any, str]"),
            ("async def bad(output) -> bool: ...", "its annotation says bool"),
        ],
    )
    @pytest.mark.parametrize("where", ["guardrail", "guardrails", "agent"])
    def test_anything_else_is_refused(self, source: str, said: str, where: str) -> None:
        bad = named("bad", source)
        ways: dict[str, Callable[[], object]] = {
            "guardrail": lambda: a_task(None, guardrail=bad),
            "guardrails": lambda: a_task(None, guardrails=[bad]),
            "agent": lambda: an_agent(Scripted("Fine"), guardrail=bad),
        }
        build = ways[where]
        with pytest.raises(ValueError, match=re.escape(said)):
            build()


def named(name: str, source: str) -> Any:
    """An object that a type checker need not see."""
    names: dict[str, Any] = dict(vars(typing)) | {"partial": partial, "TaskOutput": TaskOutput}
    exec(source, names)
    return names[name]


class TestAnAnswerThatIsSentBack:
    """Is taken back from the screen, whoever did not accept it."""

    @pytest.mark.parametrize(
        "given",
        [{"guardrail": short}, {"output_pydantic": City}],
        ids=["guardrail", "output type"],
    )
    def test_its_chunks_are_retracted(self, given: Any) -> None:
        fine = BERN if "output_pydantic" in given else "Fine"
        seen = played(solo(Scripted(["Far ", "too long"], [fine]), **given))
        retracted = seen.one(Retracted)
        assert [chunk.content for chunk in seen.of(StreamChunk) if retracted.covers(chunk)] == ["Far ", "too long"]
        assert str(retracted.error) == seen.one(TaskRejected).reason

    def test_a_tool_call_and_what_it_ran_stay_and_the_words_around_it_go(self) -> None:
        inner = Scripted("inner text").llm

        @tool
        def think() -> str:
            """Think."""
            return str(inner.call("Think"))

        model = Scripted(["Let me think. ", *calls(("think", {}))], "Far too long", "Fine")
        seen = played(solo(model, agent={"tools": [think]}, guardrail=short))
        retracted = seen.one(Retracted)
        texts = [chunk for chunk in seen.of(StreamChunk) if chunk.content]
        assert [chunk.content for chunk in texts if not retracted.covers(chunk)] == ["inner", " text", "Fine"]

    def test_a_reader_of_the_text_sees_the_last_answer_alone(self) -> None:
        shown = signals_of(solo(Scripted("Far too long", "Fine"), guardrail=short).observe().pipe(ops.accumulate()))
        assert shown.items[-1].content == "Fine"

    def test_the_last_one_stays_with_its_error(self) -> None:
        seen = played(solo(Scripted("Far too long"), guardrail=short, guardrail_max_retries=1))
        assert [each.attempts for each in seen.of(Retracted)] == [(0,)]
        assert isinstance(seen.error, GuardrailError)


class TestWhatTheTaskKeeps:
    def test_its_output_and_how_often_it_was_sent_back(self) -> None:
        crew = solo(Scripted("Far too long", "Still too long", "Fine", "Short"), guardrail=short)
        (task,) = crew.tasks
        assert (task.output, task.retry_count) == (None, 0)
        result = crew.kickoff()
        assert task.output == result.tasks_output[0]
        assert (str(task.output), task.retry_count) == ("Fine", 2)
        crew.kickoff()
        assert (str(task.output), task.retry_count) == ("Short", 0), "of the last run"

    def test_a_callback_finds_it_there(self) -> None:
        seen: list[str] = []
        task = a_task(an_agent(Scripted("Fine")))
        task.callback = lambda _: seen.append(str(task.output))
        a_crew(task).kickoff()
        assert seen == ["Fine"]

    def test_an_agent_by_itself_keeps_it_too(self) -> None:
        task = a_task(agent := an_agent(Scripted("Fine")))
        signals_of(agent.observe(task))
        assert task.output is not None
        assert task.output.raw == "Fine"

    def test_retries_are_kept_where_the_task_fails(self) -> None:
        crew = solo(Scripted("Far too long"), guardrail=short, guardrail_max_retries=2)
        with pytest.raises(GuardrailError):
            crew.kickoff()
        assert (crew.tasks[0].output, crew.tasks[0].retry_count) == (None, 2)


class TestAnEmptyAnswer:
    """Is asked for again, and then an error, as CrewAI 1.15.1 does it."""

    def test_the_model_is_asked_again(self) -> None:
        model = Scripted([], "Fine")
        assert solo(model).kickoff().raw == "Fine"
        assert len(model.requests) == 2

    @pytest.mark.parametrize(("given", "times"), [({}, 3), ({"max_retry_limit": 0}, 1), ({"max_retry_limit": 4}, 5)])
    def test_as_often_as_the_agent_says(self, given: dict[str, Any], times: int) -> None:
        model = Scripted([thinking("Hm.")])
        with pytest.raises(ValueError, match=rf"None or empty: scripted gave agent 'Writer' neither .*, {times} times"):
            solo(model, agent=given).kickoff()
        assert len(model.requests) == times

    def test_white_space_is_an_answer(self) -> None:
        assert solo(Scripted(["  \n"])).kickoff().raw == "  \n"

    def test_a_crew_answers_with_the_last_task_that_said_something(self) -> None:
        def silence(output: TaskOutput) -> tuple[bool, Any]:
            return (True, "")

        one, two = an_agent(Scripted("One")), an_agent(Scripted("Two"))
        assert a_crew(a_task(one), a_task(two, guardrail=silence)).kickoff().raw == "One"
        with pytest.raises(ValueError, match="No valid task outputs"):
            a_crew(a_task(one, guardrail=silence)).kickoff()


class TestOutputTypes:
    def test_output_pydantic_gives_the_model(self) -> None:
        model = Scripted([f"Here: {BERN}"])
        result = solo(model, output_pydantic=City).kickoff()
        assert result.pydantic == City(name="Bern", people=134000)
        assert result.json_dict is None
        assert result.raw == f"Here: {BERN}"
        assert result.tasks_output[0].output_format is OutputFormat.PYDANTIC
        assert "JSON schema" in prompt(model)
        assert model.requests[0].hints["response_format"]["json_schema"]["name"] == "City"

    def test_output_json_gives_a_dict(self) -> None:
        result = solo(Scripted([BERN]), output_json=City).kickoff()
        assert result.json_dict == {"name": "Bern", "people": 134000}
        assert result.pydantic is None
        assert json.loads(result.json) == result.json_dict
        assert result.tasks_output[0].json == result.json

    def test_an_answer_that_does_not_fit_is_sent_back_with_what_is_wrong(self) -> None:
        model = Scripted(['{"name": "Bern"}'], [BERN])
        seen = played(solo(model, output_pydantic=City))
        assert seen.one(TaskFinished).result.pydantic == City(name="Bern", people=134000)
        assert seen.one(TaskRejected).reason == "it does not fit City: people: Field required"

    @pytest.mark.parametrize("kind", ["output_json", "output_pydantic"])
    def test_an_answer_that_never_fits_is_an_error_that_names_the_model_and_no_guardrail(self, kind: str) -> None:
        with pytest.raises(
            GuardrailError,
            match=r"^task 'Write' gave no answer that fits City after 1 retries; the last reason: it does not fit City",
        ):
            solo(Scripted("No"), **{kind: City}, guardrail_max_retries=1).kickoff()  # type: ignore[arg-type]

    def test_a_guardrail_that_rejects_what_fits_is_named_as_such(self) -> None:
        with pytest.raises(GuardrailError, match=r"^task 'Write' failed its guardrail after 0 retries"):
            solo(Scripted([BERN]), output_json=City, guardrail=short, guardrail_max_retries=0).kickoff()

    def test_an_object_that_a_guardrail_puts_in_its_place_is_kept_if_no_type_was_asked_for(self) -> None:
        bern = City(name="Bern", people=134000)

        def replace(output: TaskOutput) -> tuple[bool, Any]:
            return (True, bern)

        result = solo(Scripted("Some town"), guardrail=replace).kickoff()
        assert (result.pydantic, City.model_validate_json(result.raw)) == (bern, bern)
        assert an_agent(Scripted("Some town"), guardrail=replace).kickoff("Where?").pydantic is bern
        as_json = solo(Scripted([BERN]), output_json=City, guardrail=replace).kickoff()
        assert (as_json.pydantic, as_json.json_dict) == (None, bern.model_dump())

    def test_a_guardrail_whose_value_does_not_fit_is_named_and_not_the_answer(self) -> None:
        def spoil(output: TaskOutput) -> tuple[bool, Any]:
            return (True, "Bern")

        with pytest.raises(
            GuardrailError,
            match=r"failed its guardrail .*: the guardrail spoil replaced the answer, and it does not",
        ):
            solo(Scripted([BERN]), output_json=City, guardrail=spoil, guardrail_max_retries=0).kickoff()

    @pytest.mark.parametrize(
        ("given", "written"),
        [
            ({}, BERN),
            ({"output_json": City}, '{"name": "Bern", "people": 134000}'),
            ({"output_pydantic": City}, '{\n  "name": "Bern",\n  "people": 134000\n}'),
        ],
        ids=["raw", "json", "pydantic"],
    )
    def test_the_file_holds_the_answer_in_its_form(self, tmp_path: Path, given: Any, written: str) -> None:
        path = tmp_path / "city.json"
        solo(Scripted([BERN]), output_file=str(path), **given).kickoff()
        assert path.read_text() == written


class TestCallbacks:
    def test_those_of_the_task_and_of_the_crew_get_each_output(self) -> None:
        heard: list[tuple[str, str]] = []

        def hear(who: str, output: TaskOutput) -> None:
            heard.append((who, output.raw))

        crew = a_crew(
            a_task(an_agent(Scripted("One")), callback=partial(hear, "task")),
            a_task(an_agent(Scripted("Two"))),
            task_callback=partial(hear, "crew"),
        )
        crew.kickoff()
        assert heard == [("task", "One"), ("crew", "One"), ("crew", "Two")]

    def test_they_may_be_async(self) -> None:
        heard: list[str] = []

        async def hear(output: TaskOutput) -> None:
            await asyncio.sleep(0)
            heard.append(output.raw)

        solo(Scripted("One"), callback=hear, crew={"task_callback": hear}).kickoff()
        assert heard == ["One", "One"]

    def test_one_that_raises_fails_the_task(self) -> None:
        def broken(output: TaskOutput) -> None:
            raise LookupError("lost")

        with pytest.raises(LookupError, match="lost"):
            solo(Scripted("One"), callback=broken).kickoff()

    @pytest.mark.parametrize("where", ["callback", "guardrail"])
    def test_stop_async_iteration_out_of_one_does_not_end_the_readers_loop_silently(self, where: str) -> None:
        async def broken(output: TaskOutput) -> Any:
            raise StopAsyncIteration

        async def main() -> None:
            given: dict[str, Any] = {where: broken}
            async for _ in solo(Scripted("One"), crew={"stream": True}, **given).kickoff():
                pass

        with pytest.raises(RuntimeError, match="Write raised StopAsyncIteration"):
            asyncio.run(main())

    def test_one_that_exits_fails_the_task(self) -> None:
        def leave(output: TaskOutput) -> None:
            raise SystemExit(3)

        seen = played(solo(Scripted("One"), callback=leave))
        assert isinstance(seen.error, SystemExit)
        assert seen.one(TaskFailed).error is seen.error

    def test_those_around_the_kickoff_may_change_what_goes_in_and_comes_out(self) -> None:
        model = Scripted("Done")
        heard: list[CrewOutput] = []

        async def louder(inputs: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"topic": inputs["topic"].upper()}

        def exclaim(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"topic": inputs["topic"] + "!"}

        def sign(output: CrewOutput) -> CrewOutput:
            return output.model_copy(update={"raw": f"{output.raw} -- the crew"})

        crew = solo(
            model,
            description="About {topic}",
            crew={
                "before_kickoff_callbacks": [louder, exclaim],
                "after_kickoff_callbacks": [sign, heard.append],
            },
        )
        assert crew.kickoff({"topic": "terns"}).raw == "Done -- the crew"
        assert [output.raw for output in heard] == ["Done -- the crew"]
        assert prompt(model).startswith("About TERNS!")

    def test_one_after_the_kickoff_that_gives_something_else_is_named(self) -> None:
        def shorten(output: CrewOutput) -> str:
            return output.raw[:2]

        with pytest.raises(TypeError, match=r"the after_kickoff callback shorten must return a CrewOutput.*'Do'"):
            solo(Scripted("Done"), crew={"after_kickoff_callbacks": [shorten]}).kickoff()


class TestWhatACrewGivesBack:
    def test_json_is_that_of_the_task_whose_answer_it_is(self) -> None:
        def empty(answer: TaskOutput) -> tuple[bool, str]:
            return True, ""

        silent = a_task(an_agent(Scripted("Hm"), "Writer"), "Write", guardrail=empty)
        result = a_crew(a_task(an_agent(Scripted([BERN]), "Counter"), "Count", output_json=City), silent).kickoff()
        assert [each.raw for each in result.tasks_output] == [BERN, ""]
        assert json.loads(result.json) == result.json_dict == {"name": "Bern", "people": 134000}

    def test_the_answer_of_its_last_task_with_all_beside_it(self) -> None:
        one, two = Scripted("First answer"), Scripted([BERN])
        result = a_crew(
            a_task(
                an_agent(one, "Writer"),
                "Write a long text about all the terns that there are in the north",
                name="writing",
            ),
            a_task(an_agent(two, "Counter"), "Count", output_json=City),
        ).kickoff()
        assert result.raw == BERN
        assert result.json_dict == {"name": "Bern", "people": 134000}
        first, second = result.tasks_output
        assert (first.raw, first.agent, first.name, first.expected_output) == (
            "First answer",
            "Writer",
            "writing",
            "A text",
        )
        assert first.summary == "Write a long text about all the terns that there..."
        assert (second.agent, second.name, second.output_format) == ("Counter", None, OutputFormat.JSON)
        assert first.messages[-1] == {"role": "assistant", "content": "First answer"}
        assert first.messages[0]["role"] == "system"

    def test_a_crew_without_tasks_gives_an_empty_answer(self) -> None:
        result = a_crew().kickoff()
        assert (result.raw, result.tasks_output) == ("", [])

    def test_the_usage_of_all_calls_is_added_up(self) -> None:
        crew = a_crew(*(a_task(an_agent(Scripted("Done"))) for _ in range(3)))
        assert crew.usage_metrics == UsageMetrics()
        wanted = UsageMetrics(prompt_tokens=6, completion_tokens=3, total_tokens=9, successful_requests=3)
        assert crew.kickoff().token_usage == wanted
        assert crew.usage_metrics == wanted
        assert crew.kickoff().token_usage == wanted, "of this run alone"

    def test_reasoning_is_no_part_of_the_answer(self) -> None:
        assert solo(Scripted([ReasoningDelta("Hm. "), "42"])).kickoff().raw == "42"


class Tag(BaseModel):
    words: list[str]


class Trip(BaseModel):
    model_config = ConfigDict(strict=True)
    start: date
    tag: SerializeAsAny[BaseModel]
    from_: str = Field(default="Bern", alias="from")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def year(self) -> int:
        return self.start.year

    @field_validator("tag", mode="before")
    @classmethod
    def _read_tag(cls, given: Any) -> Any:
        return Tag.model_validate(given) if isinstance(given, dict) else given


class Cities(RootModel[list[City]]):
    pass


class Closed(City):
    model_config = ConfigDict(extra="forbid")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> str:
        return "small"


class Country(BaseModel):
    model_config = ConfigDict(extra="forbid")
    capital: Closed
    others: dict[str, list[Closed]] = {}
    best: Tag | Closed | None = Field(default=None, alias="Best")
    kept: dict[str, str] = {}

    @computed_field(alias="Count")  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        return len(self.others)


STRUCTURES = [
    City(name="Bern", people=1),
    Closed(name="Bern", people=1),
    Cities([City(name="Bern", people=1)]),
    Country(
        capital=Closed(name="Bern", people=1),
        others={"near": [Closed(name="Thun", people=2)]},
        Best=Closed(name="Biel", people=3),
        kept={"size": "a key and not a computed field"},
    ),
    Trip(start=date(2026, 1, 31), tag=Tag(words=["a"])),
]


def results(structure: BaseModel) -> list[TaskOutput | CrewOutput]:
    task = TaskOutput(description="d", raw="raw", pydantic=structure)
    return [task, CrewOutput(raw="raw", pydantic=structure, tasks_output=[task])]


class TestResultsThatTravel:
    """A job table or a cache keeps them as JSON."""

    @pytest.mark.parametrize("structure", STRUCTURES, ids=lambda each: type(each).__name__)
    @pytest.mark.parametrize("way", ["JSON", "dict", "JSON dict"])
    def test_they_keep_their_object(self, structure: BaseModel, way: str) -> None:
        for result in results(structure):
            kind = type(result)
            if way == "JSON":
                again = kind.model_validate_json(result.model_dump_json())
            else:
                again = kind.model_validate(result.model_dump(mode="json" if way == "JSON dict" else "python"))
            assert again == result
            assert type(again.pydantic) is type(structure)
            assert (str(again), repr(again), again.to_dict()) == (str(result), repr(result), result.to_dict())

    def test_a_class_that_cannot_be_found_is_named_with_what_to_do(self) -> None:
        class Local(BaseModel):
            name: str

        for result in results(Local(name="Ada")):
            text = result.model_dump_json()
            with pytest.raises(ValidationError, match=r"Local of tests\.crew\.test_answers, which is not known here"):
                type(result).model_validate_json(text)
            again = type(result).model_validate_json(text, context={"models": [Local]})
            assert (again, again["name"]) == (result, "Ada")

    def test_reading_one_imports_nothing(self) -> None:
        text = results(STRUCTURES[0])[0].model_dump_json().replace(__name__, "antigravity")
        with pytest.raises(ValidationError, match="a City of antigravity, which is not known here; import that module"):
            TaskOutput.model_validate_json(text)
        assert "antigravity" not in sys.modules

    @pytest.mark.parametrize("name", ["os:path", "json:JSONDecoder", "nowhere", "", f"{__name__}:STRUCTURES"])
    def test_a_name_of_something_else_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="is not known here"):
            CrewOutput.model_validate({"pydantic": {"name": "Bern"}, "pydantic_model": name})

    def test_an_object_without_a_name_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="pydantic_model does not name its class"):
            CrewOutput.model_validate_json('{"pydantic": {"name": "Bern"}}')

    def test_values_that_do_not_fit_any_more_are_refused(self) -> None:
        text = results(STRUCTURES[0])[1].model_dump_json().replace('"people":1', '"people":"many"')
        with pytest.raises(ValidationError, match="people"):
            CrewOutput.model_validate_json(text)

    def test_a_field_that_the_object_does_not_compute_is_refused(self) -> None:
        country = Country(capital=Closed(name="Bern", people=1))
        text = results(country)[1].model_dump_json()
        for other in (text.replace('"size":"small"', '"size":"large"'), text.replace('"size"', '"height"')):
            with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
                CrewOutput.model_validate_json(other)

    def test_one_of_text_needs_no_class(self) -> None:
        result = solo(Scripted([BERN]), output_json=City).kickoff()
        assert CrewOutput.model_validate_json(result.model_dump_json()) == result

    def test_text_is_shown_of_an_object_that_has_none(self) -> None:
        class Mute(BaseModel):
            def __str__(self) -> str:
                raise LookupError("no words")

            __repr__ = __str__

        task = TaskOutput(description="d", pydantic=Mute())
        crew = CrewOutput(pydantic=Mute(), tasks_output=[task])
        for result in (task, crew):
            assert str(result) == "<Mute that cannot be shown: its __str__ raised LookupError>"
        assert repr(crew).count("pydantic=<Mute that cannot be shown: its __repr__ raised LookupError>") == 2
        assert "pydantic=City(name='Bern', people=1)" in repr(CrewOutput(pydantic=City(name="Bern", people=1)))

    def test_objects_that_cannot_be_compared_are_not_equal(self) -> None:
        class Array:
            def __eq__(self, other: object) -> bool:
                raise ValueError("the truth value of an array is ambiguous")

            __hash__ = None  # type: ignore[assignment]

        class Measured(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            depths: Array

        one, other = (CrewOutput(raw="r", pydantic=Measured(depths=Array())) for _ in range(2))
        assert one != other
        assert one == one.model_copy()
        assert one != "r"


class TestResults:
    def test_text_prefers_the_model_then_the_dict_then_the_raw_answer(self) -> None:
        city = City(name="Bern", people=1)
        assert str(CrewOutput(raw="raw", pydantic=city, json_dict={"a": 1})) == str(city)
        assert str(CrewOutput(raw="raw", json_dict={"a": 1})) == "{'a': 1}"
        assert str(CrewOutput(raw="raw")) == "raw"

    def test_keys_reach_into_the_structure(self) -> None:
        assert CrewOutput(pydantic=City(name="Bern", people=1))["name"] == "Bern"
        assert CrewOutput(json_dict={"a": 1})["a"] == 1
        with pytest.raises(KeyError, match=r"'b' is not in this output; it has \['a'\]"):
            CrewOutput(json_dict={"a": 1})["b"]
        with pytest.raises(KeyError, match="raw text only"):
            CrewOutput(raw="raw")["a"]

    def test_to_dict_gives_the_structure(self) -> None:
        assert CrewOutput(pydantic=City(name="Bern", people=1)).to_dict() == {"name": "Bern", "people": 1}
        assert CrewOutput(json_dict={"a": 1}).to_dict() == {"a": 1}
        assert CrewOutput(raw="raw").to_dict() == {}

    def test_json_of_an_answer_in_another_form_says_what_to_do(self) -> None:
        result = solo(Scripted("Done")).kickoff()
        with pytest.raises(ValueError, match="give it output_json=Model"):
            _ = result.json
        with pytest.raises(ValueError, match="give it output_json=Model"):
            _ = result.tasks_output[0].json
