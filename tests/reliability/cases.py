"""What a storm is made of: flows, each with a point at which it is stopped and a way of stopping it, from one seed."""

import random
import re
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.gate import Gate
from tests.loopback import Reply, Request, ToolCall
from tests.loopback.dialects import dialect_of

Point = Literal[
    "before",  # closed before the first pull, which then starts nothing
    "at once",  # subscribed, and stopped in the same breath
    "preparing",  # somewhere between the call and the request: there is no gate inside litellm
    "connect",
    "headers",
    "first byte",
    "mid-chunk",  # the provider has sent half an event
    "sync tool",
    "async tool",
    "between",  # as the first method's end is announced
    "completing",  # as the end of the call, of the task, of the crew, of the last method or of the flow is announced
]
Way = Literal["close", "aclose", "with", "dispose", "from a thread", "twice", "cancelled reader", "collection"]

ENDINGS = ("LLMFinished", "TaskFinished", "CrewFinished", "MethodFinished", "FlowFinished")
POINTS: dict[Point, int] = {
    "before": 4,
    "at once": 6,
    "preparing": 10,
    "connect": 3,
    "headers": 12,
    "first byte": 12,
    "mid-chunk": 20,
    "sync tool": 10,
    "async tool": 10,
    "between": 6,
    "completing": 10,
}
"""How often each is drawn. A connection that never stands needs a host, and a client of litellm's, of its own."""

_MARK = re.compile(r"case (\d+)")


@dataclass
class Case:
    """One flow of a storm, and what became of it."""

    number: int
    point: Point
    way: Way
    kind: Literal["sync", "async"]
    """Of its methods."""
    on_loop: bool
    """It lives on the loop of the program, among the others there; else on a thread of its own."""
    chunks: int
    cut: float
    """Where in the event after those the provider falls silent, from 0 to 1."""
    delay: float
    ending: str
    reached: Gate = field(default_factory=Gate)
    free: Gate = field(default_factory=Gate)
    began: list[str] = field(default_factory=list[str])
    requests: int = 0
    shown: int = 0
    stopped_at: float = 0.0
    gone_at: float | None = None
    """When the server of a connection that never stood saw it close."""
    refused: list[BaseException] = field(default_factory=list[BaseException])
    """What a tool was told that asked for a model after the end."""
    wrong: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        place = "on the program's loop" if self.on_loop else "on a thread of its own"
        return f"case {self.number}: {self.point}, {self.way}, {self.kind} methods, {place}; began {self.began}"

    @property
    def watches_events(self) -> bool:
        """It is read by a subscription to its events, which alone tell of ends; the others are iterated."""
        return self.ends_itself or self.point in ("at once", "preparing") or self.way == "dispose"

    @property
    def ends_itself(self) -> bool:
        """It is stopped from inside, by whoever hears the event."""
        return self.point in ("between", "completing")

    @property
    def may_have_begun(self) -> list[str]:
        """The methods, at most: what would come next must not start."""
        if self.point == "before":
            return []
        is_late = self.point == "completing" and self.ending in ("MethodFinished", "FlowFinished")
        return ["first", "second"] if is_late else ["first"]

    @property
    def may_have_asked(self) -> int:
        """The requests, at most."""
        return 0 if self.point in ("before", "connect") else len(self.may_have_begun)

    def show(self) -> None:
        """A chunk has come."""
        self.shown += 1
        if self.point == "mid-chunk" and self.shown == self.chunks:
            self.reached.open()

    def complaints(self) -> list[str]:
        """What went wrong."""
        found = list(self.wrong)
        must = self.point not in ("before", "at once")
        # Whoever stops it at once may be held up on a busy machine, and the flow is faster then.
        is_late = self.point == "at once" and self.began == ["first", "second"]
        if self.began != self.may_have_begun and (must or self.began) and not is_late:
            found.append(f"the methods {self.began} began, not {self.may_have_begun}")
        exact = must and self.point != "preparing"
        may_have_asked = len(self.began) if is_late else self.may_have_asked
        if self.requests > may_have_asked or (exact and self.requests < self.may_have_asked):
            found.append(f"{self.requests} requests were made, not {self.may_have_asked}")
        found += [f"its tool was told {error!r}" for error in self.refused if not isinstance(error, CancelledError)]
        return [f"{self}: {each}" for each in found]

    def answer(self, request: Request) -> Reply:
        """What the provider says to this flow."""
        self.requests += 1
        match self.point:
            case "preparing" | "headers":
                self.reached.open()
                return Reply(stall_after=-1)
            case "first byte":
                self.reached.open()
                return Reply(stall_after=0)
            case "mid-chunk":
                pieces = self._half_said(request)
                return Reply(raw=pieces, stall_after=len(pieces))
            case "sync tool" | "async tool" if self.requests == 1:
                return Reply(tool_calls=[ToolCall("dig", {})])
            case _:
                return Reply(text=["a"] * self.chunks)

    def _half_said(self, request: Request) -> list[bytes]:
        dialect = dialect_of(request.path)
        assert dialect is not None
        role, content, _ = dialect.encode(Reply(text=["a"] * (self.chunks + 1)), request)
        *said, last = (next(content) for _ in range(self.chunks + 1))
        half = last[: max(1, int(self.cut * (len(last) - 3)))]
        return [role + said[0], *said[1:], half]


def drawn(count: int, seed: int, points: Mapping[Point, int] = POINTS) -> Iterator[Case]:
    """``count`` cases, the same for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        (point,) = chance.choices(list(points), list(points.values()))
        on_loop = chance.random() < 0.6
        yield Case(
            number=number,
            point=point,
            way=chance.choice(_ways(point, on_loop=on_loop)),
            kind=chance.choice(("sync", "async")),
            on_loop=on_loop,
            chunks=chance.randint(1, 6),
            cut=chance.random(),
            delay=chance.uniform(0, 0.01),
            ending=chance.choice(ENDINGS) if point == "completing" else "MethodFinished",
        )


def _ways(point: Point, *, on_loop: bool) -> list[Way]:
    match point:
        case "before":
            return ["close", "with", "twice"]
        case "at once" | "preparing":
            return ["dispose", "from a thread", "twice"]
        case "between" | "completing":
            return ["dispose"]
        case _ if on_loop:
            return ["close", "aclose", "with", "dispose", "from a thread", "twice", "cancelled reader", "collection"]
        case _:
            return ["close", "with", "dispose", "from a thread", "twice"]


def case_of(request: Request, cases: list[Case]) -> Case:
    """The case that a request belongs to."""
    said: list[Any] = _MARK.findall(request.last_user)
    return cases[int(said[0])]
