"""A task as one agent is to carry it out in one run: everything filled in, nothing shared with other runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rxflow.crew.guardrails import Guardrail
from rxflow.crew.output_file import OutputFile
from rxflow.crew.placeholders import fill
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.tool_use import ToolCache
from rxflow.llm.request import Message
from rxflow.llm.structured import instructions_for
from rxflow.tools import BaseTool
from rxflow.types.results import OutputFormat, TaskOutput

if TYPE_CHECKING:
    from rxflow.crew.agent import Agent


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
            role=fill(agent.role, inputs, f"{where} role").strip(),  # YAML's folded texts end with a line break
            goal=fill(agent.goal, inputs, f"{where} goal"),
            backstory=fill(agent.backstory, inputs, f"{where} backstory"),
        )

    def introduce(self, messages: list[Message]) -> list[Message]:
        """``messages`` with who the agent is before them: as a system message, or in the first one."""
        who = f"You are {self.role}. {self.backstory}\nYour goal: {self.goal}"
        if self.agent.use_system_prompt:
            return [{"role": "system", "content": who}, *messages]
        first, *others = messages
        if isinstance(first.get("content"), str):
            return [{**first, "content": f"{who}\n\n{first['content']}"}, *others]
        return [{"role": "user", "content": who}, *messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One task for one agent."""

    persona: Persona
    description: str
    expected_output: str
    name: str | None = None
    task_id: str = ""
    index: int = 0
    opening: Sequence[Message] = ()  # a conversation that the agent goes on with, in place of the description
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
    caches_tools: bool = True
    tool_cache: ToolCache | None = None  # that of the crew's run; None: one of its own
    keep_output: Callable[[TaskOutput], None] | None = None
    keep_retries: Callable[[int], None] | None = None

    @property
    def title(self) -> str:
        """What users see as the task's name."""
        return self.name or self.description

    def messages(self) -> list[Message]:
        """The opening of the conversation."""
        asked = list(self.opening) or [{"role": "user", "content": self.description}]
        parts = [f"Expected of your answer: {self.expected_output}"] if self.expected_output else []
        if self.markdown:
            parts.append("Format your answer in Markdown.")
        if self.output_model is not None:
            parts.append(instructions_for(self.output_model))
        if self.persona.agent.inject_date:
            parts.append(f"Current date: {datetime.now().astimezone().strftime(self.persona.agent.date_format)}")
        if self.context:
            parts.append(f"What is known so far:\n{self.context}")
        return self.persona.introduce(_with_text(asked, parts))


def _with_text(messages: list[Message], parts: list[str]) -> list[Message]:
    """``messages`` with ``parts`` at the end of the last one, or after it where that is not a user's text."""
    *earlier, last = messages
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*earlier, {**last, "content": "\n\n".join([last["content"], *parts])}]
    return [*messages, {"role": "user", "content": "\n\n".join(parts)}] if parts else messages
