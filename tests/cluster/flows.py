"""Flows that workers find by their import path."""

import os
import time
from typing import Any

from rxflow import LLM, Flow
from rxflow.cluster import on_ray
from rxflow.flow import listen, start
from rxflow.operators._core.run_log import MAX_EVENT_BYTES
from rxflow.testing import ScriptedLLM
from tests.runs.flows import Twice


class Standing(Flow):
    """Says the id of its process, and waits until it is stopped."""

    @start()
    async def stand(self) -> Any:
        return await ScriptedLLM(f"{os.getpid()} 600000ms done|").acall("Stand")


class Keyed(Flow):
    """Asks the provider at ``inputs["url"]`` with a key of the worker's environment."""

    @start()
    async def call(self) -> Any:
        llm = LLM("hosted_vllm/m", base_url=self.state["url"], api_key=os.environ["CLUSTER_TEST_KEY"])
        return await llm.acall("Hello")


class Unwritable(Flow):
    """Returns what JSON cannot carry, and pickle neither."""

    @start()
    async def work(self) -> Any:
        await ScriptedLLM("so|").acall("Work")
        return (number for number in range(3))


class Huge(Flow):
    """Returns more than a store takes."""

    @start()
    def work(self) -> str:
        return "x" * MAX_EVENT_BYTES


class Branching(Flow):
    """A branch on the cluster if ``inputs["far"]``, else the same here."""

    @start()
    def branch(self) -> Any:
        if self.state["far"]:
            return on_ray("tests.runs.flows:Twice", num_cpus=0.5).observe()
        return Twice().observe()


class Asking(Flow):
    """Asks a person twice."""

    @start()
    def book(self) -> str:
        name = self.ask("In whose name?")
        return f"{name}, {self.ask('How many?')}"


class Delegating(Flow):
    """Has a branch on the cluster ask."""

    @start()
    def branch(self) -> Any:
        return on_ray("tests.cluster.flows:Asking", num_cpus=0.5).events()

    @listen(branch)
    def report(self, booked: str) -> str:
        return f"booked for {booked}"


class Silent(Flow):
    """Blocks its loop, as it should not."""

    @start()
    async def block(self) -> Any:
        await ScriptedLLM("so|").acall("Block")
        time.sleep(4)  # noqa: ASYNC251 - what this flow is for
        return "late"
