"""The Agent2Agent protocol: serves a flow as an agent that other agents can send tasks to. ::

    app = a2a.serve_agent(lambda asked: Trip().events({"topic": asked.get_user_input()}), name="Trips", url="http://…")

A run carries out a task. If the run pauses for an answer, the task waits for input, and the input starts a new run.
Each text of a model becomes an artifact, which grows while the text arrives. The starts of methods and tools become
status messages. If the task is cancelled, the run is disposed. Needs ``rxflow[a2a]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from reactivex import Observable

from rxflow import operators as ops
from rxflow._lazy import extra
from rxflow._streaming import everything
from rxflow._text import describe, encodable, in_words, to_plain_json
from rxflow.adapters._translation import PartTracker, Step
from rxflow.operators._core import select
from rxflow.tools import as_text
from rxflow.types import (
    Cancelled,
    CrewFinished,
    Event,
    FlowFinished,
    FlowPaused,
    FlowResumed,
    MethodStarted,
    Origin,
    Retracted,
    StreamChunk,
    ToolProgress,
    ToolStarted,
)

with extra("a2a"):
    from a2a.helpers import new_data_part, new_task_from_user_message, new_text_part
    from a2a.server.agent_execution import AgentExecutor, RequestContext
    from a2a.server.events import EventQueue
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
    from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
    from a2a.types import (
        AgentCapabilities,
        AgentCard,
        AgentInterface,
        AgentSkill,
        Artifact,
        Message,
        Part,
        TaskArtifactUpdateEvent,
        TaskState,
    )
    from starlette.applications import Starlette

__all__ = ["FlowExecutor", "Serves", "serve_agent"]

Serves: TypeAlias = Callable[[RequestContext], Observable[Any]]
"""A function that creates a run for a task. If the function raises, for example for a wrong request, the task fails."""


def serve_agent(serves: Serves, *, name: str, url: str, description: str = "", version: str = "1.0") -> Starlette:
    """Create an ASGI app that has the agent's card, and the agent's JSON-RPC endpoint at ``/``.

    Tasks are kept in memory. The app has no access control: an app around it must provide that. For another task store,
    or for security schemes in the card, create your own app from :class:`FlowExecutor` and a request handler of the A2A
    SDK (the package ``a2a``).

    Args:
        serves: a function that creates a run for a task.
        name, description, version: what the card says about the agent.
        url: the address of the app, for the card.
    """
    card = AgentCard(
        name=name,
        description=description or name,
        version=version,
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id=name, name=name, description=description or name, tags=["rxflow"])],
    )
    handler = DefaultRequestHandler(FlowExecutor(serves), InMemoryTaskStore(), card)
    return Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])


class FlowExecutor(AgentExecutor):
    """Carries out tasks. Each message that a client sends to a task starts a new run."""

    def __init__(self, serves: Serves) -> None:
        self._serves = serves

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        if context.current_task is None and context.message is not None:
            task = new_task_from_user_message(context.message)
            task.id, task.context_id = updater.task_id, updater.context_id
            await event_queue.enqueue_event(task)
        await updater.start_work()
        run = _Run(updater)
        try:
            # Cancelling the A2A task cancels this coroutine. Leaving the ``async with`` block then disposes the run.
            async with self._serves(context).pipe(select(everything), ops.to_output()) as output:
                async for event in output:
                    for update in run.read(event):
                        if isinstance(update, TaskArtifactUpdateEvent):
                            await event_queue.enqueue_event(update)
                        else:
                            await updater.update_status(TaskState.TASK_STATE_WORKING, update)
            result = None if run.result is None else _say(updater, run.result)
        except Exception as error:  # noqa: BLE001 - reported to the client
            for update in run.finish():
                await event_queue.enqueue_event(update)
            await updater.failed(_say(updater, describe(error)))
            return
        for update in run.finish():
            await event_queue.enqueue_event(update)
        if run.question is not None:
            await updater.requires_input(_say(updater, run.question))
        elif run.is_cancelled:
            await updater.cancel()
        else:
            await updater.complete(result)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


class _Run:
    """Translates the events of one run into updates of a task: artifacts and status messages."""

    def __init__(self, updater: TaskUpdater) -> None:
        self._updater = updater
        self._parts = PartTracker()
        self._begun: set[str] = set()
        self.result: Any = None
        self.question: str | None = None
        self.is_cancelled = False

    def read(self, event: Event) -> Iterator[TaskArtifactUpdateEvent | Message]:
        for step in self._parts.read(event):
            yield from self._show(step)
        if isinstance(event, StreamChunk):
            return
        if isinstance(event, FlowResumed) or (isinstance(event, Retracted) and event.origin == Origin()):
            self.question, self.is_cancelled = None, False  # the run begins again
        match event:
            case MethodStarted(origin=origin):
                yield _say(self._updater, f"{origin.flow_method} begins")
            case ToolStarted(tool_name=name):
                yield _say(self._updater, f"{name} is called")
            case ToolProgress(message=message) if message:
                yield _say(self._updater, message)
            case Retracted(error=error):
                yield _say(self._updater, f"an answer was taken back: {in_words(error)}")
            case FlowFinished() | CrewFinished() if not event.origin.parent_span_id:
                self.result = event.result
            case FlowPaused(pending=pending):
                self.question = "\n".join(each.message for each in pending)
            case Cancelled(origin=origin) if not origin.parent_span_id:
                self.is_cancelled = True
            case _:
                pass

    def finish(self) -> Iterator[TaskArtifactUpdateEvent]:
        for step in self._parts.end_all():
            yield from self._show(step)

    def _show(self, step: Step) -> Iterator[TaskArtifactUpdateEvent]:
        part = step.part
        if part.kind != "text":
            return
        if step.verb == "say":
            has_begun = part.id in self._begun
            self._begun.add(part.id)
            yield self._update(step, [new_text_part(encodable(step.text))], append=has_begun, last_chunk=False)
        elif step.verb == "end":
            yield self._update(step, [new_text_part("")], append=True, last_chunk=True)
        elif step.verb == "retract":
            # An update with append=False replaces the artifact's text.
            yield self._update(step, [new_text_part("")], append=False, last_chunk=True)

    def _update(self, step: Step, parts: list[Part], *, append: bool, last_chunk: bool) -> TaskArtifactUpdateEvent:
        said = step.part.said if isinstance(step.part.said, StreamChunk) else step.part.said.origin
        return TaskArtifactUpdateEvent(
            task_id=self._updater.task_id,
            context_id=self._updater.context_id,
            artifact=Artifact(
                artifact_id=step.part.id, name=encodable(said.agent_role or said.flow_method), parts=parts
            ),
            append=append,
            last_chunk=last_chunk,
        )


def _say(updater: TaskUpdater, said: object) -> Message:
    """Create a message with ``said`` as text.

    If ``said`` becomes a JSON object when it is converted, as a dict does, the message also has this object as data.
    """
    parts = [new_text_part(encodable(as_text(said)))]
    plain = to_plain_json(said)
    if isinstance(plain, dict):
        parts.append(new_data_part(plain))
    return updater.new_agent_message(parts)
