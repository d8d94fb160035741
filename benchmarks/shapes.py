"""Flows of any length, made for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rxflow import LLM, Flow
from rxflow.flow import listen, or_, router, start


def chain(length: int, *, is_async: bool, speaks: int | None = None) -> Callable[[LLM | None], Flow]:
    """Methods that listen to each other, one after the other; number ``speaks`` asks the model."""
    methods: dict[str, Any] = {"stream": True}
    for number in range(length):
        decorate = start() if number == 0 else listen(_name(number - 1))
        methods[_name(number)] = decorate(_method(_name(number), is_async, asks=number == speaks))
    return _made(type("Chain", (Flow,), methods))


def cycle(turns: int, *, is_async: bool) -> Callable[[LLM | None], Flow]:
    """A router that sends itself round, so many times."""
    turn = 0

    def go_on() -> str | None:
        nonlocal turn
        turn += 1
        return "again" if turn < turns else None

    def sync_route(self: Flow) -> str | None:
        return go_on()

    async def async_route(self: Flow) -> str | None:
        return go_on()

    route = async_route if is_async else sync_route
    methods = {
        "stream": True,
        "max_method_calls": turns + 1,
        "begin": start()(_method("begin", is_async, asks=False)),
        "turn": router(or_("begin", "again"), emit=["again"])(route),
    }
    return _made(type("Cycle", (Flow,), methods))


def _name(number: int) -> str:
    return f"method_{number}"


def _made(cls: type[Flow]) -> Callable[[LLM | None], Flow]:
    def make(llm: LLM | None) -> Flow:
        flow = cls()
        flow.llm = llm  # type: ignore[attr-defined]
        return flow

    return make


def _method(name: str, is_async: bool, *, asks: bool) -> Callable[..., Any]:
    async def async_method(self: Any) -> str:
        return str(await self.llm.acall("Hello")) if asks else name

    def sync_method(self: Any) -> str:
        return str(self.llm.call("Hello")) if asks else name

    method: Callable[..., Any] = async_method if is_async else sync_method
    method.__name__ = name
    return method
