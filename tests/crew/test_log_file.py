"""``Crew(output_log_file=…)``: each task says in a file when it starts and when it is completed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rxflow.types.events import TaskFailed
from tests.scripted import Scripted
from tests.team import a_crew, a_task, an_agent, played, solo

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def read(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def test_a_text_has_a_line_for_each_start_and_each_answer(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "crew.txt"
    solo(Scripted("Terns é"), crew={"output_log_file": str(file)}, name="birds", description="On {x}").kickoff({"x": 1})
    started, completed = file.read_text(encoding="utf-8").splitlines()
    about = 'task_name="birds", task="On 1", agent="Writer"'
    assert re.fullmatch(f'{TIME}: {re.escape(about)}, status="started"', started)
    assert re.fullmatch(f'{TIME}: {re.escape(about)}, status="completed", output="Terns é"', completed)


def test_an_entry_is_one_line_whatever_the_answer_is(tmp_path: Path) -> None:
    file = tmp_path / "crew.txt"
    answer = 'Said "tern",\r\nthen\\n é\u2028'
    solo(Scripted([answer]), crew={"output_log_file": str(file)}).kickoff()
    with file.open(encoding="utf-8") as lines:
        started, completed = lines
    assert started.rstrip().endswith(': task_name="", task="Write", agent="Writer", status="started"')
    assert json.loads(completed.partition("output=")[2]) == answer
    assert "é" in completed


def test_json_holds_a_list_that_later_runs_go_on_with(tmp_path: Path) -> None:
    file = tmp_path / "crew.json"
    for answer in ("One", "Two"):
        solo(Scripted(answer), crew={"output_log_file": str(file)}).kickoff()
    assert [(entry["status"], entry.get("output")) for entry in read(file)] == [
        ("started", None),
        ("completed", "One"),
        ("started", None),
        ("completed", "Two"),
    ]
    assert re.fullmatch(TIME, read(file)[0]["timestamp"])


@pytest.mark.parametrize(("option", "name"), [(True, "logs.txt"), ("crew", "crew.txt"), ("crew.log", "crew.log.txt")])
def test_a_name_without_an_ending_gets_one(
    option: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    solo(Scripted("Done"), crew={"output_log_file": option}).kickoff()
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("option", [None, False, ""])
def test_without_it_nothing_is_written(option: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    solo(Scripted("Done"), crew={"output_log_file": option}).kickoff()
    assert not list(tmp_path.iterdir())


def test_tasks_that_run_at_once_lose_no_entry(tmp_path: Path) -> None:
    file = tmp_path / "crew.json"
    names = [f"task {number}" for number in range(12)]
    beside = [a_task(an_agent(Scripted("Done")), name=name, async_execution=True) for name in names]
    a_crew(*beside, a_task(an_agent(Scripted("Done")), name="last"), output_log_file=str(file)).kickoff()
    assert sorted((entry["task_name"], entry["status"]) for entry in read(file)) == sorted(
        (name, status) for name in [*names, "last"] for status in ("started", "completed")
    )


def test_a_task_that_fails_is_not_completed(tmp_path: Path) -> None:
    file = tmp_path / "crew.json"
    told = played(solo(Scripted(ValueError("no")), crew={"output_log_file": str(file)}))
    assert isinstance(told.error, ValueError)
    assert [entry["status"] for entry in read(file)] == ["started"]


@pytest.mark.parametrize("text", ["not JSON", '{"a": 1}'])
def test_a_file_with_something_else_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "crew.json"
    file.write_text(text)
    told = played(solo(Scripted("Done"), crew={"output_log_file": str(file)}))
    assert len(told.of(TaskFailed)) == 1
    assert "name another file" in str(told.error)
    assert file.read_text() == text
