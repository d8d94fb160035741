"""Placeholders are filled from the inputs, each once; what is missing is said before anything runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rxflow import Crew, Process
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewStarted
from tests.scripted import Scripted
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, played, prompt, solo


def test_inputs_fill_the_task_and_the_agent() -> None:
    model = Scripted("Done")
    agent = an_agent(model)
    agent.role, agent.goal, agent.backstory = "{topic} expert", "Know {topic}", "Loves {topic}"
    task = a_task(agent, "Write about {topic}")
    task.expected_output = "{count} words"
    result = a_crew(task).kickoff({"topic": "terns", "count": 5})
    system, user = model.conversations[0]
    assert system["content"] == "You are terns expert. Loves terns\nYour goal: Know terns"
    assert user["content"] == "Write about terns\n\nExpected of your answer: 5 words"
    output = result.tasks_output[0]
    assert (output.description, output.expected_output, output.agent) == (
        "Write about terns",
        "5 words",
        "terns expert",
    )


def test_the_task_and_the_agent_themselves_stay_as_they_are() -> None:
    crew = solo(Scripted("Done"), description="Write about {topic}")
    for topic in ("terns", "gulls"):
        assert crew.kickoff({"topic": topic}).tasks_output[0].description == f"Write about {topic}"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{a}{a}", "{b}{b}"),
        ("{a-b} {_x} {x1}", "dash under digit"),
        ("{ a } {} {1} {a.b} {a!r} {a:>5} {ä}", "{ a } {} {1} {a.b} {a!r} {a:>5} {ä}"),
        ('{"key": "{b}"}', '{"key": "never expanded: {a}"}'),
        ("{{b}}", "{never expanded: {a}}"),
        ("%s $b {", "%s $b {"),
    ],
)
def test_only_placeholders_are_filled_and_each_once(text: str, filled: str) -> None:
    inputs = {"a": "{b}", "b": "never expanded: {a}", "a-b": "dash", "_x": "under", "x1": "digit"}
    assert solo(Scripted("Done"), description=text).kickoff(inputs).tasks_output[0].description == filled


@settings(deadline=None, max_examples=30)
@given(st.text("{}ab -", max_size=20))
def test_a_value_is_never_expanded(value: str) -> None:
    model = Scripted("Done")
    solo(model, description="<{a}|{b}>").kickoff({"a": value, "b": "{a}"})
    assert prompt(model).startswith(f"<{value}|{{a}}>")


def test_without_inputs_the_text_stays_literal() -> None:
    model = Scripted("Done")
    solo(model, description="Write about {topic}").kickoff()
    assert prompt(model).startswith("Write about {topic}\n")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"description": "About {topic}"}, r"task 0 .* description needs the input 'topic', which is missing"),
        ({"expected_output": "{topic}"}, r"task 0 .* expected_output needs the input 'topic'"),
        ({"output_file": "{topic}.md"}, r"task 0 .* output_file needs the input 'topic'"),
    ],
)
@pytest.mark.parametrize("inputs", [{}, {"other": 1}])
def test_a_missing_input_of_a_task_is_named_before_anything_runs(
    fields: dict[str, str], said: str, inputs: dict[str, Any]
) -> None:
    model = Scripted("Done")
    task = a_task(an_agent(model)).model_copy(update=fields)
    crew = a_crew(task)
    with pytest.raises(ValueError, match=said):
        crew.kickoff(inputs)
    with pytest.raises(ValueError, match=said):
        crew.observe(inputs)
    assert model.requests == []


@pytest.mark.parametrize("field", ["role", "goal", "backstory"])
def test_a_missing_input_of_an_agent_is_named(field: str) -> None:
    agent = an_agent(Scripted("Done")).model_copy(update={field: "About {topic}"})
    with pytest.raises(ValueError, match=rf"agent .* {field} needs the input 'topic'"):
        a_crew(a_task(agent)).kickoff({})


def test_a_missing_input_of_the_second_task_is_named_before_the_first_runs() -> None:
    model = Scripted("Done")
    agent = an_agent(model)
    with pytest.raises(ValueError, match=r"task 1 .* needs the input 'topic'"):
        a_crew(a_task(agent), a_task(agent, "About {topic}")).kickoff({})
    assert model.requests == []


def test_a_callback_before_the_kickoff_may_bring_what_is_missing() -> None:
    model = Scripted("Done")

    def add(inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs | {"topic": "terns"}

    solo(model, description="About {topic}", crew={"before_kickoff_callbacks": [add]}).kickoff({})
    assert prompt(model).startswith("About terns")


def test_what_is_missing_after_the_callbacks_is_named_before_anything_runs() -> None:
    model = Scripted("Done")
    heard: list[Any] = []
    crew = solo(model, description="About {topic}", crew={"before_kickoff_callbacks": [heard.append]})
    with pytest.raises(ValueError, match="needs the input 'topic'"):
        crew.kickoff({})
    assert heard == [{}]
    assert model.requests == []


def test_what_a_callback_does_to_the_inputs_stays_in_its_run() -> None:
    def count(inputs: dict[str, Any]) -> None:
        inputs["n"] += 1

    model = Scripted("Done")
    mine = {"n": 0}
    events = solo(model, description="n={n}", crew={"before_kickoff_callbacks": [count]}).events(mine)
    started = [outcome(events).one(CrewStarted) for _ in range(2)]
    assert [prompt(model, number).split()[0] for number in range(2)] == ["n=1", "n=1"]
    assert mine == {"n": 0}
    assert [each.inputs for each in started] == [{"n": 0}, {"n": 0}]


def test_what_a_callback_does_to_a_list_in_the_inputs_stays_in_its_run() -> None:
    def add(inputs: dict[str, Any]) -> None:
        inputs["tags"].append("new")

    model = Scripted("Done")
    mine: dict[str, Any] = {"tags": []}
    events = solo(model, description="tags={tags}", crew={"before_kickoff_callbacks": [add]}).events(mine)
    started = [outcome(events).one(CrewStarted) for _ in range(2)]
    assert [prompt(model, number).split()[0] for number in range(2)] == ["tags=['new']", "tags=['new']"]
    assert mine == {"tags": []}
    assert [each.inputs for each in started] == [{"tags": []}, {"tags": []}]


def test_what_becomes_of_the_inputs_after_the_kickoff_does_not_reach_the_run() -> None:
    model = Scripted("Done")
    mine: dict[str, Any] = {"topic": "terns", "places": ["sea"]}
    events = solo(model, description="About {topic} at {places}").events(mine)
    mine.pop("places").append("lake")
    mine.clear()
    outcome(events)
    assert prompt(model).startswith("About terns at ['sea']")


def test_a_callback_gets_a_dict_also_where_there_are_no_inputs() -> None:
    def add(inputs: dict[str, Any]) -> None:
        inputs["topic"] = "terns"

    model = Scripted("Done")
    solo(model, description="About {topic}", crew={"before_kickoff_callbacks": [add]}).kickoff()
    assert prompt(model).startswith("About terns")


def test_a_callback_that_adds_nothing_to_no_inputs_leaves_the_text_literal() -> None:
    model = Scripted("Done")
    heard: list[Any] = []
    solo(model, description="About {topic}", crew={"before_kickoff_callbacks": [heard.append]}).kickoff()
    assert heard == [{}]
    assert prompt(model).startswith("About {topic}")


@pytest.mark.parametrize("inputs", ["topic", ["topic"], 5])
def test_inputs_that_are_no_mapping_are_refused(inputs: Any) -> None:
    model = Scripted("Done")
    for crew in (solo(model), solo(model, crew={"before_kickoff_callbacks": [print]})):
        with pytest.raises(TypeError, match="inputs are a mapping of names to values"):
            crew.kickoff(inputs)
        with pytest.raises(TypeError, match="inputs are a mapping of names to values"):
            crew.kickoff_for_each([{}, inputs])
    assert model.requests == []


def test_a_callback_that_gives_no_inputs_is_named() -> None:
    def wrong(inputs: dict[str, Any]) -> Any:
        return "terns"

    with pytest.raises(TypeError, match=r"the before_kickoff callback wrong must return the inputs.*'terns'"):
        solo(Scripted("Done"), crew={"before_kickoff_callbacks": [wrong]}).kickoff({})


def test_the_chunks_have_the_filled_labels() -> None:
    agent = an_agent(Scripted("Done"), role="{topic} expert")
    (chunk,) = played(a_crew(a_task(agent, "About {topic}")), {"topic": "terns"}).of(StreamChunk)
    assert (chunk.task_name, chunk.agent_role) == ("About terns", "terns expert")


class TestTheOutputFile:
    def test_it_is_written_with_its_folders_and_its_placeholders_filled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        solo(Scripted("Grüße"), output_file="out/{topic}/text.md").kickoff({"topic": "terns"})
        assert (tmp_path / "out" / "terns" / "text.md").read_text(encoding="utf-8") == "Grüße"

    def test_it_may_be_anywhere_that_the_program_says(self, tmp_path: Path) -> None:
        solo(Scripted("Done"), output_file=str(tmp_path / "a" / ".." / "text.md")).kickoff()
        assert (tmp_path / "text.md").read_text() == "Done"

    @pytest.mark.parametrize(
        ("path", "what"),
        [
            ("~/notes.md", "'~'"),
            ("~", "'~'"),
            ("~ada/notes.md", "'~ada'"),
            ("$HOME/notes.md", "'$HOME'"),
            ("${HOME}/notes.md", "'${HOME}'"),
            ("out/$DAY/notes.md", "'$DAY'"),
        ],
    )
    def test_a_path_that_only_a_shell_expands_is_refused_when_the_task_is_built(self, path: str, what: str) -> None:
        with pytest.raises(
            ValueError, match=re.escape(f"output_file {path!r}: {what} is not expanded, because only a shell")
        ):
            a_task(an_agent(Scripted("Done")), output_file=path)

    @pytest.mark.parametrize("path", [".", "..", "new/..", "new/.", "out/", "/", "a\0b"])
    def test_what_is_not_the_name_of_a_file_is_refused_when_the_task_is_built(self, path: str) -> None:
        with pytest.raises(ValueError, match="does not name a file"):
            a_task(an_agent(Scripted("Done")), output_file=path)

    @pytest.mark.parametrize("value", ["", ".", "new/", "new/.", "./"])
    def test_an_input_that_names_no_file_is_refused_before_anything_runs(
        self, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        model = Scripted("Done")
        with pytest.raises(ValueError, match=f"output_file: 'out/{re.escape(value)}' does not name a file"):
            solo(model, output_file="out/{topic}").kickoff({"topic": value})
        assert (model.requests, list(tmp_path.iterdir())) == ([], [])

    @pytest.mark.parametrize(("path", "inputs"), [("out", {}), ("{topic}", {"topic": "out"})])
    def test_a_folder_is_refused_before_anything_runs(
        self, path: str, inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "out").mkdir()
        model = Scripted("Done")
        with pytest.raises(ValueError, match="output_file: 'out' is a folder"):
            solo(model, output_file=path).kickoff(inputs)
        assert model.requests == []

    @pytest.mark.parametrize("path", ["a~b/c~.md", "price in $.md", "5$/a.md", "./~/a.md", "US$/$5.md"])
    def test_other_names_with_these_characters_are_fine(
        self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        solo(Scripted("Done"), output_file=path).kickoff()
        assert (tmp_path / path).read_text() == "Done"

    @pytest.mark.parametrize("value", ["~/a", "~", "$HOME/a"])
    def test_an_input_does_not_bring_one_in(self, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        model = Scripted("Done")
        with pytest.raises(ValueError, match="is not expanded, because only a shell"):
            solo(model, output_file="{topic}/text.md").kickoff({"topic": value})
        assert (model.requests, list(tmp_path.iterdir())) == ([], [])
        solo(model, output_file="out/{topic}.md").kickoff({"topic": "$AAPL rises"})
        assert (tmp_path / "out" / "$AAPL rises.md").exists()

    @pytest.mark.parametrize(
        ("path", "inputs"),
        [
            ("out/{a}", {"a": "../text.md"}),
            ("out/{a}", {"a": ".."}),
            ("out/{a}/text.md", {"a": "b/../../.."}),
            ("out/{a}", {"a": "/etc/text.md"}),
            ("{a}", {"a": "/etc/text.md"}),
            ("out/{a}", {"a": "te\0xt"}),
            ("out/{a}{b}/text.md", {"a": ".", "b": "."}),
            ("out/.{a}/text.md", {"a": "."}),
            ("{a}/text.md", {"a": ""}),
            ("{a}{b}", {"a": "", "b": "/text.md"}),
        ],
    )
    def test_an_input_cannot_lead_out_of_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, inputs: dict[str, Any]
    ) -> None:
        inside = tmp_path / "inside"
        inside.mkdir()
        monkeypatch.chdir(inside)
        model = Scripted("Done")
        with pytest.raises(ValueError, match="would lead out of its folder"):
            solo(model, output_file=path).kickoff(inputs)
        assert model.requests == []
        assert list(tmp_path.rglob("*")) == [inside]


def test_a_crew_says_which_inputs_its_texts_ask_for() -> None:
    agent = an_agent(Scripted("Done"), "{rank} writer")
    crew = a_crew(
        a_task(agent, "About {topic} and {topic}", output_file="notes/{name}.md"), a_task(agent, "Of {1} {x y}")
    )
    assert crew.fetch_inputs() == {"rank", "topic", "name"}
    beside = Crew(agents=[], tasks=[a_task(an_agent(Scripted("Done"), "{rank} writer"), "About {topic}")])
    assert beside.fetch_inputs() == {"rank", "topic"}
    manager = an_agent(Scripted("Done"), "{mood} manager")
    managed = Crew(agents=[agent], tasks=[a_task(None)], process=Process.hierarchical, manager_agent=manager)
    assert managed.fetch_inputs() == {"rank", "mood"}
    assert a_crew(a_task(an_agent(Scripted("Done")))).fetch_inputs() == set()
