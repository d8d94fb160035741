"""Crews as a class, their agents and tasks in YAML: as published projects have them."""

import asyncio
import importlib
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel

from rxflow import Agent, Crew, Flow, Process, Task, TaskOutput, tool as a_tool
from rxflow.flow.flow import start
from rxflow.project import (
    CrewBase,
    after_kickoff,
    agent,
    before_kickoff,
    cache_handler,
    callback,
    crew,
    llm,
    output_json,
    output_pydantic,
    task,
    tool,
)
from rxflow.tools import BaseTool
from rxflow.types.results import CrewOutput
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.team import an_agent

TURNS = ("A text.", '{"good": true}', '{"faults": []}')


@a_tool
def search(query: str) -> str:
    """Search."""
    return query


@CrewBase
class Editing:
    """All that a class may have."""

    agents: list[Agent]
    tasks: list[Task]
    agents_config: Any = "config/agents.yaml"
    tasks_config: Any = "config/tasks.yaml"

    def __init__(self, *turns: str) -> None:
        self.model = Scripted(*(turns or TURNS))
        self.noted: list[str] = []

    @output_pydantic
    class Verdict(BaseModel):
        good: bool

    @output_json
    class Faults(BaseModel):
        faults: list[str]

    @llm
    def house_model(self) -> Any:
        return self.model.llm

    @tool
    def lookup(self) -> BaseTool:
        return search

    @cache_handler
    def keeper(self) -> object:
        return object()

    @callback
    def note_step(self, step: object) -> None:
        self.noted.append("step")

    @callback
    def note_task(self, output: TaskOutput) -> None:
        self.noted.append(f"task {output.raw}")

    @callback
    def make_callback(self) -> Callable[[TaskOutput], None]:
        return lambda output: self.noted.append(f"made {output.raw}")

    @agent
    def writer(self) -> Agent:
        return Agent(config=self.agents_config["writer"])

    @agent
    def reviewer(self) -> Agent:
        return Agent(config=self.agents_config["reviewer"], allow_delegation=True)

    @task
    def write(self) -> Task:
        return Task(config=self.tasks_config["write"])

    @task
    def review(self) -> Task:
        return Task(config=self.tasks_config["review"])

    @task
    def list_faults(self) -> Task:
        return Task(config=self.tasks_config["list_faults"], name="faults")

    @before_kickoff
    def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "topic": inputs["topic"].upper()}

    @after_kickoff
    def finish(self, output: CrewOutput) -> CrewOutput:
        output.raw += " finished"
        return output

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)


class TestARun:
    def test_the_crew_runs_with_its_hooks_and_callbacks(self) -> None:
        editing = Editing()
        output = editing.crew().kickoff(inputs={"topic": "tea"})
        assert output.raw == '{"faults": []} finished'
        assert output.tasks_output[1].pydantic == Editing.Verdict(good=True)
        assert output.json_dict == {"faults": []}
        assert editing.noted == ["step", "task A text.", "step", 'made {"good": true}', "step"]
        assert editing.model.requests[0].last_user_text.startswith("Write about TEA\n\n")
        assert "What is known so far:\nA text." in editing.model.requests[1].last_user_text

    def test_chunks_are_labelled_by_the_names_of_class_methods_and_roles(self) -> None:
        chunks = list(Editing().crew().model_copy(update={"stream": True}).kickoff(inputs={"topic": "tea"}))
        assert {(chunk.crew_name, chunk.task_name, chunk.agent_role) for chunk in chunks} == {
            ("Editing", name, "TEA writer") for name in ("write", "review", "faults")
        }

    def test_a_model_that_changes_nothing_is_one_when_it_is_read_back(self) -> None:
        editing = Editing()
        writer: Any = editing.writer()
        reviewer: Any = editing.reviewer()
        assert writer.function_calling_llm is editing.house_model()
        assert reviewer.function_calling_llm.model == "openai/m"

    def test_it_streams_inside_a_flow(self) -> None:
        class Publishing(Flow):
            stream = True

            @start()
            def edit(self) -> Any:
                return Editing().crew().kickoff(inputs={"topic": "tea"})

        output = Publishing().kickoff()
        assert {(chunk.flow_method, chunk.crew_name) for chunk in output} == {("edit", "Editing")}
        assert output.result.raw.endswith("finished")

    def test_hooks_run_once_a_run_however_often_the_crew_is_asked_for(self) -> None:
        editing = Editing(*TURNS, *TURNS)
        for _ in range(2):
            assert editing.crew().kickoff(inputs={"topic": "tea"}).raw.count("finished") == 1


