"""What each operator costs a chunk, on top of a bare Subject.

Chunks are pushed in one go, on an event loop, as a burst of a provider is. The processor's time is taken until the end
has come through, so what an operator does later, or on another thread, is in it; waiting is not. That of a bare Subject
in the same turn is taken off.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable, Subject, operators as rxops

from rxflow import operators as ops
from rxflow._streaming.observable import everything
from rxflow.types.chunks import StreamChunk, StreamChunkType, ToolCallChunk

LIMIT = 5.0
"""Microseconds a chunk that an operator may cost, unless its page says why."""

Operator: TypeAlias = Callable[[Observable[Any]], Observable[Any]]


class _Answer(BaseModel):
    """What the JSON of the benchmark holds."""

    words: list[str] = []


@dataclass(frozen=True)
class Cost:
    """Microseconds a chunk, beyond those of a bare Subject; ``is_under`` the limit."""

    name: str
    microseconds: float
    is_under: bool


def _text(count: int) -> list[StreamChunk]:
    labels: dict[str, Any] = {"span_id": "run/1", "task_name": "task", "agent_role": "agent", "flow_method": "method"}
    # A sentence, then a line now and then: what waits for one must not wait for all.
    pieces = [" word", " word", " word", " word.", " Word", " word", " word.\n", "Word"]
    return [StreamChunk(content=pieces[number % len(pieces)], seq=number, **labels) for number in range(count)]


def _json(count: int) -> list[StreamChunk]:
    """One growing value would cost its length with every chunk; each of these is as long as answers are."""
    pieces = ['{"words": [', *['"word", '] * 98, '"word"]}']
    return [
        StreamChunk(content=pieces[number % len(pieces)], seq=number, span_id=f"run/{number // len(pieces)}")
        for number in range(count)
    ]


def _calls(count: int) -> list[StreamChunk]:
    """The same as arguments of tool calls."""
    return [
        chunk.model_copy(
            update={
                "chunk_type": StreamChunkType.TOOL_CALL,
                "tool_call": ToolCallChunk(tool_id=chunk.span_id, tool_name="look", arguments=chunk.content),
            }
        )
        for chunk in _json(count)
    ]


def _reading(division: Operator) -> Operator:
    """With a reader for each lane: without one they only gather."""
    return lambda source: source.pipe(division, rxops.do_action(_read))


def _read(lane: Observable[Any]) -> None:
    lane.subscribe(_nothing)


def _nothing(_: object) -> None:
    pass


def _table(folder: Path) -> Mapping[str, tuple[Callable[[int], list[StreamChunk]], Callable[[], Operator]]]:
    """By name: what it is measured on, and how it is made."""
    return {
        "accumulate": (_text, ops.accumulate),
        "by_agent": (_text, lambda: _reading(ops.by_agent())),
        "by_method": (_text, lambda: _reading(ops.by_method())),
        "by_task": (_text, lambda: _reading(ops.by_task())),
        "coalesce": (_text, lambda: ops.coalesce(seconds=60, characters=80)),
        "fallback_to": (_text, lambda: ops.fallback_to(rx.empty())),
        "first_chunk_timeout": (_text, lambda: ops.first_chunk_timeout(60)),
        "only_agent": (_text, lambda: ops.only_agent("agent")),
        "only_method": (_text, lambda: ops.only_method("method")),
        "only_task": (_text, lambda: ops.only_task("task")),
        "heartbeat": (_text, lambda: ops.heartbeat(60)),
        "hold_back": (_text, lambda: ops.hold_back(lambda text: ops.Release(), until=ops.lines())),
        "idle_timeout": (_text, lambda: ops.idle_timeout(60)),
        "in_graph_order": (_text, ops.in_graph_order),
        "interleave_fairly": (_text, ops.interleave_fairly),
        "limit_cost": (_text, lambda: ops.limit_cost(1e9, input_price=0, output_price=1)),
        "limit_tokens": (_text, lambda: ops.limit_tokens(10**9)),
        "lines": (_text, ops.lines),
        "overflow": (_text, lambda: ops.overflow(100)),
        "partial_json": (_json, lambda: ops.partial_json(_Answer)),
        "race": (_text, lambda: ops.race(rx.never())),
        "reasoning": (_text, ops.reasoning),
        "record": (_text, lambda: ops.record(folder / "run.cassette")),
        "redact": (_text, lambda: ops.redact(r"\d{16}")),
        "retry_stream": (_text, lambda: ops.retry_stream(1)),
        "sentences": (_text, ops.sentences),
        "share_log": (_text, lambda: ops.share_log("cancel")),
        "smooth": (_text, lambda: ops.smooth(10**9)),
        "stats": (_text, ops.stats),
        "stop_at": (_text, lambda: ops.stop_at("STOP")),
        "text": (_text, ops.text),
        "tool_arguments": (_calls, ops.tool_arguments),
        "tool_call_deltas": (_calls, ops.tool_call_deltas),
        "tool_calls": (_calls, ops.tool_calls),
        "usage": (_text, ops.usage),
        "words": (_text, ops.words),
    }


NOT_MEASURED = {
    "from_cassette": "a source: nothing passes through it",
    "answer_with": "it sees questions alone",
    "frames": "makes an object of each event; docs/adapters.md has its cost",
    "from_log": "a source; the benchmark of runs has it",
    "log_to": "an end; the benchmark of runs has it",
    "to_output": "an end: an output's log, which the throughput of loops has in it",
}


def names() -> frozenset[str]:
    """Those that are measured."""
    return frozenset(_table(Path()))


def measure(chunks: int, turns: int) -> list[Cost]:
    """All operators, by name; the median of the turns, after one to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        table = _table(Path(folder))
        taken: dict[str, list[float]] = {name: [] for name in table}
        for turn in range(turns + 1):
            gc.collect()
            for name, (items, make) in table.items():
                cost = asyncio.run(_turn(items(chunks), make))
                if turn:
                    taken[name].append(cost)
    costs = {name: statistics.median(those) * 1e6 for name, those in taken.items()}
    return [Cost(name, cost, cost < LIMIT) for name, cost in costs.items()]


async def _turn(items: list[StreamChunk], make: Callable[[], Operator]) -> float:
    """Seconds a chunk: with the operator, less those without it."""
    bare = await _seconds(items, everything)
    return (await _seconds(items, make()) - bare) / len(items)


async def _seconds(items: list[StreamChunk], operator: Operator) -> float:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    source: Subject[StreamChunk] = Subject()
    source.pipe(operator).subscribe(_nothing, ended.set_exception, lambda: ended.set_result(None))
    begin = time.process_time()
    for item in items:
        source.on_next(item)
    source.on_completed()
    await ended
    return time.process_time() - begin
