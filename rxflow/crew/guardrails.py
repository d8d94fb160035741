"""Judging an answer: by its output type, by functions, and by criteria in words."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, ValidationError

from rxflow.crew.assignment import Assignment, Guardrail
from rxflow.crew.rate_limit import wait_for_all
from rxflow.json_text import read_json
from rxflow.llm.structured import response_format_for
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.kickoff import Last
from rxflow.tools import as_text
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, LLMFinished
from rxflow.types.results import OutputFormat, TaskOutput


class Rejected(Exception):
    """The answer was not accepted; the message says why, in words for the model.

    ``outcome`` is what the task has come to where this was its last attempt.
    """

    def __init__(self, reason: str, outcome: str = "failed its guardrail") -> None:
        super().__init__(reason)
        self.outcome = outcome


class GuardrailError(ValueError):
    """A task's answer was rejected more often than ``guardrail_max_retries`` allows."""


class Verdict(BaseModel):
    """What the model says of an answer."""

    accepted: bool
    reason: str = ""


def read_answer(assignment: Assignment, raw: str) -> TaskOutput:
    """The output for an answer's text. Raises :class:`Rejected` where it does not fit the output type."""
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
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['msg']}" for each in error.errors())
        model = assignment.output_model.__name__
        raise Rejected(f"it does not fit {model}: {problems}", f"gave no answer that fits {model}") from error
    if assignment.output_format is OutputFormat.JSON:
        output.json_dict = parsed.model_dump(mode="json")
    else:
        output.pydantic = parsed
    return output


async def judge(emitter: Emitter, assignment: Assignment, output: TaskOutput) -> TaskOutput:
    """Pass ``output`` through all guardrails. Raises :class:`Rejected` at the first that does not accept it."""
    for guardrail in assignment.guardrails:
        if isinstance(guardrail, str):
            await _judge_in_words(emitter, assignment, guardrail, output)
            continue
        verdict: object = await emitter.invoke(guardrail, output)
        accepted, value = _checked(guardrail, verdict)
        if not accepted:
            raise Rejected(str(value))
        if value is not None:
            output = _replaced(assignment, guardrail, value)
    return output


def _replaced(assignment: Assignment, guardrail: Guardrail, value: object) -> TaskOutput:
    """The output that a guardrail gave in place of the answer."""
    if isinstance(value, TaskOutput):
        return value
    if isinstance(value, str | dict | BaseModel):
        try:
            return read_answer(assignment, as_text(value))
        except Rejected as misfit:  # the answer itself did fit
            name = _name_of(guardrail)
            raise Rejected(f"the guardrail {name} put another text in its place, and {misfit}") from misfit
    raise TypeError(
        f"the guardrail {_name_of(guardrail)} accepted the answer with {value!r}; the value may be the text that takes "
        "its place, a dict, a pydantic model, a TaskOutput, or None, which leaves the answer as it is"
    )


def _checked(guardrail: Guardrail, verdict: object) -> tuple[bool, Any]:
    if isinstance(verdict, tuple):
        pair = cast(tuple[Any, ...], verdict)
        if len(pair) == 2 and isinstance(pair[0], bool):
            return pair[0], pair[1]
    raise TypeError(
        f"the guardrail {_name_of(guardrail)} must return (accepted: bool, value or reason); it returned {verdict!r}"
    )


def _name_of(guardrail: Guardrail) -> str:
    return getattr(guardrail, "__name__", repr(guardrail))


async def _judge_in_words(emitter: Emitter, assignment: Assignment, criterion: str, output: TaskOutput) -> None:
    agent = assignment.persona.agent
    llm = agent.model
    request = llm.request(
        "Judge whether an answer meets a criterion. Reply with JSON: "
        '{"accepted": true or false, "reason": "why not, if not"}\n\n'
        f"Criterion: {criterion}\n\nAnswer:\n{output.raw}",
        hints={"response_format": response_format_for(Verdict)},
    )
    last = Last(LLMFinished)

    def note(event: Event) -> None:
        # The judge's words are no part of the answer; its call, usage and cost are part of the run.
        last.tap(event)
        if not isinstance(event, StreamChunk):
            emitter.on_next(event)

    await wait_for_all(*assignment.rates)
    await emitter.drain(llm.ask(emitter.scope.unnumbered(), request, max_retries=agent.retries), note)
    try:
        verdict = read_json(Verdict, last.event.text)
    except ValidationError as error:
        raise Rejected(f"the model gave no verdict on {criterion!r}: {last.event.text[:200]!r}") from error
    if not verdict.accepted:
        raise Rejected(verdict.reason or f"it does not meet this criterion: {criterion}")
