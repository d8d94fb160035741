"""The ways to run a crew, and the labels on what comes out of it."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from rxflow import Crew, Flow
from rxflow.flow.flow import listen, start
from rxflow.llm.source import Request
from rxflow.testing import VirtualClock
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    AgentFinished,
    AgentStarted,
    CrewFailed,
    CrewFinished,
    CrewStarted,
    LLMFailed,
    LLMFinished,
    LLMStarted,
    MessageAdded,
    TaskFailed,
    TaskFinished,
    TaskStarted,
)
from rxflow.types.results import TaskOutput
from rxflow.types.streaming import CrewStreamingOutput
from tests.gate import PATIENCE_S
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.spans import ranked, ranks
from tests.team import a_crew, a_task, an_agent, played, solo

TOPICS = [{"topic": "terns"}, {"topic": "gulls"}, {"topic": "owls"}]


def about() -> Crew:
    return solo(Scripted("Done"), description="About {topic}")


def descriptions(results: list[Any]) -> list[str]:
    return [result.tasks_output[0].description for result in results]


class TestKickoff:
    def test_kickoff_async_and_akickoff_give_the_same_as_kickoff(self) -> None:
        assert solo(Scripted("Done")).kickoff().raw == "Done"
        assert asyncio.run(solo(Scripted("Done")).kickoff_async()).raw == "Done"
        assert asyncio.run(solo(Scripted("Done")).akickoff()).raw == "Done"

    def test_for_each_gives_the_results_in_the_order_of_the_inputs(self) -> None:
        assert descriptions(about().kickoff_for_each(TOPICS)) == ["About terns", "About gulls", "About owls"]

    def test_for_each_async_runs_them_at_once(self) -> None:
        meeting = threading.Barrier(3, timeout=PATIENCE_S)

        async def meet(_: Request) -> None:
            await asyncio.to_thread(meeting.wait)

        crew = solo(Scripted("Done", before=meet), description="About {topic}")
        results = asyncio.run(crew.kickoff_for_each_async(TOPICS))
        assert descriptions(results) == ["About terns", "About gulls", "About owls"]

    def test_for_each_runs_none_where_an_input_is_missing(self) -> None:
        model = Scripted("Done")
        crew = solo(model, description="About {topic}")
        with pytest.raises(ValueError, match="needs the input 'topic'"):
            crew.kickoff_for_each([*TOPICS, {}])
        with pytest.raises(ValueError, match="needs the input 'topic'"):
            asyncio.run(crew.kickoff_for_each_async([*TOPICS, {}]))
        assert model.requests == []

    def test_an_error_of_one_is_raised_as_it_is_and_the_others_are_stopped(self) -> None:
        stopped: list[str] = []

        async def fail_or_wait(request: Request) -> None:
            if "gulls" in request.last_user_text:
                raise LookupError("lost")
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(request.last_user_text)

        crew = solo(Scripted("Done", before=fail_or_wait), description="About {topic}")
        with pytest.raises(LookupError, match="lost"):
            asyncio.run(crew.kickoff_for_each_async(TOPICS))
        assert len(stopped) == 2

    def test_for_each_with_stream_gives_an_output_each(self) -> None:
        crew = about()
        crew.stream = True
        outputs = crew.kickoff_for_each(TOPICS)
        assert all(isinstance(each, CrewStreamingOutput) for each in outputs)
        assert ["".join(chunk.content for chunk in each) for each in outputs] == ["Done"] * 3
        assert descriptions([each.result for each in outputs]) == ["About terns", "About gulls", "About owls"]

    def test_for_each_async_with_stream_gives_an_output_each(self) -> None:
        async def main() -> list[str]:
            crew = about()
            crew.stream = True
            outputs = await crew.kickoff_for_each_async(TOPICS)
            for each in outputs:
                async for _ in each:
                    pass
            return descriptions([each.result for each in outputs])

        assert asyncio.run(main()) == ["About terns", "About gulls", "About owls"]

    def test_with_stream_nothing_runs_before_the_first_pull(self) -> None:
        model = Scripted("Hello big world")
        streaming = solo(model, crew={"stream": True}).kickoff()
        assert model.requests == []
        assert [chunk.content for chunk in streaming] == ["Hello", " big", " world"]
        assert streaming.result.raw == "Hello big world"
        assert streaming.get_full_text() == "Hello big world"

    def test_a_dict_of_results_can_be_made_of_an_output(self) -> None:
        class City(BaseModel):
            name: str

        result = solo(Scripted(['{"name": "Bern"}']), output_pydantic=City).kickoff()
        assert json.loads(result.model_dump_json())["pydantic"] == {"name": "Bern"}
        assert result.model_dump()["tasks_output"][0]["pydantic"] == {"name": "Bern"}


class TestEvents:
    def test_everything_comes_in_brackets(self) -> None:
        assert [type(each) for each in played(solo(Scripted("Hello"))).events] == [
            CrewStarted,
            TaskStarted,
            AgentStarted,
            MessageAdded,
            MessageAdded,
            LLMStarted,
            StreamChunk,
            LLMFinished,
            MessageAdded,
            AgentFinished,
            TaskFinished,
            CrewFinished,
        ]

    def test_a_failure_closes_every_bracket(self) -> None:
        error = LookupError("lost")
        seen = outcome(solo(Scripted(error)).events())
        assert seen.error is error
        assert [type(each).__name__ for each in seen.events][-4:] == [
            "LLMFailed",
            "AgentFailed",
            "TaskFailed",
            "CrewFailed",
        ]
        assert {each.error for kind in (LLMFailed, TaskFailed, CrewFailed) for each in seen.of(kind)} == {error}

    def test_an_agent_can_work_on_a_task_alone(self) -> None:
        agent = an_agent(Scripted("Hello big world"))
        seen = outcome(agent.events(a_task(None)))
        assert seen.text == "Hello big world"
        assert seen.one(TaskFinished).result.raw == "Hello big world"
        contents: list[str] = []
        ended = threading.Event()
        agent.observe(a_task(None)).subscribe(lambda chunk: contents.append(chunk.content), on_completed=ended.set)
        assert ended.wait(PATIENCE_S)
        assert contents == ["Hello", " big", " world"]


class TestLabels:
    def test_each_chunk_says_which_task_and_agent_it_comes_from(self) -> None:
        writer, counter = an_agent(Scripted("One two"), "Writer"), an_agent(Scripted("Three"), "Counter")
        first, second = a_task(writer, "Write about {topic}", name="writing"), a_task(counter, "Count the {topic}")
        seen = played(a_crew(first, second, name="birders"), {"topic": "terns"})
        told = [
            (each.task_index, each.task_name, each.task_id, each.agent_role, each.agent_id, each.crew_name)
            for each in seen.of(StreamChunk)
        ]
        assert told == [
            (0, "writing", first.id, "Writer", writer.id, "birders"),
            (0, "writing", first.id, "Writer", writer.id, "birders"),
            (1, "Count the terns", second.id, "Counter", counter.id, "birders"),
        ]

    def test_the_chunks_are_counted_through_all_tasks_of_a_run(self) -> None:
        agents = [an_agent(Scripted("One two three")) for _ in range(4)]
        crew = a_crew(
            a_task(agents[0]),
            a_task(agents[1], async_execution=True),
            a_task(agents[2], async_execution=True),
            a_task(agents[3]),
        )
        seen = played(crew)
        assert ranks(seen.of(StreamChunk)) == list(range(12))
        assert {each.task_index for each in seen.of(StreamChunk)} == {0, 1, 2, 3}

    def test_each_call_of_a_model_has_an_id_of_its_own(self) -> None:
        @tool
        def look() -> str:
            """Look."""
            return "seen"

        seen = played(solo(Scripted(["A ", *calls(("look", {}))], "B"), agent={"tools": [look]}))
        ids = {each.content: each.llm_call_id for each in seen.of(StreamChunk)}
        assert ids["A "]
        assert ids["B"]
        assert ids["A "] != ids["B"]

    def test_in_a_flow_each_chunk_says_which_method_it_comes_from(self) -> None:
        crew = solo(Scripted("Hello"), crew={"name": "greeters"})

        class Greeting(Flow[dict[str, Any]]):
            stream = True

            @start()
            def greet(self) -> str:
                return str(crew.kickoff().raw)

            @listen(greet)
            async def greet_again(self) -> str:
                return str((await crew.kickoff_async()).raw)

        told = [
            (each.flow_method, each.flow_name, each.crew_name, each.task_name, rank)
            for each, rank in ranked(Greeting().kickoff())
        ]
        assert told == [
            ("greet", "Greeting", "greeters", "Write", 0),
            ("greet_again", "Greeting", "greeters", "Write", 1),
        ]


class TestSteps:
    def test_a_step_callback_hears_of_each_turn_and_each_tool(self) -> None:
        @tool
        def look() -> str:
            """Look."""
            return "seen"

        heard: list[Any] = []
        crew = solo(
            Scripted(calls(("look", {})), "Done"), agent={"tools": [look]}, crew={"step_callback": heard.append}
        )
        crew.kickoff()
        assert [step.text for step in heard] == ["", "seen", "Done"]

    def test_a_step_callback_may_be_async(self) -> None:
        heard: list[str] = []

        async def hear(step: Any) -> None:
            await asyncio.sleep(0)
            heard.append(step.text)

        solo(Scripted("Done"), crew={"step_callback": hear}).kickoff()
        assert heard == ["Done"]


class TestVerbose:
    @pytest.mark.parametrize("who", ["agent", "crew"])
    def test_it_logs_what_happens_without_the_text(self, who: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rxflow")
        solo(Scripted("Hello big world"), **{who: {"verbose": True}}).kickoff()
        lines = [record.getMessage() for record in caplog.records if record.name == "rxflow"]
        assert [re.sub(r"\d+\.\d s", "N s", line) for line in lines if not line.startswith("crew ")] == [
            "Writer begins task 'Write'",
            "Writer asked scripted in N s, 2 + 1 tokens",
            "Writer finished task 'Write' in N s",
        ]

    def test_it_logs_tools_with_what_goes_in_and_comes_out(self, caplog: pytest.LogCaptureFixture) -> None:
        @tool
        def look(city: str) -> str:
            """Look."""
            return f"Seen\n{city} {'and on ' * 100}"

        caplog.set_level(logging.INFO, "rxflow")
        model = Scripted(calls(("look", {"city": "Zürich"})), "Done", "Better")
        verdicts = iter([(False, "too short"), (True, "Better")])

        def judge(output: TaskOutput) -> tuple[bool, Any]:
            return next(verdicts)

        played(solo(model, agent={"tools": [look]}, guardrail=judge, crew={"verbose": True}))
        lines = [re.sub(r"\d+\.\d s", "N s", line) for line in caplog.messages]
        assert lines[:4] == [
            "crew 'crew' begins",
            "Writer begins task 'Write'",
            "Writer asked scripted in N s, 2 + 1 tokens, which calls look",
            'Writer calls look({"city": "Zürich"})',
        ]
        assert lines[4].startswith("Writer got from look in N s: Seen Zürich and on")
        assert len(lines[4]) < 250
        assert lines[5:] == [
            "Writer asked scripted in N s, 2 + 1 tokens",
            "task 'Write' was sent back to Writer: too short",
            "Writer asked scripted in N s, 2 + 1 tokens",
            "Writer finished task 'Write' in N s",
            "crew 'crew' finished in N s, 6 + 3 tokens",
        ]

    def test_the_seconds_are_those_of_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rxflow")

        @tool
        async def wait() -> None:
            """Wait."""
            await asyncio.sleep(75)

        with VirtualClock():
            solo(Scripted(calls(("wait", {})), "Done"), agent={"tools": [wait], "verbose": True}).kickoff()
        assert any(line == "Writer finished task 'Write' in 75.0 s" for line in caplog.messages)

    def test_it_logs_a_failure_with_its_error(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "rxflow")
        outcome(solo(Scripted(LookupError("lost")), crew={"verbose": True}).events())
        text = "\n".join(caplog.messages)
        assert re.search(r"Writer asked scripted, which failed after \d\.\d s: LookupError: lost", text)
        assert re.search(r"task 'Write' failed after \d\.\d s: LookupError: lost", text)
        assert re.search(r"crew 'crew' failed after \d\.\d s: LookupError: lost", text)

    def test_without_it_nothing_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "rxflow")
        solo(Scripted("Hello")).kickoff()
        assert [record for record in caplog.records if record.name == "rxflow"] == []


PROGRAM = """
import logging
from tests.team import solo
from tests.scripted import Scripted

