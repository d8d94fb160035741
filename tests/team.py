"""Small crews around a scripted model."""

from typing import Any

from rxflow import LLM, Agent, BaseLLM, Crew, Flow, Task
from rxflow.flow import start
from tests.scripted import Scripted
from tests.signals import Outcome, outcome


def an_agent(model: Scripted | LLM | BaseLLM, role: str = "Writer", **given: Any) -> Agent:
    llm = model.llm if isinstance(model, Scripted) else model
    return Agent(role=role, goal="Write well", backstory="Has written a lot", llm=llm, **given)


def a_task(agent: Agent | None, description: str = "Write", **given: Any) -> Task:
    return Task(description=description, expected_output="A text", agent=agent, **given)


def a_crew(*tasks: Task, **given: Any) -> Crew:
    agents: list[Agent] = []
    for task in tasks:
        if task.agent is not None and all(task.agent is not each for each in agents):
            agents.append(task.agent)
    return Crew(agents=agents, tasks=list(tasks), **given)


class Asking(Flow):
    """One async method that calls the model."""

    stream = True
    llm: LLM

    @start()
    async def question(self) -> str:
        return str(await self.llm.acall("Hello"))


def solo(
    model: Scripted | LLM, *, crew: dict[str, Any] | None = None, agent: dict[str, Any] | None = None, **task: Any
) -> Crew:
    """One agent with one task."""
    return a_crew(a_task(an_agent(model, **agent or {}), **task), **crew or {})


def crew_saying(*words: str, **given: Any) -> Crew:
    return solo(Scripted(words), crew=given, agent={"role": "Speaker"}, name="saying")


def played(crew: Crew, inputs: dict[str, Any] | None = None) -> Outcome:
    """All that happens in one run."""
    return outcome(crew.events(inputs))


def prompt(model: Scripted, number: int = 0) -> str:
    """What a model was asked as a user, in one of its requests."""
    return model.requests[number].last_user_text
