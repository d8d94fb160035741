"""A person at the terminal reviews the answer, and has the last word."""

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import json
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished, Retracted, TaskRejected
from tests.team import played, solo
from tests.scripted import Scripted

model = Scripted("First answer", "Second answer", "Third answer")
rejected = iter([True, False, False])
crew = solo(
    model,
    human_input=True,
    description="About {topic}",
    guardrail=lambda output: (not FLAWED or not next(rejected), output),
)
seen = played(crew, {"topic": "terns"})
(task,) = crew.tasks
(output,) = seen.one(CrewFinished).result.tasks_output
print()
print(json.dumps({
    "raw": output.raw,
    "kept": task.output.raw,
    "description": output.description,
    "summary": output.summary,
    "asked": model.requests[-1].last_user_text,
    "chunks": [[chunk.content, chunk.attempt] for chunk in seen.of(StreamChunk)],
    "shown": [
        chunk.content for chunk in seen.of(StreamChunk) if not any(each.covers(chunk) for each in seen.of(Retracted))
    ],
    "reasons": [each.reason for each in seen.of(TaskRejected)],
    "retracted": [list(each.attempts) for each in seen.of(Retracted)],
    "retry_count": task.retry_count,
}))
"""


def reviewed(typed: str, *, flawed: bool = False) -> tuple[dict[str, Any], str]:
    """What the program reports when this is typed, and what it shows. ``flawed``: a guardrail rejects one answer."""
    command = [sys.executable, "-c", f"FLAWED = {flawed}\n{PROGRAM}"]
    ran = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=25, check=False)
    assert ran.returncode == 0, ran.stderr
    shown, _, last = ran.stdout.rstrip().rpartition("\n")
    return json.loads(last), shown


def test_feedback_is_given_to_the_model_until_there_is_none() -> None:
    said, shown = reviewed("Shorter, please\n\n")
    assert said["raw"] == said["kept"] == "Second answer"
    assert (said["description"], said["summary"]) == ("About terns", "About terns...")
    assert "Shorter, please" in said["asked"]
    assert "First answer" in said["asked"]
    assert "First answer" in shown
    assert "Second answer" in shown


def test_without_feedback_the_answer_stands() -> None:
    said, shown = reviewed("\n")
    assert said["raw"] == "First answer"
    assert "Second answer" not in shown
    assert said["retracted"] == []


def test_each_draft_is_an_attempt_of_its_own_and_is_taken_back() -> None:
    said, _ = reviewed("Shorter\nLonger\n\n")
    assert said["chunks"] == [["First", 0], [" answer", 0], ["Second", 1], [" answer", 1], ["Third", 2], [" answer", 2]]
    assert said["shown"] == ["Third", " answer"]
    assert said["reasons"] == ["Shorter", "Longer"]
    assert said["retracted"] == [[0], [1]]
    assert said["retry_count"] == 0


def test_attempts_are_counted_on_behind_those_of_a_guardrail() -> None:
    said, _ = reviewed("Shorter\n\n", flawed=True)
    assert [attempt for _, attempt in said["chunks"]] == [0, 0, 1, 1, 2, 2]
    assert said["shown"] == ["Third", " answer"]
    assert said["retracted"] == [[0], [1]]
    assert said["retry_count"] == 1