class TestWhatIsMade:
    def test_each_method_makes_its_object_once(self) -> None:
        editing = Editing()
        for method in ("writer", "write", "crew", "house_model", "lookup", "keeper"):
            assert getattr(editing, method)() is getattr(editing, method)()
        assert editing.write().agent is editing.writer()
        assert editing.review().context == [editing.write()]

    def test_two_objects_share_nothing(self) -> None:
        one, other = Editing(), Editing()
        assert one.writer() is not other.writer()
        assert one.crew() is not other.crew()

    def test_arguments_make_another_one(self) -> None:
        class Making:
            @agent
            def named(self, role: str, tools: Any = None) -> Agent:
                return an_agent(Scripted("Done"), role)

        making = Making()
        assert making.named("A") is making.named("A")
        assert making.named("A") is not making.named("B")
        tools: list[object] = []
        assert making.named("A", tools=tools) is making.named("A", tools=tools)

    def test_arguments_that_are_gone_are_not_mistaken_for_new_ones(self) -> None:
        @CrewBase
        class Several:
            @agent
            def named(self, names: list[str]) -> Agent:
                return an_agent(Scripted("Done"), " and ".join(names))

        several = Several()
        assert [several.named([f"n{number}"]).role for number in range(50)] == [f"n{number}" for number in range(50)]
        mine = ["Ada"]
        assert several.named(mine) is several.named(mine)

    def test_an_argument_by_name_is_another_than_a_pair_by_position(self) -> None:
        @CrewBase
        class Several:
            @agent
            def named(self, name: object) -> Agent:
                return an_agent(Scripted("Done"), str(name))

        several = Several()
        assert several.named(name="Ada").role == "Ada"
        assert several.named(("name", "Ada")).role == "('name', 'Ada')"

    def test_tasks_are_named_after_their_methods_unless_they_have_a_name(self) -> None:
        assert [each.name for each in Editing().tasks] == ["write", "review", "faults"]

    def test_agents_are_those_of_the_tasks_first(self) -> None:
        editing = Editing()
        assert editing.agents == [editing.writer(), editing.reviewer()]
        assert Editing().crew().agents[0].role.strip() == "{topic} writer"

    def test_options_in_yaml_are_read(self) -> None:
        writer = Editing().writer()
        assert (writer.verbose, writer.tools, writer.goal) == (True, [search], "Write well")
        assert Editing().reviewer().tools == []
        assert not Editing().list_faults().takes_all_context

    def test_a_crew_may_have_a_name_of_its_own(self) -> None:
        @CrewBase
        class Named:
            @crew
            def crew(self) -> Crew:
                return Crew(name="desk", agents=[], tasks=[])

        assert Named().crew().name == "desk"

    def test_a_class_without_files_needs_none(self) -> None:
        @CrewBase
        class Plain:
            agents: list[Agent]
            tasks: list[Task]
            agents_config = None
            tasks_config = None

            @agent
            def writer(self) -> Agent:
                return an_agent(Scripted("Done"))

            @task
            def write(self) -> Task:
                return Task(description="Write", expected_output="A text", agent=self.writer())

            @crew
            def crew(self) -> Crew:
                return Crew(agents=self.agents, tasks=self.tasks)

        assert Plain().crew().kickoff().raw == "Done"

    def test_a_subclass_has_what_its_base_makes_and_may_make_it_otherwise(self) -> None:
        @CrewBase
        class Shorter(Editing):
            @agent
            def writer(self) -> Agent:
                return an_agent(self.model, "Other")

            list_faults: Any = None

        shorter = Shorter()
        assert [each.name for each in shorter.tasks] == ["write", "review"]
        assert shorter.write().agent is not None
        assert [each.role for each in shorter.agents] == ["Other", "Reviewer"]
        assert shorter.crew().name == "Shorter"

    def test_an_overriding_method_may_begin_with_what_its_base_makes(self) -> None:
        @CrewBase
        class Stricter(Editing):
            @agent
            def writer(self) -> Agent:
                return super().writer().model_copy(update={"role": "Strict writer"})

            @task
            def write(self) -> Task:
                made = super().write()
                made.expected_output = "Two texts"
                return made

            @before_kickoff
            def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
                self.noted.append("prepared")
                return super().prepare(inputs)

            @crew
            def crew(self) -> Crew:
                made = super().crew()
                made.verbose = False
                return made

        stricter = Stricter()
        assert stricter.writer().role == "Strict writer"
        assert stricter.writer() is stricter.writer()
        assert stricter.write().expected_output == "Two texts"
        assert stricter.crew().kickoff({"topic": "tea"}).raw == '{"faults": []} finished'
        assert stricter.noted.count("prepared") == 1

    def test_an_async_method_makes_its_object_too(self) -> None:
        class Async:
            made = 0

            @agent
            async def writer(self) -> Any:
                self.made += 1
                return an_agent(Scripted("Done"))

            @task
            async def write(self) -> Any:
                return Task(description="Write", expected_output="A text")

            @agent
            async def forgetful(self) -> Any:
                async def make() -> Agent:
                    return an_agent(Scripted("Done"))

                return make()

        own = Async()
        assert isinstance(own.forgetful(), Agent)
        first: Any = own.writer()
        assert first is own.writer()
        assert isinstance(first, Agent)
        assert own.made == 1
        written: Any = own.write()
        assert written.name == "write"

    def test_an_async_method_runs_on_the_loop_of_the_crew_s_runs(self) -> None:
        """What it makes, a client for instance, works in the run."""
        loops: list[asyncio.AbstractEventLoop] = []

        async def note(_: object = None) -> None:
            loops.append(asyncio.get_running_loop())

        @CrewBase
        class Async:
            agents: list[Agent]
            tasks: list[Task]

            @agent
            async def writer(self) -> Agent:
                await note()
                return an_agent(Scripted("Done"))

            @task
            def write(self) -> Task:
                return Task(description="d", expected_output="e", agent=cast(Any, self.writer()), callback=note)

            @crew
            def crew(self) -> Crew:
                return Crew(agents=self.agents, tasks=self.tasks)

        Async().crew().kickoff()
        assert len(loops) == 2
        assert len(set(loops)) == 1

        async def main() -> str:
            return str((await Async().crew().kickoff_async()).raw)

        assert asyncio.run(main()) == "Done"

    @pytest.mark.parametrize(("decorate", "kind"), [(agent, "Agent"), (task, "Task"), (crew, "Crew")])
    @pytest.mark.parametrize("made", [None, "text"])
    def test_a_method_that_makes_something_else_is_named(self, decorate: Any, kind: str, made: object) -> None:
        class Wrong:
            def make(self) -> object:
                return made

        Wrong.make = decorate(Wrong.make)  # type: ignore[method-assign]
        message = f"Wrong.make() under @{kind.lower()} returned {made!r}, which is not of the class {kind}"
        with pytest.raises(TypeError, match=re.escape(message)):
            Wrong().make()

    def test_threads_may_ask_one_object_at_once(self) -> None:
        editing = Editing()
        meeting = threading.Barrier(2, timeout=PATIENCE_S)
        crews: list[Crew] = []

        def ask() -> None:
            meeting.wait()
            crews.append(editing.crew())

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert [len(each.tasks) for each in crews] == [3, 3]

    def test_threads_that_make_one_agent_at_once_get_the_same_one(self) -> None:
        meeting = threading.Barrier(2, timeout=PATIENCE_S)

        @CrewBase
        class Meeting:
            @agent
            def writer(self) -> Agent:
                meeting.wait()
                return an_agent(Scripted())

        made = Meeting()
        with ThreadPoolExecutor(2) as pool:
            one, other = [pool.submit(made.writer) for _ in range(2)]
        assert one.result() is other.result() is made.writer()


