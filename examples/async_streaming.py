"""Two flows are streamed at once in one event loop, with ``async for``. Their chunks never mix.

python examples/async_streaming.py
"""

import asyncio
from typing import Any

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import start

MODEL = chosen_model()


class Bird(Flow):
    stream = True

    @start()
    async def portray(self) -> Any:
        watcher = Agent(role="Bird watcher", goal="Portray birds", backstory="You are patient.", llm=MODEL)
        task = Task(description="Tell something about the {bird}", expected_output="A portrait", agent=watcher)
        return await Crew(agents=[watcher], tasks=[task]).kickoff_async(inputs={"bird": self.state["bird"]})


async def watch(bird: str) -> None:
    streaming = await Bird().kickoff_async(inputs={"bird": bird})
    async for chunk in streaming:
        print(f"{bird + ':':8}{chunk.content.strip()}")
    print(f"{bird + ':':8}said in full: {streaming.result}")


async def main() -> None:
    await asyncio.gather(watch("heron"), watch("wren"))


asyncio.run(main())
