"""A crew as a class, with its agents and tasks in YAML files, inside a streaming flow.

python examples/crew_from_yaml.py
"""

from typing import Any

from _model import chosen_model

from rxflow import LLM, Agent, Crew, Flow, Process, Task, tool as a_tool
from rxflow.flow import start
from rxflow.project import CrewBase, agent, crew, llm, task, tool
from rxflow.tools import BaseTool

MODEL = chosen_model()


@a_tool
def almanac(plant: str) -> str:
    """Look up when a plant is sown."""
    return f"{plant} are sown 6 weeks before the last frost."


@CrewBase
class GardenCrew:
    agents: list[Agent]
    tasks: list[Task]
    agents_config: Any = "config/agents.yaml"
    tasks_config: Any = "config/tasks.yaml"

    @llm
    def house_model(self) -> LLM:
        return MODEL

    @tool
    def almanac(self) -> BaseTool:
        return almanac

    @agent
    def researcher(self) -> Agent:
        return Agent(config=self.agents_config["researcher"])

    @agent
    def editor(self) -> Agent:
        return Agent(config=self.agents_config["editor"])

    @task
    def research(self) -> Task:
        return Task(config=self.tasks_config["research"])

    @task
    def advise(self) -> Task:
        return Task(config=self.tasks_config["advise"])

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)


class Column(Flow):
    stream = True

    @start()
    def write(self) -> Any:
        return GardenCrew().crew().kickoff(inputs={"plant": "tomatoes", "season": "spring"})


speaker = ""
for chunk in Column().kickoff():
    if speaker != chunk.agent_role:
        speaker = chunk.agent_role
        print(f"\n{chunk.crew_name}.{chunk.task_name}, {speaker}: ", end="")
    if chunk.tool_call is None:
        print(chunk, end="", flush=True)
print()