{before}
solo(Scripted("Hello"), crew={{"verbose": {verbose}}}).kickoff()
{after}
"""
AGAIN = 'solo(Scripted("Hello"), crew={"verbose": True}).kickoff()'
TO_OUT = 'import sys; logging.basicConfig(stream=sys.stdout, format="mine %(levelname)s %(message)s")'


class TestWhereProgressIsShown:
    @pytest.mark.parametrize(
        ("verbose", "before", "after", "times"),
        [
            (True, "", "", 1),
            (True, "", AGAIN, 2),
            (False, "", "", 0),
            (True, 'logging.getLogger("rxflow").setLevel(logging.WARNING)', "", 0),
            (True, TO_OUT, "", 0),
            (True, 'logging.getLogger("rxflow").addHandler(logging.NullHandler())', "", 0),
            (True, "", f"{TO_OUT}\n{AGAIN}", 1),
        ],
        ids=["alone", "twice", "not verbose", "level", "configured", "silenced", "configured later"],
    )
    def test_on_standard_error_if_the_program_says_nothing_else(
        self, verbose: bool, before: str, after: str, times: int
    ) -> None:
        shown = ran(PROGRAM.format(verbose=verbose, before=before, after=after))
        assert shown.stderr.count("crew 'crew' begins") == times
        if times:
            line = r"^\d\d:\d\d:\d\d rxflow Writer finished task 'Write' in \d\.\d s$"
            assert re.search(line, shown.stderr, re.MULTILINE)
        else:
            assert shown.stderr == ""

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_where_the_program_says(self, when: str) -> None:
        before, after = (TO_OUT, "") if when == "before" else ("", f"{TO_OUT}\n{AGAIN}")
        shown = ran(PROGRAM.format(verbose=True, before=before, after=after)).stdout
        assert shown.count("mine INFO crew 'crew' begins") == 1


def ran(program: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done
