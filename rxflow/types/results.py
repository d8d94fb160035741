"""What tasks and crews give back."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny

from rxflow.types.usage import UsageMetrics


class OutputFormat(StrEnum):
    """How a task's answer was asked for."""

    RAW = "raw"
    JSON = "json"
    PYDANTIC = "pydantic"


class _Result(BaseModel):
    """Text, and the structure read from it where one was asked for."""

    raw: str = ""
    pydantic: SerializeAsAny[BaseModel] | None = None
    json_dict: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The structured answer as a dict; empty where no structure was asked for."""
        if self.json_dict is not None:
            return dict(self.json_dict)
        return self.pydantic.model_dump() if self.pydantic is not None else {}

    def __getitem__(self, key: str) -> Any:
        if self.pydantic is not None and hasattr(self.pydantic, key):
            return getattr(self.pydantic, key)
        if self.json_dict is not None and key in self.json_dict:
            return self.json_dict[key]
        raise KeyError(f"{key!r} is not in this output; it has {sorted(self.to_dict()) or 'raw text only'}")

    def __str__(self) -> str:
        if self.pydantic is not None:
            return str(self.pydantic)
        if self.json_dict is not None:
            return str(self.json_dict)
        return self.raw


class TaskOutput(_Result):
    """The answer to one task."""

    description: str
    name: str | None = None
    expected_output: str | None = None
    summary: str = ""
    agent: str = ""
    output_format: OutputFormat = OutputFormat.RAW
    messages: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])

    def model_post_init(self, context: Any, /) -> None:
        if not self.summary:
            self.summary = " ".join(self.description.split()[:10]) + "..."

    @property
    def json(self) -> str:  # type: ignore[override]
        """The answer as JSON text. Raises ValueError where the task has no ``output_json``."""
        return _json_text(self, self.output_format)


class AgentOutput(TaskOutput):
    """The answer of an agent that works by itself, ``agent.kickoff(…)``.

    ``pydantic`` is there with ``response_format``; ``messages`` is the whole conversation.
    """

    token_usage: UsageMetrics = Field(default_factory=UsageMetrics)

    @property
    def agent_role(self) -> str:
        """The role of the agent."""
        return self.agent

    @property
    def usage_metrics(self) -> dict[str, int]:
        """``token_usage`` as a dict, with 0 for what was not reported."""
        return {name: count or 0 for name, count in self.token_usage}

    def __str__(self) -> str:
        return self.raw


class CrewOutput(_Result):
    """The answer of a crew: that of its last task, with all tasks' outputs beside it."""

    tasks_output: list[TaskOutput] = Field(default_factory=list[TaskOutput])
    token_usage: UsageMetrics = Field(default_factory=UsageMetrics)

    @property
    def json(self) -> str:  # type: ignore[override]
        """The answer as JSON text. Raises ValueError where the last task has no ``output_json``."""
        return _json_text(self, self.tasks_output[-1].output_format if self.tasks_output else OutputFormat.RAW)


def _json_text(result: _Result, output_format: OutputFormat) -> str:
    if output_format is not OutputFormat.JSON:
        raise ValueError(
            f"no JSON here: the task's output format is {output_format.value!r}; give it output_json=Model"
        )
    return json.dumps(result.json_dict)
