"""Tools by which an agent hands work and questions to its coworkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from rxflow.crew.agent import Agent
from rxflow.crew.assignment import Assignment, Persona
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.task_run import carry_out
from rxflow.streaming.kickoff import run_async
from rxflow.streaming.observable import EventStream
from rxflow.tools import BaseTool, FunctionTool
from rxflow.types.events import TaskFinished


def delegation_tools(
    coworkers: Sequence[Agent],
    inputs: Mapping[str, Any] | None,
    rates: Sequence[RateLimit] = (),
    step_callback: Callable[[Any], Any] | None = None,
) -> list[BaseTool]:
    """Two tools: one delegates work to a coworker, one asks a question. What the coworker does is streamed too.

    Raises:
        ValueError: two coworkers have one role.
    """
    personas: dict[str, Persona] = {}
    for persona in (Persona.of(agent, inputs) for agent in coworkers):
        if personas.setdefault(_key(persona.role), persona) is not persona:
            raise ValueError(
                f"two coworkers have the role {persona.role!r}, so nobody could say which one work is delegated to; "
                "give one of them another role"
            )
    names = ", ".join(persona.role for persona in personas.values())

    async def hand_over(coworker: str, what: str, context: str, expected: str) -> str:
        persona = personas.get(_key(coworker))
        if persona is None:
            raise LookupError(f"there is no coworker {coworker!r}; the coworkers are: {names}")
        assignment = Assignment(
            persona=persona,
            description=what,
            expected_output=expected,
            task_id=str(uuid4()),
            context=context,
            tools=persona.agent.tools,
            guardrails=[] if persona.agent.guardrail is None else [persona.agent.guardrail],
            step_callback=step_callback,
            rates=[rate for rate in (persona.agent.rate, *rates) if rate is not None],
        )
        finished = await run_async(EventStream(lambda scope: carry_out(scope, assignment)), TaskFinished)
        return finished.result.raw

    async def delegate_work_to_coworker(task: str, context: str, coworker: str) -> str:
        return await hand_over(coworker, task, context, "Your best answer to the work given to you")

    async def ask_question_to_coworker(question: str, context: str, coworker: str) -> str:
        return await hand_over(coworker, question, context, "Your best answer to the question")

    said = f"The coworkers are: {names}. They know nothing of your task: give them all the context they need."
    return [
        FunctionTool(
            name="delegate_work_to_coworker",
            description=f"Delegate a piece of work to a coworker. {said}",
            function=delegate_work_to_coworker,
        ),
        FunctionTool(
            name="ask_question_to_coworker",
            description=f"Ask a coworker a question. {said}",
            function=ask_question_to_coworker,
        ),
    ]


def _key(role: str) -> str:
    return " ".join(role.split()).casefold()
