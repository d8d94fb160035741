"""Flows to draw. Plain classes will do: the graph is read off the decorators."""

from __future__ import annotations

from typing import Any, Literal

from rxflow.flow._graph import and_, listen, or_, router, start


class Simple:
    @start()
    def fetch(self) -> None:
        """Get the article."""

    @listen("fetch")
    def summarise(self) -> None:
        """Boil it down."""

    @listen("summarise")
    def publish(self) -> None: ...


class Cycle:
    @start()
    def plan(self) -> None: ...

    @listen(or_("plan", "revise"))
    def write(self) -> None: ...

    @router("write")
    def judge(self) -> Literal["publish", "revise", "give up"]:
        return "publish"

    @listen("publish")
    def send(self) -> None: ...


class OwnLabel:
    @start("again")
    @router()
    def knock(self) -> Literal["again", "open"]:
        return "open"

    @start()
    def arrive(self) -> None: ...


class Nested:
    @start()
    def a(self) -> None: ...

    @start()
    def b(self) -> None: ...

    @start()
    def c(self) -> None: ...

    @listen(and_("a", or_("b", "c")))
    def d(self) -> None: ...

    @listen(or_(and_("a", "b"), "d"))
    def e(self) -> None: ...


class OpenRouter:
    @start()
    def ask(self) -> None: ...

    @router("ask")
    def decide(self) -> str:
        return input()

    @listen("whatever")
    def follow(self) -> None: ...


class OpenRouters(OpenRouter):
    @router("ask")
    def decide_too(self) -> str:
        return input()

    @listen(and_("whatever", "ask"))
    def follow_too(self) -> None: ...


class Empty: ...


def flow(name: str = "Made", /, **decorators: Any) -> type:
    """A class with one method for each decorator."""
    methods: dict[str, Any] = {}
    for method, decorator in decorators.items():

        def step(self: object) -> None:
            """One step of many."""

        step.__name__ = method
        methods[method] = decorator(step)
    return type(name, (), methods)


def chain(length: int) -> type:
    """Methods that run one after the other."""
    return flow(**{f"step_{n}": listen(f"step_{n - 1}") if n else start() for n in range(length)})


def fan(width: int) -> type:
    """One method, many that listen to it, and one that waits for all of them."""
    workers = {f"worker_{n}": listen("split") for n in range(width)}
    return flow(split=start(), **workers, gather=listen(and_(*workers)))
