"""A flow is streamed into a plain ``for`` loop. Its result is available after the loop.

python examples/sync_streaming.py
"""

from typing import Any

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import listen, start

MODEL = chosen_model()


class Lighthouses(Flow):
    stream = True

    @start()
    def choose(self) -> dict[str, str]:
        return {"coast": "the coast of Brittany"}

    @listen(choose)
    def describe(self, chosen: dict[str, str]) -> Any:
        keeper = Agent(role="Keeper", goal="Describe lights", backstory="You kept one for years.", llm=MODEL)
        task = Task(
            description="Write about lighthouses on {coast}",
            expected_output="One paragraph",
            agent=keeper,
        )
        return Crew(agents=[keeper], tasks=[task]).kickoff(inputs=chosen)


streaming = Lighthouses().kickoff()
for chunk in streaming:
    print(chunk, end="", flush=True)

print(f"\n\nThe result, whole: {streaming.result}")
