"""One assignment carried out: the agent's answer, judged, sent back where it must be, and handed on."""

from __future__ import annotations

from dataclasses import replace

from reactivex import Observable

from rxflow.crew.assignment import Assignment
from rxflow.crew.guardrails import GuardrailError, Rejected, judge, read_answer
from rxflow.crew.time_limit import TimeLimit
from rxflow.crew.turns import Conversation, answer
from rxflow.streaming.bridge import announcing, from_coroutine
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.kickoff import Last
from rxflow.streaming.scope import Scope
from rxflow.types.events import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    Event,
    TaskFailed,
    TaskFinished,
    TaskRejected,
    TaskStarted,
)
from rxflow.types.results import TaskOutput


def carry_out(scope: Scope, assignment: Assignment) -> Observable[Event]:
    """The events of one assignment, :class:`TaskFinished` last."""
    labelled = scope.within(
        assignment.title,
        task_index=assignment.index,
        task_name=assignment.title,
        task_id=assignment.task_id,
        agent_role=assignment.persona.role,
        agent_id=assignment.persona.agent.id,
    )

    async def work(emitter: Emitter) -> None:
        emitter.on_next(TaskStarted(origin=emitter.origin, description=assignment.description))
        with announcing(emitter, TaskFailed):
            output = await _accepted(emitter, assignment)
            if assignment.human_input:
                output = await _reviewed(emitter, assignment, output)
            if assignment.output_file is not None:
                await emitter.invoke(assignment.output_file.write, _written(output))
            for callback in assignment.callbacks:
                await emitter.invoke(callback, output)
        emitter.on_next(TaskFinished(origin=emitter.origin, result=output))

    return from_coroutine(labelled, work)


async def _accepted(emitter: Emitter, assignment: Assignment) -> TaskOutput:
    """The first answer that all guardrails accept."""
    conversation = Conversation(assignment, assignment.messages())
    time_limit = TimeLimit(assignment)
    attempt = 0
    while True:
        raw = await _answered(emitter, conversation, time_limit, attempt)
        try:
            async with time_limit.held():
                output = await judge(emitter, assignment, read_answer(assignment, raw))
        except Rejected as rejected:
            if attempt >= assignment.guardrail_max_retries:
                raise GuardrailError(
                    f"task {assignment.title!r} {rejected.outcome} after {attempt} retries; the last reason: {rejected}"
                ) from rejected
            attempt += 1
            emitter.on_next(TaskRejected(origin=emitter.origin, reason=str(rejected)))
            conversation.send_back(raw, str(rejected))
        else:
            output.messages = [*conversation.messages, {"role": "assistant", "content": raw}]
            return output


async def _answered(emitter: Emitter, conversation: Conversation, time_limit: TimeLimit, attempt: int) -> str:
    """One attempt, as a leaf of its own so that its chunks say which attempt they are."""
    last = Last(AgentFinished)

    async def work(agent: Emitter) -> None:
        agent.on_next(AgentStarted(origin=agent.origin))
        with announcing(agent, AgentFailed):
            async with time_limit.held():  # in here, so that the stream hears of it as the agent's failure
                text = await answer(agent, conversation)
        agent.on_next(AgentFinished(origin=agent.origin, result=text))

    await emitter.forward(from_coroutine(emitter.scope.within(attempt=attempt), work), last.tap)
    return last.event.result


async def _reviewed(emitter: Emitter, assignment: Assignment, output: TaskOutput) -> TaskOutput:
    """Show the answer to the person at the terminal until they have nothing to add."""
    while True:
        question = f"\n{output.raw}\n\nFeedback on this answer (Enter accepts it): "
        feedback = str(await emitter.invoke(input, question)).strip()
        if not feedback:
            return output
        asked = f"{assignment.description}\n\nYour earlier answer:\n{output.raw}\n\nFeedback on it: {feedback}"
        improved = await _accepted(emitter, replace(assignment, description=asked))
        output = improved.model_copy(update={"description": output.description, "summary": output.summary})


def _written(output: TaskOutput) -> str:
    """The answer as a file holds it."""
    if output.pydantic is not None:
        return output.pydantic.model_dump_json(indent=2)
    return output.raw if output.json_dict is None else output.json
