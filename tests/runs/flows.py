"""Flows that other processes find by their import path."""

from typing import Any

from rxflow import LLM, Flow
from rxflow.flow import listen, start
from rxflow.testing import ScriptedLLM


class Count(Flow):
    """Says numbers: ``inputs["count"]`` of them, with ``inputs["gap_ms"]`` between them."""

    @start()
    async def count(self) -> Any:
        words = [f"n{number} " for number in range(self.state.get("count", 5))]
        gap = f" {self.state.get('gap_ms', 1)}ms "
        return await ScriptedLLM(gap.join(word.strip() for word in words) + "|").acall("Count")


class Twice(Flow):
    """Two methods, one after the other."""

    @start()
    async def plan(self) -> Any:
        return await ScriptedLLM("one-two|").acall("Plan")

    @listen(plan)
    async def write(self) -> Any:
        return await ScriptedLLM("three-four|").acall("Write")


class Broken(Flow):
    """Fails after a word."""

    @start()
    async def fail(self) -> None:
        await ScriptedLLM("so|").acall("Fail")
        raise ValueError("out of tea")


class Endless(Flow):
    """Goes on until it is cancelled."""

    @start()
    async def wait(self) -> Any:
        # Tests may cancel the run before the model is asked. With repeat=True, the turn is not left over then.
        return await ScriptedLLM("waiting 600000ms done|", repeat=True).acall("Wait")


class Calls(Flow):
    """Asks a provider, whose address is in ``inputs["url"]``."""

    @start()
    async def call(self) -> Any:
        llm = LLM("hosted_vllm/m", base_url=self.state["url"], api_key="k")
        return await llm.acall("Hello")


class Patient(Flow):
    """Asks, for ``inputs["seconds"]`` at most."""

    @start()
    def ask_a_person(self) -> str:
        return f"heard {self.ask('Go on?', timeout=self.state['seconds'])}"


class Needy(Flow[dict[str, Any]]):
    """Cannot be made without an argument."""

    def __init__(self, place: str) -> None:
        super().__init__()