class TestConfiguration:
    def test_a_path_may_be_a_path_object(self) -> None:
        @CrewBase
        class Cooking:
            agents_config: Any = Path("config/agents.yaml")

        assert list(Cooking().agents_config) == ["writer", "reviewer"]

    def test_the_class_has_the_paths_and_the_object_the_entries(self) -> None:
        assert Editing.agents_config == "config/agents.yaml"
        assert list(Editing().agents_config) == ["writer", "reviewer"]
        assert Editing().tasks_config.get("write")["agent"].goal == "Write well"
        assert Editing().tasks_config.get("nothing") is None

    def test_one_name_may_stand_where_there_may_be_several(self) -> None:
        entries = {
            "write": {"description": "d", "expected_output": "e", "agent": "writer"},
            "review": {"description": "d", "expected_output": "e", "context": "write", "tools": "find"},
            "list_faults": {"description": "d", "expected_output": "e", "agent": "writer"},
        }

        @CrewBase
        class One(Editing):
            tasks_config: Any = entries

            @tool
            def find(self) -> BaseTool:
                return search

        one = One()
        assert (one.review().context, one.review().tools) == ([one.write()], [search])

    def test_a_file_that_is_not_utf_8_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "agents.yaml"
        file.write_bytes("a: {role: Köchin}".encode("latin-1"))

        @CrewBase
        class Cooking:
            agents_config: Any = str(file)

        with pytest.raises(ValueError, match=rf"{re.escape(str(file))} is not UTF-8"):
            Cooking().agents_config  # noqa: B018

    def test_entries_may_be_changed_before_they_are_used(self) -> None:
        editing = Editing()
        editing.agents_config["writer"]["goal"] = "Write briefly"
        editing.agents_config["critic"] = {"role": "Critic", "goal": "g", "backstory": "b"}
        assert editing.writer().goal == "Write briefly"
        assert Agent(config=editing.agents_config["critic"]).role == "Critic"
        assert Editing().writer().goal == "Write well"

    def test_a_mapping_may_stand_for_the_file(self) -> None:
        @CrewBase
        class Inline:
            agents_config: Any = {"writer": {"role": "R", "goal": "g", "backstory": "b"}}  # noqa: RUF012

            @agent
            def writer(self) -> Agent:
                return Agent(config=self.agents_config["writer"])

        assert Inline().writer().role == "R"

    def test_an_entry_that_is_not_there_names_those_that_are(self) -> None:
        with pytest.raises(
            KeyError, match=r"config/agents.yaml has no entry 'critic'; it has \['reviewer', 'writer'\]"
        ):
            _ = Editing().agents_config["critic"]

    def test_a_file_that_is_not_there_is_named_when_it_is_used(self, tmp_path: Path) -> None:
        @CrewBase
        class Lost:
            agents_config: Any = "config/lost.yaml"

        lost = Lost()
        with pytest.raises(
            FileNotFoundError, match=r"Lost.agents_config is 'config/lost.yaml', which is not in"
        ) as raised:
            _ = lost.agents_config
        assert raised.value.filename == str(Path(__file__).parent / "config" / "lost.yaml")

    def test_a_subclass_in_another_folder_has_the_files_of_its_base_unless_there_are_files_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = tmp_path / "elsewhere_of_editing.py"
        module.write_text(
            "from rxflow.project import CrewBase\n"
            "from tests.project.test_crew_base import Editing\n"
            "@CrewBase\nclass Elsewhere(Editing): ...\n"
            "@CrewBase\nclass Further(Elsewhere): tasks_config = 'config/lost.yaml'\n",
            encoding="utf-8",
        )
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        found: Any = importlib.import_module(module.stem)
        assert found.Elsewhere().crew().kickoff(inputs={"topic": "tea"}).raw == '{"faults": []} finished'
        assert found.Elsewhere.agents_config == "config/agents.yaml"
        with pytest.raises(FileNotFoundError) as raised:
            _ = found.Further().tasks_config
        assert raised.value.filename == str(tmp_path / "config" / "lost.yaml")
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "agents.yaml").write_text("critic: {role: Critic, goal: g, backstory: b}")
        assert list(found.Elsewhere().agents_config) == ["critic"]
        assert list(found.Elsewhere().tasks_config) == list(Editing().tasks_config)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("- writer", "must have an entry for each agent or task"),
            ("writer: Ada", "the entry 'writer' must be a mapping"),
        ],
    )
    def test_a_file_of_another_shape_is_refused(self, text: str, words: str, tmp_path: Path) -> None:
        (tmp_path / "agents.yaml").write_text(text, encoding="utf-8")

        @CrewBase
        class Odd:
            agents_config: Any = str(tmp_path / "agents.yaml")

        with pytest.raises(ValueError, match=words):
            _ = Odd().agents_config["writer"]

    def test_a_file_that_is_not_yaml_names_file_and_line(self, tmp_path: Path) -> None:
        (tmp_path / "agents.yaml").write_text("writer: [", encoding="utf-8")

        @CrewBase
        class Odd:
            agents_config: Any = str(tmp_path / "agents.yaml")

        with pytest.raises(Exception, match=r"agents.yaml.*line 1"):
            _ = Odd().agents_config

    def test_an_empty_file_has_no_entries(self, tmp_path: Path) -> None:
        (tmp_path / "agents.yaml").write_text("", encoding="utf-8")

        @CrewBase
        class Empty:
            agents_config: Any = str(tmp_path / "agents.yaml")

        assert dict(Empty().agents_config) == {}

    @pytest.mark.parametrize(
        ("option", "value", "role"),
        [
            ("agent", "nobody", "agent"),
            ("context", ["nothing"], "task"),
            ("tools", ["nothing"], "tool"),
            ("output_pydantic", "Nothing", "output_pydantic"),
            ("output_json", "Verdict", "output_json"),
            ("callback", "nothing", "callback"),
        ],
    )
    def test_a_name_that_the_class_does_not_make_is_refused(self, option: str, value: Any, role: str) -> None:
        entry = {"description": "d", "expected_output": "e", option: value}

        @CrewBase
        class Wrong(Editing):
            tasks_config: Any = {"write": entry}  # noqa: RUF012

        name = "".join(value)
        words = rf"Wrong.tasks_config: write: {option} names '{name}', which Wrong does not have under @{role}; it has"
        with pytest.raises(ValueError, match=words):
            Wrong().write()

    def test_a_circle_is_refused_and_named(self) -> None:
        @CrewBase
        class Round(Editing):
            tasks_config: Any = {  # noqa: RUF012
                "write": {"description": "d", "expected_output": "e", "context": ["review"]},
                "review": {"description": "d", "expected_output": "e", "context": ["write"]},
            }

        with pytest.raises(ValueError, match="Round: write → review → write is a circle"):
            Round().write()

    def test_a_task_may_need_one_that_the_same_method_makes_of_other_arguments(self) -> None:
        @CrewBase
        class Chain(Editing):
            @task
            def step(self, number: int) -> Task:
                before = [self.step(number - 1)] if number else []
                return Task(description=f"step {number}", expected_output="e", agent=self.writer(), context=before)

        last = Chain().step(2)
        assert [each.description for each in last.context or []] == ["step 1"]

    def test_mcp_servers_are_refused_where_their_tools_are_asked_for(self) -> None:
        @CrewBase
        class Served(Editing):
            mcp_server_params = {"url": "http://localhost"}  # noqa: RUF012

        served: Any = Served()
        with pytest.raises(NotImplementedError, match=r"Served.get_mcp_tools\(\) is not supported. It would start MCP"):
            served.get_mcp_tools()
