"""A person at the terminal reviews the answer, and has the last word."""

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import json
from tests.team import solo
from tests.scripted import Scripted

model = Scripted("First answer", "Second answer")
output = solo(model, human_input=True, description="About {topic}").kickoff({"topic": "terns"}).tasks_output[0]
print()
print(json.dumps([output.raw, output.description, output.summary, model.requests[-1].last_user_text]))
"""


def reviewed(typed: str) -> tuple[list[Any], str]:
    """What the program gives back when this is typed, and what it shows."""
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=25, check=False)
    assert ran.returncode == 0, ran.stderr
    shown, _, last = ran.stdout.rstrip().rpartition("\n")
    return json.loads(last), shown


def test_feedback_is_given_to_the_model_until_there_is_none() -> None:
    (raw, description, summary, asked), shown = reviewed("Shorter, please\n\n")
    assert raw == "Second answer"
    assert (description, summary) == ("About terns", "About terns...")
    assert "Shorter, please" in asked
    assert "First answer" in asked
    assert "First answer" in shown
    assert "Second answer" in shown


def test_without_feedback_the_answer_stands() -> None:
    (raw, *_), shown = reviewed("\n")
    assert raw == "First answer"
    assert "Second answer" not in shown
