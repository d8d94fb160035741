"""The origin of a chunk: each one names its flow method, task, agent and LLM call, and has a sequence number.

python examples/chunk_labels.py
"""

from typing import Any

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import start

MODEL = chosen_model()


class Kitchen(Flow):
    stream = True

    @start()
    def plan(self) -> Any:
        cook = Agent(role="Cook", goal="Choose dishes", backstory="You cook what is in season.", llm=MODEL)
        baker = Agent(role="Baker", goal="Choose bread", backstory="You get up early.", llm=MODEL)
        tasks = [
            Task(name="Soup", description="Say a word on soup", expected_output="A dish", agent=cook),
            Task(name="Bread", description="Say a word on bread", expected_output="A loaf", agent=baker, context=None),
        ]
        return Crew(agents=[cook, baker], tasks=tasks, name="kitchen").kickoff()


print(f"{'no':>3}  {'method':8}{'crew':9}{'task':12}{'agent':8}{'type':6}content")
for chunk in Kitchen().kickoff():
    task = f"{chunk.task_index} {chunk.task_name}"
    kind = chunk.chunk_type.value
    print(
        f"{chunk.seq:3}  {chunk.flow_method:8}{chunk.crew_name:9}{task:12}{chunk.agent_role:8}{kind:6}{chunk.content!r}"
    )
