"""A person reviews the answer, and has the last word."""

from collections.abc import Iterator
from typing import Any

import pytest

from rxflow import operators as ops
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewCancelled, CrewFinished, FlowPaused, InputRequested, Retracted, TaskRejected
from tests.scripted import Scripted
from tests.signals import Outcome, outcome
from tests.team import solo


class Reviewed:
    """One run of a task whose answer is reviewed with these words, the last of which accept it."""

    def __init__(self, *words: str, flawed: bool = False) -> None:
        self.model = Scripted("First answer", "Second answer", "Third answer")
        rejected = iter([True, False, False] if flawed else [False] * 3)

        def check(output: Any) -> tuple[bool, Any]:
            return not next(rejected), output

        self.crew = solo(
            self.model,
            human_input=True,
            description="About {topic}",
            guardrail=check,
        )
        self.said: Iterator[str] = iter(words)
        self.shown: list[Any] = []
        self.seen: Outcome = outcome(self.crew.events({"topic": "terns"}).pipe(ops.answer_with(self.answer)))

    def answer(self, request: InputRequested) -> str:
        self.shown.append(request.arguments["output"])
        return next(self.said)

    @property
    def chunks(self) -> list[tuple[str, int]]:
        return [(chunk.content, chunk.attempt) for chunk in self.seen.of(StreamChunk)]

    @property
    def left(self) -> list[str]:
        taken_back = self.seen.of(Retracted)
        return [
            chunk.content for chunk in self.seen.of(StreamChunk) if not any(each.covers(chunk) for each in taken_back)
        ]


def test_feedback_is_given_to_the_model_until_there_is_none() -> None:
    review = Reviewed("Shorter, please", "")
    (output,) = review.seen.one(CrewFinished).result.tasks_output
    (task,) = review.crew.tasks
    assert output.raw == "Second answer"
    assert task.output is not None
    assert task.output.raw == "Second answer"
    assert (output.description, output.summary) == ("About terns", "About terns...")
    asked = review.model.requests[-1].last_user_text
    assert "Shorter, please" in asked
    assert "First answer" in asked
    assert review.shown == ["First answer", "Second answer"]


def test_without_feedback_the_answer_stands() -> None:
    review = Reviewed("")
    assert review.seen.one(CrewFinished).result.raw == "First answer"
    assert review.shown == ["First answer"]
    assert review.seen.of(Retracted) == []


def test_each_draft_is_an_attempt_of_its_own_and_is_taken_back() -> None:
    review = Reviewed("Shorter", "Longer", "")
    assert review.chunks == [("First", 0), (" answer", 0), ("Second", 1), (" answer", 1), ("Third", 2), (" answer", 2)]
    assert review.left == ["Third", " answer"]
    assert [each.reason for each in review.seen.of(TaskRejected)] == ["Shorter", "Longer"]
    assert [each.attempts for each in review.seen.of(Retracted)] == [(0,), (1,)]
    assert review.crew.tasks[0].retry_count == 0


def test_attempts_are_counted_on_behind_those_of_a_guardrail() -> None:
    review = Reviewed("Shorter", "", flawed=True)
    assert [attempt for _, attempt in review.chunks] == [0, 0, 1, 1, 2, 2]
    assert review.left == ["Third", " answer"]
    assert [each.attempts for each in review.seen.of(Retracted)] == [(0,), (1,)]
    assert review.crew.tasks[0].retry_count == 1


@pytest.mark.parametrize("runs", ["the crew", "the agent"])
def test_a_crew_or_an_agent_alone_is_paused_if_nobody_reviews(runs: str) -> None:
    crew = solo(Scripted("First answer"), human_input=True)
    (task,) = crew.tasks
    seen = outcome(crew.events() if runs == "the crew" else crew.agents[0].events(task))
    assert seen.error is None
    (request,) = seen.items[-1].pending
    assert isinstance(seen.items[-1], FlowPaused)
    assert (request.kind, request.arguments) == ("feedback", {"output": "First answer"})
    assert bool(seen.of(CrewCancelled)) is (runs == "the crew")
