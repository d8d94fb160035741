"""Carries out one assignment: the agent answers, and the answer is judged. After a rejection, the agent tries again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

from pydantic import BaseModel, ValidationError
from reactivex import Observable

from rxflow._loops import call_soon, running_loop
from rxflow._streaming import Answerer, Emitter, Last, Question, Scope, announce_failure, ask, from_coroutine, stopping
from rxflow._text import list_problems, read_json
from rxflow.crew._assignment import Assignment, wait_for_all
from rxflow.crew._guardrails import Guardrail, GuardrailError, Rejected, Verdict, name_of, read_verdict
from rxflow.crew._tool_use import ToolCache
from rxflow.crew._turns import Conversation, answer
from rxflow.llm.source import response_format_for
from rxflow.tools import as_text
from rxflow.types import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    Event,
    InputRequested,
    OutputFormat,
    Retracted,
    TaskFailed,
    TaskFinished,
    TaskOutput,
    TaskRejected,
    TaskStarted,
)


def carry_out(scope: Scope, assignment: Assignment) -> Observable[Event]:
    """Return a cold Observable of the events of one assignment. If it completes, the last event is TaskFinished."""
    labelled = scope.within(
        assignment.title,
        task_index=assignment.index,
        task_name=assignment.title,
        task_id=assignment.task_id,
        agent_role=assignment.persona.role,
        agent_id=assignment.persona.agent.id,
    )

    time_limit = _TimeLimit(assignment, scope.run.loop)

    async def work(emitter: Emitter) -> None:
        emitter.on_next(TaskStarted(origin=emitter.origin, description=assignment.description))
        with announce_failure(emitter, TaskFailed):
            await _log(emitter, assignment, "started")
            output = await _TaskRun(emitter, assignment, time_limit).result()
            if assignment.output_file is not None:
                await emitter.invoke(assignment.output_file.write, _file_text(output))
            await _log(emitter, assignment, "completed", output=output.raw)
            for callback in assignment.callbacks:
                await emitter.invoke(callback, output)
        emitter.on_next(TaskFinished(origin=emitter.origin, result=output))

    return from_coroutine(labelled.with_answerer(time_limit) if time_limit.is_set else labelled, work)


class _TaskRun:
    """Makes attempts until an answer is accepted.

    All attempts are numbered in one series. Each rejection leads to the next number, no matter whether the output type,
    a guardrail or a person rejected the answer.
    """

    def __init__(self, emitter: Emitter, assignment: Assignment, time_limit: _TimeLimit) -> None:
        self._emitter = emitter
        self._assignment = assignment
        self._time_limit = time_limit
        self._cache = (assignment.tool_cache or ToolCache()) if assignment.caches_tools else None
        self._attempt = 0
        self._retries = 0  # how many attempts followed a rejection; rejections by a person do not count
        self._call_spans: list[str] = []  # the span ids of the LLM calls in this attempt
        self._call_ids: list[str] = []

    async def result(self) -> TaskOutput:
        """Return the answer to the task.

        The model's answer fits the output type, and no guardrail rejected it. But a guardrail may have replaced it.
        With ``human_input``, a person has reviewed the answer.
        """
        if self._assignment.keep_start is not None:
            self._assignment.keep_start()
        self._keep_retries(0)
        output = await self._find_accepted(self._assignment)
        if self._assignment.human_input:
            output = await self._review(output)
        if self._assignment.keep_output is not None:
            self._assignment.keep_output(output)
        return output

    async def _find_accepted(self, assignment: Assignment) -> TaskOutput:
        """Return the first answer that neither the output type nor a guardrail rejects. A guardrail may replace it.

        Raises:
            GuardrailError: the first answer was rejected, and then the answer of each of the
                ``guardrail_max_retries`` retries.
        """
        conversation = Conversation(assignment, assignment.messages(), self._cache, self._call_spans, self._call_ids)
        self._time_limit.begin()
        retries = 0
        while True:
            raw = await self._answer(conversation)
            try:
                async with self._time_limit.enforce():
                    output = await _judge(self._emitter, assignment, _read_answer(assignment, raw))
            except Rejected as rejected:
                if retries >= assignment.guardrail_max_retries:
                    raise GuardrailError(
                        f"task {assignment.title!r} {rejected.outcome} after {retries} retries; "
                        f"the last reason: {rejected}"
                    ) from rejected
                retries += 1
                self._keep_retries(self._retries + 1)
                self._retract(rejected)
                conversation.send_back(str(rejected))
            else:
                output.messages = [*conversation.messages, {"role": "assistant", "content": raw}]
                return output

    async def _review(self, output: TaskOutput) -> TaskOutput:
        """Show the answer to a person, and improve it until the person has no more feedback. Return the last answer."""
        description = self._assignment.description
        while True:
            question = Question(
                kind="feedback", message="Feedback on this answer", answer=str, arguments={"output": output.raw}
            )
            feedback = (await ask(self._emitter, question) or "").strip()
            if not feedback:
                return output
            self._retract(Rejected(feedback))
            asked = f"{description}\n\nYour earlier answer:\n{output.raw}\n\nFeedback on it: {feedback}"
            improved = await self._find_accepted(replace(self._assignment, description=asked))
            output = improved.model_copy(update={"description": output.description, "summary": output.summary})

    async def _answer(self, conversation: Conversation) -> str:
        """Make one attempt, and return the text of the answer.

        Each attempt is a leaf of its own, so that the chunks have the number of the attempt.
        """
        last = Last(AgentFinished)

        async def work(agent: Emitter) -> None:
            agent.on_next(AgentStarted(origin=agent.origin))
            with announce_failure(agent, AgentFailed):
                # inside announce_failure, so that the time-out appears as the agent's failure
                async with self._time_limit.enforce():
                    text = await answer(agent, conversation)
            agent.on_next(AgentFinished(origin=agent.origin, result=text))

        scope = self._emitter.scope.within(attempt=self._attempt)
        await self._emitter.forward(from_coroutine(scope, work), last.tap)
        return last.event.result

    def _retract(self, rejected: Rejected) -> None:
        """Retract the output of this attempt. Later output belongs to the next attempt."""
        origin = self._emitter.origin
        self._emitter.on_next(TaskRejected(origin=origin, reason=str(rejected)))
        self._emitter.on_next(
            Retracted(
                origin=origin,
                attempts=(self._attempt,),
                error=rejected,
                span_ids=tuple(self._call_spans),
                llm_call_ids=tuple(self._call_ids),
            )
        )
        self._attempt += 1
        self._call_spans.clear()
        self._call_ids.clear()

    def _keep_retries(self, retries: int) -> None:
        self._retries = retries
        if self._assignment.keep_retries is not None:
            self._assignment.keep_retries(retries)


class _TimeLimit(Answerer):
    """The time limit of an agent for one task. The limit includes all attempts, and the judging of the answers.

    The time stops while a question is open. This class is an Answerer only to be informed of questions: it never
    answers a question.
    """

    def __init__(self, assignment: Assignment, loop: asyncio.AbstractEventLoop) -> None:
        self._assignment = assignment
        self._seconds = assignment.persona.agent.max_execution_time
        self._loop = loop
        self._left = 0.0  # how many seconds are left while the time is stopped
        self._end: float | None = None  # the deadline on the loop's clock; None if the time is stopped or unlimited
        self._deadline: asyncio.Timeout | None = None
        self._questions: set[str] = set()

    @property
    def is_set(self) -> bool:
        """Whether the agent has a limit."""
        return self._seconds is not None

    def begin(self) -> None:
        """If the agent has a limit, start measuring the time from zero."""
        if self._seconds is not None:
            self._left = self._seconds
            self._go_on()

    def expect(self, request: InputRequested) -> None:
        self._on_loop(lambda: self._stand(request))

    def forget(self, request: InputRequested) -> None:
        self._on_loop(lambda: self._go_on(request))

    def _on_loop(self, do: Callable[[], None]) -> None:
        if running_loop() is self._loop:  # False if a crew on another loop asks, for example inside a tool
            do()
        else:
            call_soon(self._loop, do)

    def _stand(self, request: InputRequested) -> None:
        self._questions.add(request.request_id)
        if self._end is not None:
            self._left = self._end - self._loop.time()
            self._set_end(None)

    def _go_on(self, request: InputRequested | None = None) -> None:
        if request is not None:
            self._questions.discard(request.request_id)
        if not self._questions:
            self._set_end(self._loop.time() + self._left)

    def _set_end(self, end: float | None) -> None:
        self._end = end
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(end)

    @asynccontextmanager
    async def enforce(self) -> AsyncGenerator[None]:
        """Cancel the body of the ``async with`` at the deadline.

        Raises:
            TimeoutError: the deadline has passed. The error message names the agent and the task.
        """
        late = (
            f"agent {self._assignment.persona.role!r} was not done with task {self._assignment.title!r} "
            f"within max_execution_time={self._seconds} seconds"
        )
        self._deadline = deadline = asyncio.timeout_at(self._end)
        try:
            with stopping(late, deadline.expired):
                async with deadline:
                    try:
                        yield
                    finally:
                        self._deadline = None
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimeoutError(late) from error


def _read_answer(assignment: Assignment, raw: str) -> TaskOutput:
    """Return a TaskOutput with the answer ``raw``. Raises :class:`Rejected` if ``raw`` does not fit the output type."""
    output = TaskOutput(
        raw=raw,
        description=assignment.description,
        name=assignment.name,
        expected_output=assignment.expected_output,
        agent=assignment.persona.role,
        output_format=assignment.output_format,
    )
    if assignment.output_model is None:
        return output
    try:
        parsed = read_json(assignment.output_model, raw)
    except ValidationError as error:
        model = assignment.output_model.__name__
        problems = list_problems(error, "answer")
        raise Rejected(f"it does not fit {model}: {problems}", f"gave no answer that fits {model}") from error
    if assignment.output_format is OutputFormat.JSON:
        output.json_dict = parsed.model_dump(mode="json")
    else:
        output.pydantic = parsed
    return output


async def _judge(emitter: Emitter, assignment: Assignment, output: TaskOutput) -> TaskOutput:
    """Let all guardrails judge ``output``, one after the other. Return the output, which guardrails may have replaced.

    Raises :class:`Rejected` if a guardrail does not accept the output.
    """
    for guardrail in assignment.guardrails:
        if isinstance(guardrail, str):
            await _judge_in_words(emitter, assignment, guardrail, output)
            continue
        accepted, value = read_verdict(guardrail, await emitter.invoke(guardrail, output))
        if not accepted:
            raise Rejected(str(value))
        output = _replace_answer(assignment, guardrail, value)
    return output


def _replace_answer(assignment: Assignment, guardrail: Guardrail, value: object) -> TaskOutput:
    """Return the output for ``value``, which a guardrail returned when it accepted the answer.

    Raises:
        Rejected: ``value`` does not fit the output type.
        TypeError: ``value`` cannot be an answer.
    """
    if isinstance(value, TaskOutput):
        return value
    name = name_of(guardrail)
    if isinstance(value, str | dict | BaseModel):
        try:
            output = _read_answer(assignment, as_text(value))
        except Rejected as misfit:  # the answer fitted the output type before the guardrail replaced it
            raise Rejected(f"the guardrail {name} replaced the answer, and {misfit}") from misfit
        if isinstance(value, BaseModel) and assignment.output_model is None:
            output.pydantic = value
        return output
    if value is None:
        raise TypeError(f"the guardrail {name} returned None as result; to keep the answer unchanged, return it")
    raise TypeError(
        f"the guardrail {name} accepted the answer with {value!r}; the value must be the new text, a "
        "dict, a pydantic model or a TaskOutput, such as the guardrail's argument"
    )


async def _judge_in_words(emitter: Emitter, assignment: Assignment, criterion: str, output: TaskOutput) -> None:
    agent = assignment.persona.agent
    llm = agent.model
    request = llm.request(
        "Judge whether an answer meets a criterion. Reply with JSON: "
        '{"accepted": true or false, "reason": "why not, if not"}\n\n'
        f"Criterion: {criterion}\n\nAnswer:\n{output.raw}",
        hints={"response_format": response_format_for(Verdict)},
    )
    await wait_for_all(*assignment.rates)
    said = await llm.ask_aside(emitter, request, max_retries=agent.retries)
    try:
        verdict = read_json(Verdict, said)
    except ValidationError as error:
        raise Rejected(f"the model returned no verdict on {criterion!r}: {said[:200]!r}") from error
    if not verdict.accepted:
        raise Rejected(verdict.reason or f"it does not meet this criterion: {criterion}")


async def _log(emitter: Emitter, assignment: Assignment, status: Literal["started", "completed"], **more: str) -> None:
    if assignment.log_file is not None:
        write = partial(assignment.log_file.write, status, name=assignment.name, task=assignment.description)
        await emitter.invoke(write, agent=assignment.persona.role, **more)


def _file_text(output: TaskOutput) -> str:
    """Return the text that is written to the output file: JSON for a structured answer, otherwise the answer itself."""
    if output.pydantic is not None:
        return output.pydantic.model_dump_json(indent=2)
    return output.raw if output.json_dict is None else output.json
