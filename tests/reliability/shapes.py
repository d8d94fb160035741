"""Flows of random shape, each of which knows what may be seen of it. All from one seed."""

import random
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from rxflow import LLM, Flow
from rxflow.flow import and_, listen, or_, router, start
from rxflow.types.streaming import StreamChunk
from tests.loopback import Reply, Request
from tests.team import solo

Work = Literal["call", "crew", "quiet", "speech"]

mark: ContextVar[str] = ContextVar("mark", default="unmarked")
TAG = re.compile(r"flow-\d+")


@dataclass
class Member:
    """One flow of a crowd, and what was seen of it."""

    tag: str
    flow: "Tagged"
    methods: list[str]
    """All that run where nothing fails."""
    chunks: int
    """All that come where nothing fails."""
    fails: bool
    is_threaded: bool
    seen: list[StreamChunk] = field(default_factory=list[StreamChunk])
    error: Exception | None = None
    mark_afterwards: str = ""

    def complaints(self) -> list[str]:
        """What is not its own, or is missing."""
        found: list[str] = []

        def check(what: str, seen: object, expected: object) -> None:
            if seen != expected:
                found.append(f"{self.tag}: {what}: {seen!r}, not {expected!r}")

        check("texts", {chunk.content for chunk in self.seen}, {self.tag})
        check("flow names", {chunk.flow_name for chunk in self.seen}, {self.tag})
        check("flow ids", {chunk.flow_id for chunk in self.seen}, {self.flow.flow_id})
        check("count", [chunk.seq for chunk in self.seen], sorted({chunk.seq for chunk in self.seen}))
        visited: list[str] = self.flow.state["visited"]
        check("marks", set(self.flow.found), {self.tag})
        check("its caller's mark", self.mark_afterwards, self.tag)
        check("kinds of state", set(self.flow.state), {"id", "tag", "visited"})
        check("tag in the state", self.flow.state["tag"], self.tag)
        if self.fails:
            check("error", repr(self.error), repr(LookupError(self.tag)))
            check("methods of others", [name for name in visited if name not in self.methods], [])
        else:
            check("error", self.error, None)
            check("methods", sorted(visited), sorted(self.methods))
            check("number of chunks", len(self.seen), self.chunks)
        return found


class Tagged(Flow):
    """Its methods leave marks: in the state, and in the context."""

    stream = True

    def __init__(self, tag: str, llm: LLM, fails_in: str) -> None:
        self.llm = llm
        self.fails_in = fails_in
        self.found: list[str] = []
        super().__init__(name=tag, initial_state={"tag": tag, "visited": []})

    def enter(self, method: str) -> None:
        self.found.append(mark.get())
        mark.set(f"{self.name}/{method}")
        self.state["visited"].append(f"{self.name}/{method}")

    def leave(self, method: str) -> str:
        if method == self.fails_in:
            raise LookupError(self.name)
        return f"{self.name}/{method}"


def sync_method(name: str, work: Work, label: str | None) -> Callable[..., Any]:
    def method(self: Tagged) -> str:
        self.enter(name)
        if work == "call":
            self.llm.call(f"{self.name}")
        elif work == "crew":
            solo(self.llm, description=f"{self.name}").kickoff()
        left = self.leave(name)
        return left if label is None else label

    return method


def async_method(name: str, work: Work, label: str | None) -> Callable[..., Any]:
    async def method(self: Tagged) -> str:
        self.enter(name)
        if work == "call":
            await self.llm.acall(f"{self.name}")
        elif work == "crew":
            await solo(self.llm, description=f"{self.name}").kickoff_async()
        left = self.leave(name)
        return left if label is None else label

    async def speech(self: Tagged) -> AsyncIterator[str]:
        self.enter(name)
        yield str(self.name)
        self.leave(name)

    return speech if work == "speech" else method


class Drawing:
    """Draws one flow."""

    def __init__(self, chance: random.Random, tag: str) -> None:
        self._chance = chance
        self._tag = tag
        self._chunks = 0
        self.names: list[str] = []
        self.namespace: dict[str, Any] = {}

    def add(self, name: str, wired: Callable[[Callable[..., Any]], Any], *, label: str | None = None) -> Any:
        """One method; the first always calls the model, so that the provider can hold them all."""
        is_sync = self._chance.random() < 0.5
        works: list[Work] = ["call", "crew"]
        if self.names:
            works.append("quiet")
            if not is_sync and label is None:
                works.append("speech")
        work = self._chance.choice(works)
        make = sync_method if is_sync else async_method
        method = make(name, work, label)
        method.__name__ = name
        self.names.append(name)
        self._chunks += {"call": SAID, "crew": SAID, "quiet": 0, "speech": 1}[work]
        self.namespace[name] = wired(method)
        return self.namespace[name]

    def member(self, llm: LLM) -> Member:
        match self._chance.choice(("chain", "fork", "starts", "router")):
            case "chain":
                last = self.add("one", start())
                for name in ("two", "three", "four")[: self._chance.randint(0, 3)]:
                    last = self.add(name, listen(last))
            case "fork":
                one = self.add("one", start())
                left, right = self.add("left", listen(one)), self.add("right", listen(one))
                self.add("join", listen(and_(left, right)))
            case "starts":
                one, two = self.add("one", start()), self.add("two", start())
                self.add("either", listen(or_(one, two)))
                self.add("both", listen(and_(one, two)))
            case _:
                one = self.add("one", start())
                self.add("choose", router(one), label="left")
                self.add("taken", listen("left"))
        # One with two starts could fail before the provider holds a call of its.
        fails = "both" not in self.names and self._chance.random() < 0.2
        where = self._chance.choice(self.names) if fails else ""
        kind = type(self._tag, (Tagged,), self.namespace)
        flow: Tagged = kind(self._tag, llm, where)
        methods = [f"{self._tag}/{name}" for name in self.names]
        return Member(self._tag, flow, methods, self._chunks, fails, self._chance.random() < 0.3)


SAID = 3


def tag_in(request: Request) -> str:
    """Of the flow that asks; "" where it is none of these."""
    found = TAG.search(request.last_user)
    return found[0] if found else ""


class Answers:
    """Each request is answered with the tag of its flow. The first of each flow is held after a chunk."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, request: Request) -> Reply:
        tag = tag_in(request)
        is_first = tag not in self._known
        self._known.add(tag)
        return Reply(text=[tag] * SAID, hold_after=1 if is_first else None)


def crowd(count: int, seed: int, llm: LLM) -> list[Member]:
    """``count`` flows, the same for the same seed."""
    chance = random.Random(seed)
    return [Drawing(chance, f"flow-{number:04}").member(llm) for number in range(count)]


def read(member: Member) -> None:
    mark.set(member.tag)
    try:
        member.seen.extend(member.flow.kickoff())
    except Exception as error:  # noqa: BLE001 - looked at by the member
        member.error = error
    member.mark_afterwards = mark.get()


async def read_async(member: Member) -> None:
    mark.set(member.tag)
    try:
        async for chunk in await member.flow.kickoff_async():
            member.seen.append(chunk)
    except Exception as error:  # noqa: BLE001 - looked at by the member
        member.error = error
    member.mark_afterwards = mark.get()
