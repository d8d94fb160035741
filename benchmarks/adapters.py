"""What each adapter costs an event: the processor's time from the event to what is sent, or handed to the exporter.

The events are those of one run of many chunks, pushed in one go. The least of some turns counts, as all else is noise.
What MCP and LangChain do is not per chunk: notes of what begins, and the text of a chunk as it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import reactivex
from a2a.server.agent_execution import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from ag_ui.encoder import EventEncoder
from opentelemetry.sdk.trace import TracerProvider
from pydantic_core import to_json
from reactivex import Observable

from benchmarks.targets import at_most, verdict
from rxflow import Flow, operators as ops
from rxflow.adapters import agui, logs, otel, sse, vercel
from rxflow.adapters._openai_answers import Asked, ChatAnswer, ResponseAnswer
from rxflow.adapters._translation import translate
from rxflow.adapters.a2a import FlowExecutor
from rxflow.flow import start
from rxflow.types.events import Event
from tests.scripted import Scripted
from tests.team import solo

LIMIT = 20.0
"""Microseconds an event that an adapter may cost."""

Operator: TypeAlias = Callable[[Observable[Any]], Observable[Any]]
ASKED = Asked(model="words", messages=[{"role": "user", "content": "Hello"}], text="Hello", parameters={"stream": True})


@dataclass(frozen=True)
class Cost:
    """Microseconds an event; ``is_under`` the limit."""

    name: str
    microseconds: float
    is_under: bool


class Speaking(Flow[dict[str, Any]]):
    """So many chunks."""

    @start()
    def say(self) -> str:
        return str(solo(Scripted(["word "] * self.state["chunks"])).kickoff())


class _Queue(EventQueue):
    async def enqueue_event(self, event: Any) -> None:
        """Nobody reads it."""


def _as_agent(source: Observable[Any]) -> Observable[Any]:
    """The executor of A2A, which is not an operator: it runs to its end."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        context = RequestContext(ServerCallContext(), task_id="task", context_id="context")
        asyncio.run(FlowExecutor(lambda _: source).execute(context, _Queue()))
        return reactivex.empty().subscribe(observer)

    return Observable(subscribe)


ADAPTERS: dict[str, Operator] = {
    "otel": otel.trace(tracer_provider=TracerProvider(shutdown_on_exit=False)),
    "logs": logs.log(logging.getLogger("cost")),
    "sse": lambda source: source.pipe(sse.to_sse()).map(lambda message: message.encode()),
    "sse, frames": lambda source: source.pipe(sse.to_sse(as_frames=True)).map(lambda message: message.encode()),
    "json lines": sse.to_json_lines(),
    "json lines, frames": sse.to_json_lines(as_frames=True),
    "agui": lambda source: source.pipe(agui.to_agui()).map(EventEncoder().encode),
    "vercel": lambda source: source.pipe(vercel.to_ui_messages()).map(to_json),
    "responses": lambda source: source.pipe(translate(lambda: ResponseAnswer(ASKED))).map(to_json),
    "chat completions": lambda source: source.pipe(translate(lambda: ChatAnswer(ASKED))).map(to_json),
    "a2a": _as_agent,
}


def measure(chunks: int, turns: int) -> list[Cost]:
    """All adapters, by name."""
    events = record_run(chunks)
    costs = {name: measure_one(events, adapter, turns) for name, adapter in ADAPTERS.items()}
    return [Cost(name, cost, cost < LIMIT) for name, cost in costs.items()]


def record_run(chunks: int) -> list[Event]:
    """The events of a run of so many chunks."""
    with Speaking().events({"chunks": chunks}).pipe(ops.to_output()) as output:
        return list(output)


def measure_one(events: Sequence[Event], adapter: Operator, turns: int) -> float:
    """Microseconds of processor time for each event: the least of so many turns."""
    return min(_turn(events, adapter) for _ in range(turns)) / len(events) * 1e6


def table(costs: list[Cost]) -> str:
    """For people."""
    lines = [f"{'adapters':<44}{'µs an event':>12}{'target':>10}{'reached':>9}"]
    lines += [
        f"{cost.name:<44}{cost.microseconds:>12.2f}{verdict(at_most(LIMIT), cost.microseconds)}" for cost in costs
    ]
    return "\n".join(lines)


def _turn(events: Sequence[Event], adapter: Operator) -> float:
    failures: list[Exception] = []
    source = reactivex.from_iterable(events).pipe(adapter)
    began = time.process_time()
    source.subscribe(on_error=failures.append)
    took = time.process_time() - began
    if failures:
        raise failures[0]
    return took
