"""An agent's turns with its model: ask, use the tools that it calls, ask again, until it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rxflow.crew.assignment import Assignment
from rxflow.crew.rate_limit import wait_for_all
from rxflow.crew.tool_use import ToolAnswer, asking_message, by_function_name, use_tools
from rxflow.llm._litellm.advice import add_advice
from rxflow.llm.request import Message, ToolSchema
from rxflow.llm.structured import response_format_for
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.kickoff import Last
from rxflow.types.events import LLMFinished

_FINAL_TURN = "You have used all your turns with tools. Give your best answer now, from what you know."
_NO_MODEL = (
    "this agent named no model, so {model} was taken: name one that you have a key for (Agent(llm=…), or MODEL in the "
    'environment), or use the embedded one, Agent(llm=LLM("rxflow/demo")), which needs no key'
)


@dataclass(slots=True)
class Conversation:
    """What has been said between the agent and its model on one task."""

    assignment: Assignment
    messages: list[Message]

    def send_back(self, answer: str, reason: str) -> None:
        """Ask for a better answer."""
        self.messages.append({"role": "assistant", "content": answer})
        self.messages.append(
            {"role": "user", "content": f"That answer was not accepted: {reason}\nGive a corrected answer."}
        )


async def answer(emitter: Emitter, conversation: Conversation) -> str:
    """Have the agent answer; the stream sees every chunk, tool and call."""
    assignment = conversation.assignment
    agent = assignment.persona.agent
    tools = by_function_name(assignment.tools)
    schemas = [tool.schema_for_model for tool in tools.values()]
    for turn_number in range(1, agent.max_iter + 1):
        is_last = turn_number == agent.max_iter
        if is_last and tools and turn_number > 1:
            conversation.messages.append({"role": "user", "content": _FINAL_TURN})
        turn = await _ask(emitter, conversation, schemas, may_call=not is_last)
        await _step(emitter, assignment, turn)
        if not turn.tool_calls:
            return turn.text
        if is_last:
            break
        results = await use_tools(emitter, turn.tool_calls, tools)
        conversation.messages.append(asking_message(turn))
        for result in results:
            conversation.messages.append(result.message)
            await _step(emitter, assignment, result)
        final = next((result for result in results if result.is_final), None)
        if final is not None:
            return final.text
    raise RuntimeError(
        f"agent {assignment.persona.role!r} still called tools in its last turn (max_iter={agent.max_iter}); "
        "raise max_iter"
    )


async def _ask(
    emitter: Emitter, conversation: Conversation, schemas: list[ToolSchema], *, may_call: bool
) -> LLMFinished:
    assignment = conversation.assignment
    agent = assignment.persona.agent
    await wait_for_all(*assignment.rates)
    # A conversation that holds tool calls needs their schemas to the end: some providers refuse it else.
    extra: dict[str, Any] = {} if may_call or not schemas else {"tool_choice": "none"}
    hints: dict[str, Any] = {}
    if assignment.output_model is not None and (not schemas or not may_call):
        hints["response_format"] = response_format_for(assignment.output_model)
    llm = agent.model
    request = llm.request(list(conversation.messages), schemas, hints=hints, **extra)
    last = Last(LLMFinished)
    try:
        await emitter.forward(llm.ask(emitter.scope, request, max_retries=agent.retries), last.tap)
    except Exception as error:
        if agent.llm is None and type(error).__name__ in ("AuthenticationError", "BadRequestError"):
            add_advice(error, _NO_MODEL.format(model=llm.model))
        raise
    return last.event


async def _step(emitter: Emitter, assignment: Assignment, step: LLMFinished | ToolAnswer) -> None:
    if assignment.step_callback is not None:
        await emitter.invoke(assignment.step_callback, step)
