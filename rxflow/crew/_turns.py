"""An agent's turns with its model: ask the model, carry out its tool calls, and ask again until it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rxflow._streaming import Emitter, Last
from rxflow.crew._assignment import Assignment, wait_for_all
from rxflow.crew._tool_use import ToolAnswer, ToolCache, by_function_name, use_tools
from rxflow.llm._litellm.advice import add_advice
from rxflow.llm.source import Message, ToolSchema, has_object_root, response_format_for
from rxflow.types import Event, LLMFinished, LLMStarted, MessageAdded

_FINAL_TURN = "You have used all your turns with tools. Give your best answer now, from what you know."
_NO_MODEL = (
    "this agent named no model, so {model} was taken: name one that you have a key for (Agent(llm=…), or MODEL in the "
    'environment), or use the embedded one, Agent(llm=LLM("rxflow/demo")), which needs no key'
)


@dataclass(slots=True)
class Conversation:
    """The messages between an agent and its model about one task."""

    assignment: Assignment
    messages: list[Message]
    tool_cache: ToolCache | None
    call_spans: list[str]
    """The span ids of the LLM calls in this attempt."""
    call_ids: list[str]
    """The ids of the LLM calls in this attempt."""
    _count_shown: int = 0
    last: Message = field(default_factory=dict[str, Any])
    """The last answer, as a message for the provider. It includes the reasoning of a reasoning model."""

    def show_messages(self, emitter: Emitter) -> None:
        """Emit a MessageAdded for each message that has no such event yet."""
        for message in self.messages[self._count_shown :]:
            emitter.on_next(MessageAdded(origin=emitter.origin, message=message))
        self._count_shown = len(self.messages)

    def answer_with(self, emitter: Emitter, message: Message) -> None:
        """Store the answer ``message`` in ``last``, and emit a MessageAdded for it.

        If the answer is rejected, :meth:`send_back` adds it to ``messages``.
        """
        self.last = message
        emitter.on_next(MessageAdded(origin=emitter.origin, message=message))

    def send_back(self, reason: str) -> None:
        """Add the rejected answer to the messages, and then a message that asks for a corrected answer."""
        self.messages.append(self.last)
        self._count_shown = len(self.messages)
        self.messages.append(
            {"role": "user", "content": f"That answer was not accepted: {reason}\nGive a corrected answer."}
        )


async def answer(emitter: Emitter, conversation: Conversation) -> str:
    """Ask the model and carry out its tool calls, turn after turn, until there is an answer. Return the answer's text.

    The answer is a text of the model, or the result of a tool with ``result_as_answer``. The events of all turns appear
    in the stream.

    Raises:
        RuntimeError: the model called a tool even in the last turn.
        ValueError: the model returned neither text nor a tool call, and retries did not help.
    """
    assignment = conversation.assignment
    agent = assignment.persona.agent
    tools = by_function_name(assignment.offered_tools)
    schemas = [tool.schema_for_model for tool in tools.values()]
    for turn_number in range(1, agent.max_iter + 1):
        is_last = turn_number == agent.max_iter
        if is_last and tools and turn_number > 1:
            conversation.messages.append({"role": "user", "content": _FINAL_TURN})
        conversation.show_messages(emitter)
        turn = await _ask(emitter, conversation, schemas, may_call=not is_last)
        await _step(emitter, assignment, turn)
        if not turn.tool_calls:
            conversation.answer_with(emitter, dict(turn.message))
            return turn.text
        if is_last:
            break
        results = await use_tools(emitter, turn, tools, conversation.tool_cache)
        conversation.messages.append(dict(turn.message))
        for result in results:
            conversation.messages.append(result.message)
            await _step(emitter, assignment, result)
        conversation.messages.extend(result.image for result in results if result.image is not None)
        final = next((result for result in results if result.is_final), None)
        if final is not None:
            conversation.show_messages(emitter)
            conversation.answer_with(emitter, {"role": "assistant", "content": final.text})
            return final.text
    raise RuntimeError(
        f"agent {assignment.persona.role!r} called tools even in its last turn (max_iter={agent.max_iter}); "
        "raise max_iter"
    )


async def _ask(
    emitter: Emitter, conversation: Conversation, schemas: list[ToolSchema], *, may_call: bool
) -> LLMFinished:
    assignment = conversation.assignment
    agent = assignment.persona.agent
    llm = agent.model
    # Schemas are sent in every turn, because some providers refuse a conversation with tool calls but no schemas.
    hints: dict[str, Any] = {} if may_call or not schemas else {"tool_choice": "none"}
    model = assignment.output_model
    if model is not None and has_object_root(model) and (not schemas or not may_call):
        hints["response_format"] = response_format_for(model)
    request = llm.request(list(conversation.messages), schemas, hints=hints)
    attempts = 1 + (llm.max_retries if agent.retries is None else agent.retries)
    last = Last(LLMFinished)

    def note(event: Event) -> None:
        last.tap(event)
        if isinstance(event, LLMStarted):
            conversation.call_spans.append(event.origin.span_id)
            conversation.call_ids.append(event.origin.llm_call_id)

    for _ in range(attempts):
        await wait_for_all(*assignment.rates)
        try:
            await emitter.forward(llm.ask(emitter.scope, request, max_retries=agent.retries), note)
        except Exception as error:
            if not agent.has_chosen_model and type(error).__name__ in ("AuthenticationError", "BadRequestError"):
                add_advice(error, _NO_MODEL.format(model=llm.model))
            raise
        if last.event.text or last.event.tool_calls:
            return last.event
    raise ValueError(
        f"Invalid response from LLM call - None or empty: {llm.model} gave agent {assignment.persona.role!r} neither "
        f"text nor a tool call, {attempts} times (finish_reason={last.event.finish_reason!r})"
    )


async def _step(emitter: Emitter, assignment: Assignment, step: LLMFinished | ToolAnswer) -> None:
    if assignment.step_callback is not None:
        await emitter.invoke(assignment.step_callback, step)
