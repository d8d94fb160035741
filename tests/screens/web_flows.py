"""The flows that the web tests serve."""

from typing import Any

from pydantic import BaseModel

from rxflow import LLM, Flow, emit
from rxflow.flow import and_, listen, start
from tests.team import solo


class Topic(BaseModel):
    topic: str = "tides"
    count: int = 1


class Trip(Flow[Topic]):
    """A flow that asks nobody and fails on demand."""

    @start()
    def report(self) -> str:
        if self.state.topic == "storm":
            raise RuntimeError("no ship in <b>the west</b>")
        return f"{self.state.count} report on {self.state.topic}"


class Asking(Flow[dict[str, Any]]):
    """A flow that asks a person."""

    @start()
    def plan(self) -> str:
        return "a plan"

    @listen(plan)
    def book(self, plan: str) -> str:
        name = self.ask("In whose <i>name</i>?")
        return f"{plan} for {name}"


class AskingTwo(Flow[dict[str, Any]]):
    """A flow that asks two people at once."""

    @start()
    async def where(self) -> str | None:
        return await self.ask_async("Where?")

    @start()
    async def who(self) -> str | None:
        return await self.ask_async("Who?")

    @listen(and_(where, who))
    def tell(self) -> str:
        return " ".join(map(str, self.method_outputs))


class Broken(Flow[dict[str, Any]]):
    """A flow whose constructor fails."""

    def __init__(self) -> None:
        raise ConnectionError("no database")


class Misbuilt(Flow[dict[str, Any]]):
    """A flow whose constructor fails with an error that inputs could cause too."""

    def __init__(self) -> None:
        raise ValueError("no key in the environment")


FLOOD = 10_000


class Flooding(Flow[dict[str, Any]]):
    """A flow that says more than the buffers of a connection take."""

    @start()
    def report(self) -> None:
        for _ in range(FLOOD):
            emit("x" * 2_000)


def speaking(llm: LLM) -> type[Flow[dict[str, Any]]]:
    """A flow whose only agent asks ``llm``."""

    class Speaking(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            return str(solo(llm).kickoff())

    return Speaking


class Scored(BaseModel):
    raw: str
    score: int


class Scoring(Flow[dict[str, Any]]):
    """Its result has a field with the name of a crew's."""

    @start()
    def judge(self) -> Scored:
        return Scored(raw="a text", score=3)
