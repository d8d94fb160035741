"""What models, tools and inputs say is data: it fills no placeholder, chooses no folder, and is markup nowhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rxflow import LLM, Agent, Crew, Flow
from rxflow.flow import listen, router, start
from rxflow.tools import FunctionTool, tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import ToolFailed, ToolFinished
from rxflow.types.results import TaskOutput
from tests.loopback import Loopback, Reply, ToolCall
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, played, prompt, solo

INPUTS = {"topic": "TERNS", "role": "ROLE"}
SAYS = "I say {topic}, {{topic}}, {0}, {role.__class__}, %(topic)s, $topic and ${topic}"


@tool
def echo(text: str) -> str:
    """Says it again."""
    return text


class TestPlaceholders:
    def test_one_that_a_model_says_stays_as_it_is_in_the_next_prompt(self) -> None:
        model = Scripted(SAYS)
        agent = an_agent(model)
        seen = played(a_crew(a_task(agent, "About {topic}"), a_task(agent, "More of {topic}")), INPUTS)
        assert seen.error is None
        assert prompt(model, 1).startswith("More of TERNS")
        assert SAYS in prompt(model, 1)

    def test_so_does_one_in_a_tools_result(self) -> None:
        model = Scripted(calls(("echo", {"text": SAYS})), SAYS)
        seen = played(solo(model, description="About {topic}", tools=[echo]), INPUTS)
        assert seen.one(ToolFinished).result == SAYS
        assert model.conversations[1][-1]["content"] == SAYS

    def test_so_does_one_in_an_input(self) -> None:
        model = Scripted("Done")
        solo(model, description="About {topic} by {role}").kickoff({"topic": "{role}", "role": "{topic}"})
        assert prompt(model).startswith("About {role} by {topic}")

    def test_so_does_one_in_work_that_is_delegated(self) -> None:
        boss = Scripted(
            calls(("delegate_work_to_coworker", {"task": SAYS, "context": SAYS, "coworker": "Helper"})), "Done"
        )
        helper = Scripted("Helped")
        agents = [an_agent(boss, "Boss", allow_delegation=True), an_agent(helper, "Helper")]
        crew = Crew(agents=agents, tasks=[a_task(agents[0], "About {topic}")])
        assert played(crew, INPUTS).error is None
        assert prompt(helper).startswith(SAYS)
        assert prompt(helper).count(SAYS) == 2

    def test_so_does_one_in_what_a_guardrail_objects_to(self) -> None:
        model = Scripted(SAYS, "Better")
        verdicts = iter([(False, SAYS), (True, "Better")])

        def check(output: TaskOutput) -> tuple[bool, str]:
            return next(verdicts)

        solo(model, description="About {topic}", guardrail=check).kickoff(INPUTS)
        assert model.conversations[1][-2]["content"] == SAYS
        assert SAYS in model.conversations[1][-1]["content"]

    def test_a_label_shows_what_an_input_says_and_no_more(self) -> None:
        agent = Agent(role="{topic} expert", goal="Write", backstory="None", llm=Scripted("Done").llm)
        (chunk,) = played(a_crew(a_task(agent)), {"topic": "{topic}"}).of(StreamChunk)
        assert chunk.agent_role == "{topic} expert"


class TestTheOutputFile:
    """More of it in tests/crew/test_inputs.py: dots, absolute paths, and what adds up to them."""

    @pytest.fixture(autouse=True)
    def inside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        inside = tmp_path / "inside"
        (inside / "out").mkdir(parents=True)
        (tmp_path / "outside").mkdir()
        monkeypatch.chdir(inside)
        return inside

    def test_an_input_may_name_a_folder_within(self, inside: Path) -> None:
        solo(Scripted("Done"), output_file="out/{name}.txt").kickoff({"name": "a/b"})
        assert (inside / "out" / "a" / "b.txt").read_text() == "Done"

    @pytest.mark.parametrize("name", ["link/passwd", "file", "link/../link/x", "dangling"])
    def test_an_input_cannot_go_out_by_a_link_that_is_there(self, inside: Path, tmp_path: Path, name: str) -> None:
        outside = tmp_path / "outside"
        (outside / "kept.txt").write_text("kept")
        (inside / "out" / "link").symlink_to(outside)
        (inside / "out" / "file.txt").symlink_to(outside / "kept.txt")
        (inside / "out" / "dangling.txt").symlink_to(outside / "new.txt")
        model = Scripted("Done")
        with pytest.raises(ValueError, match="would lead out of its folder"):
            solo(model, output_file="out/{name}.txt").kickoff({"name": name})
        assert model.requests == []
        assert [each.name for each in outside.iterdir()] == ["kept.txt"]
        assert (outside / "kept.txt").read_text() == "kept"

    def test_nor_by_one_that_is_made_while_the_model_speaks(self, inside: Path, tmp_path: Path) -> None:
        async def link(request: object) -> None:
            (inside / "out" / "late").symlink_to(tmp_path / "outside")

        model = Scripted("Done", before=link)
        with pytest.raises(ValueError, match="a symbolic link would lead out of its folder"):
            solo(model, output_file="out/{name}.txt").kickoff({"name": "late/x"})
        assert list((tmp_path / "outside").iterdir()) == []

    def test_links_that_the_program_itself_names_are_followed(self, inside: Path, tmp_path: Path) -> None:
        (inside / "reports").symlink_to(tmp_path / "outside")
        solo(Scripted("Done"), output_file="reports/{name}.txt").kickoff({"name": "a"})
        solo(Scripted("Done"), output_file="reports/b.txt").kickoff({"name": "a"})
        assert {each.name for each in (tmp_path / "outside").iterdir()} == {"a.txt", "b.txt"}

    def test_a_link_that_stays_within_is_followed(self, inside: Path) -> None:
        (inside / "out" / "newest").symlink_to(inside / "out" / "7")
        (inside / "out" / "7").mkdir()
        solo(Scripted("Done"), output_file="out/{name}.txt").kickoff({"name": "newest/a"})
        assert (inside / "out" / "7" / "a.txt").read_text() == "Done"


MARKUP = '</script><img src=x onerror="alert(1)">&amp;<!--'


class TestMarkup:
    def hostile(self) -> Flow:
        class Hostile(Flow):
            @start()
            def begin(self) -> Any: ...

            @router(begin)
            def choose(self) -> Any:
                return MARKUP

            @listen(MARKUP)
            def end(self) -> Any: ...

        Hostile.begin.__doc__ = MARKUP
        return Hostile(name=MARKUP)

    def test_a_page_shows_it_as_text(self, tmp_path: Path) -> None:
        page = self.hostile().plot(str(tmp_path / "page"), show=False).read_text(encoding="utf-8")
        assert "<img" not in page
        assert "<!--" not in page
        assert "<script" not in page
        assert "&lt;img src=x" in page

    def test_mermaid_text_spells_it_out(self) -> None:
        text = self.hostile().to_mermaid()
        body = text.replace("<br/>", "")  # its own, between a name and its doc
        assert "<" not in body
        assert "onerror=" not in body

    def test_frames_and_chunks_carry_it_as_it_was_said(self) -> None:
        with Scripted([MARKUP]).llm.stream_events("Hi") as session:
            frames = list(session)
        assert "".join(frame.content for frame in frames) == MARKUP
        for frame in frames:
            assert json.loads(frame.model_dump_json())["seq"] == frame.seq

    def test_control_characters_are_passed_on_to_the_reader(self) -> None:
        # They are for whoever prints them: see docs/reliability.md.
        odd = "\x1b[2J\x1b]0;title\x07\r\x00\u202e"
        seen = played(solo(Scripted([odd])))
        assert seen.text == odd


HALF = "\ud83d"
"""One half of an emoji: a string in Python, and no text that can be sent."""


def saying(result: Any) -> FunctionTool:
    """A tool with this result, or this error."""

    @tool
    def say() -> Any:
        """Says something."""
        if isinstance(result, Exception):
            raise result
        return result

    return say


class TestWhatCannotBeEncoded:
    """It is replaced where it would go out, so that the run goes on."""

    def test_in_a_prompt(self, provider: Loopback, llm: LLM) -> None:
        seen = outcome(llm.events([{"role": "user", "content": [{"type": "text", "text": f"a{HALF}b"}]}]))
        assert (seen.error, len(provider.requests)) == (None, 1)
        assert provider.requests[0].messages[0]["content"] == [{"type": "text", "text": "a�b"}]

    def test_halves_that_belong_together_are_one_character(self, provider: Loopback, llm: LLM) -> None:
        assert outcome(llm.events(HALF + "\ude00")).error is None
        assert provider.requests[0].messages[0]["content"] == "😀"

    def test_in_an_input(self, provider: Loopback, llm: LLM) -> None:
        assert played(solo(llm, description="About {topic}."), {"topic": "\udcff"}).error is None
        assert "About �." in provider.requests[0].messages[-1]["content"]

    @pytest.mark.parametrize("result", [f"a{HALF}b", ValueError(f"a{HALF}b")], ids=["text", "error"])
    @pytest.mark.parametrize("native", [True, False], ids=["native", "in text"])
    def test_in_what_a_tool_says(self, provider: Loopback, result: Any, native: bool) -> None:
        asked = [ToolCall("say", {})] if native else []
        provider.script(
            Reply(text="" if native else '```tool_call\n{"name": "say"}\n```', tool_calls=asked), Reply(text="Fine")
        )
        llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0, function_calling=native)
        seen = played(solo(llm, tools=[saying(result)]))
        assert (seen.text.endswith("Fine"), seen.error) == (True, None)
        assert "a�b" in provider.requests[1].messages[-1]["content"]

    def test_the_messages_that_were_given_stay_as_they_are(self, llm: LLM) -> None:
        given = [{"role": "user", "content": HALF}]
        assert outcome(llm.events(given)).error is None
        assert given == [{"role": "user", "content": HALF}]


@dataclass
class Part:
    name: str
    body: bytes


class Whole(BaseModel):
    part: Part
    body: bytes = b"\xff"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class TestFramesOfAnything:
    @pytest.mark.parametrize(
        ("result", "sent"),
        [
            (f"a{HALF}b", "a�b"),
            (b"a\xffb", "a�b"),
            ({"é": [b"\xff", 1, None]}, {"é": ["�", 1, None]}),
            ({HALF: 1}, {"�": 1}),
            (Whole(part=Part(HALF, b"\xff")), {"part": {"name": "�", "body": "�"}, "body": "�"}),
            ([Part, b"\xff"], ["<class 'tests.reliability.test_hostile_content.Part'>", "�"]),
            ({b"\xff"}, r"{b'\xff'}"),
            (CYCLE, "[[...]]"),
            ({("a", 1): HALF}, "{('a', 1): '\\ud83d'}"),
            (Mute(), {"type": "Mute", "message": "<Mute that cannot be shown: its __str__ raised RuntimeError>"}),
        ],
        ids=[
            "a half",
            "bytes",
            "bytes within",
            "a name",
            "a model",
            "a class",
            "a set",
            "a cycle",
            "odd names",
            "an odd error",
        ],
    )
    def test_can_be_sent_on(self, result: Any, sent: Any) -> None:
        class Giving(Flow):
            @start()
            def give(self) -> Any:
                return result

        with Giving().stream_events() as session:
            frames = [json.loads(frame.model_dump_json()) for frame in session]
        (given,) = [frame["data"]["result"] for frame in frames if frame["type"] == "method_execution_finished"]
        assert given == sent

    def test_so_can_those_of_a_tools_result_and_of_what_follows_from_it(self) -> None:
        class Working(Flow):
            @start()
            def work(self) -> str:
                return str(solo(Scripted(calls(("say", {})), "Fine"), tools=[saying(f"a{HALF}b")]).kickoff())

        with Working().stream_events() as session:
            types = [json.loads(frame.model_dump_json())["type"] for frame in session]
        assert "tool_usage_finished" in types


class TestAToolsErrorThatCannotBeShown:
    def test_is_told_to_the_model_and_the_run_goes_on(self) -> None:
        model = Scripted(calls(("say", {})), "Sorry")
        seen = played(solo(model, tools=[saying(Mute())]))
        assert (seen.text, seen.error) == ("Sorry", None)
        assert type(seen.one(ToolFailed).error) is Mute
        assert model.conversations[1][-1]["content"] == (
            "Error: say raised Mute: <Mute that cannot be shown: its __str__ raised RuntimeError>"
        )
