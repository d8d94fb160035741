"""A flow with two crews, a tool, a router and a question, and the world around it, which outlives its runs."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import reactivex as rx
from reactivex import Observable

from rxflow import LLM, operators as ops
from rxflow._streaming.bridge import from_async
from rxflow._streaming.journal import Journal
from rxflow.flow import Flow, listen, router, start
from rxflow.llm.source import Delta, Ending, Request, Source, ToolCallDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, InputRequested, Retracted
from rxflow.types.results import UsageMetrics
from tests.signals import Outcome, outcome
from tests.team import solo

USAGE = UsageMetrics(prompt_tokens=2, completion_tokens=1, total_tokens=3, successful_requests=1)


class Knowing(Source):
    """A model that answers by what it is asked, not by how often. It looks things up first, where it has a tool."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stream(self, request: Request) -> Observable[Delta]:
        question = request.last_user_text.partition("\n")[0]
        self.asked.append(question)
        must_look = request.speaks_of_tools and request.messages[-1]["role"] != "tool"

        async def answer(emit: Callable[[Delta], None]) -> None:
            if must_look:
                emit(ToolCallDelta(0, f"call {question}", "look", '{"where": "north"}'))
            else:
                for word in ("on ", question, ". "):
                    emit(word)
                    await asyncio.sleep(0)
            emit(Ending("tool_calls" if must_look else "stop", USAGE, 0.01))

        return from_async(answer)

    @property
    def llm(self) -> LLM:
        return LLM("knowing", source=self, function_calling=True)


class World:
    """What lies outside of the run and outlives it: the model, the tool, and what the methods have done."""

    def __init__(self) -> None:
        self.model = Knowing()
        self.looked: list[str] = []
        self.ran: list[str] = []
        self.answered: list[str] = []
        world = self

        @tool(is_idempotent=True)
        def look(where: str) -> str:
            """Look somewhere."""
            world.looked.append(where)
            return f"ice in the {where}"

        class Trip(Flow):
            @start()
            def plan(self) -> str:
                self.state["plan"] = str(solo(world.model.llm, description="tides", agent={"tools": [look]}).kickoff())
                world.ran.append("plan")
                return str(self.state["plan"])

            @router(plan)
            def choose(self) -> str:
                world.ran.append("choose")
                return "far"

            @listen("far")
            async def write(self, label: str) -> str:
                text = str(await solo(world.model.llm, description="boats").kickoff_async())
                name = await self.ask_async("In whose name?")
                self.state["name"] = name
                world.ran.append("write")
                return f"{label}: {text}{name}"

            @listen(write)
            def book(self, text: str) -> Any:
                world.ran.append("book")
                return rx.of("booked for ", self.state["name"])

        self.flow = Trip

    def answer(self, request: InputRequested) -> str:
        self.answered.append(request.message)
        return "Ada"

    def begin(self) -> Outcome:
        return outcome(self.flow().events().pipe(ops.answer_with(self.answer)))

    def go_on(self, past: Sequence[Event], flow: type[Flow[Any]] | None = None) -> Outcome:
        events = (flow or self.flow)().events().resume_from(Journal(past))
        return outcome(events.pipe(ops.answer_with(self.answer)))


def text_of(events: Sequence[Event]) -> str:
    """What a reader of the whole log has on the screen in the end."""
    shown: list[StreamChunk] = []
    for event in events:
        if isinstance(event, StreamChunk) and not event.replayed and event.chunk_type == "text":
            shown.append(event)
        elif isinstance(event, Retracted):
            shown = [chunk for chunk in shown if not event.covers(chunk)]
    return "".join(chunk.content for chunk in shown)
