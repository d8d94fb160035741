"""A task as one agent is to carry it out in one run: everything filled in, nothing shared with other runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from rxflow.crew.agent import Agent, Guardrail
from rxflow.crew.output_file import OutputFile
from rxflow.crew.placeholders import fill
from rxflow.crew.rate_limit import RateLimit
from rxflow.llm.request import Message
from rxflow.llm.structured import instructions_for
from rxflow.tools import BaseTool
from rxflow.types.results import OutputFormat, TaskOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """Who the agent is in this run: its texts with the inputs filled in."""

    agent: Agent
    role: str
    goal: str
    backstory: str

    @classmethod
    def of(cls, agent: Agent, inputs: Mapping[str, Any] | None) -> Persona:
        """``agent`` with its placeholders filled. Raises ValueError for a missing input."""
        where = f"agent {agent.role!r}:"
        return cls(
            agent=agent,
            role=fill(agent.role, inputs, f"{where} role"),
            goal=fill(agent.goal, inputs, f"{where} goal"),
            backstory=fill(agent.backstory, inputs, f"{where} backstory"),
        )

    @property
    def system_message(self) -> Message:
        """How the model is told who it is."""
        return {
            "role": "system",
            "content": f"You are {self.role}. {self.backstory}\nYour goal: {self.goal}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One task for one agent."""

    persona: Persona
    description: str
    expected_output: str
    name: str | None = None
    task_id: str = ""
    index: int = 0
    context: str = ""
    tools: Sequence[BaseTool] = ()
    output_model: type[BaseModel] | None = None
    output_format: OutputFormat = OutputFormat.RAW
    output_file: OutputFile | None = None
    callbacks: Sequence[Callable[[TaskOutput], Any]] = ()
    step_callback: Callable[[Any], Any] | None = None
    guardrails: Sequence[Guardrail] = ()
    guardrail_max_retries: int = 3
    human_input: bool = False
    markdown: bool = False
    rates: Sequence[RateLimit] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        """What users see as the task's name."""
        return self.name or self.description

    def messages(self) -> list[Message]:
        """The opening of the conversation."""
        parts = [self.description, f"Expected of your answer: {self.expected_output}"]
        if self.markdown:
            parts.append("Format your answer in Markdown.")
        if self.output_model is not None:
            parts.append(instructions_for(self.output_model))
        if self.context:
            parts.append(f"What is known so far:\n{self.context}")
        return [self.persona.system_message, {"role": "user", "content": "\n\n".join(parts)}]
