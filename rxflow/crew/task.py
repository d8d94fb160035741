"""``Task``: what is to be done, what is expected, and how the answer is checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rxflow.crew.agent import Agent, Guardrail
from rxflow.crew.assignment import Assignment, Persona
from rxflow.crew.output_file import OutputFile
from rxflow.crew.placeholders import fill
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.task_run import carry_out
from rxflow.streaming.observable import EventStream, chunks
from rxflow.tools import BaseTool, Tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event
from rxflow.types.results import OutputFormat, TaskOutput


class Task(BaseModel):
    """A piece of work for an agent.

    Args:
        description, expected_output: ``{placeholders}`` are filled from the crew's inputs.
        name: what chunks show as ``task_name``; else the description.
        agent: who does it.
        context: the tasks whose answers it is told; not given: all earlier ones; None or []: none.
        tools: in place of the agent's own.
        async_execution: runs beside its neighbours of the same kind.
        output_pydantic, output_json: the answer must fit this model; one of the two at most.
        output_file: where the answer is written. Placeholders are filled, but no input leads out of the folder that
            stands before the first of them: not by ``..``, an absolute path or a symbolic link.
        callback: called with the :class:`TaskOutput`.
        guardrail, guardrails: see :data:`rxflow.crew.agent.Guardrail`; ``guardrail_max_retries`` new attempts.
        human_input: a person at the terminal reviews the answer.
        markdown: the answer is asked for in Markdown.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    description: str
    expected_output: str
    name: str | None = None
    agent: Agent | None = None
    context: list[Task] | None = None
    tools: list[Tool] = Field(default_factory=list[Tool])
    async_execution: bool = False
    output_pydantic: type[BaseModel] | None = None
    output_json: type[BaseModel] | None = None
    output_file: str | None = None
    callback: Callable[[TaskOutput], Any] | None = None
    guardrail: Guardrail | None = None
    guardrails: list[Guardrail] | Guardrail | None = None
    guardrail_max_retries: int = Field(default=3, ge=0)
    human_input: bool = False
    markdown: bool = False
    id: str = Field(default_factory=lambda: str(uuid4()))

    @model_validator(mode="after")
    def _one_output_type(self) -> Self:
        if self.output_pydantic is not None and self.output_json is not None:
            raise ValueError("give output_pydantic or output_json, not both")
        return self

    @property
    def takes_all_context(self) -> bool:
        """``context`` was not given: the task is told all earlier answers."""
        return "context" not in self.model_fields_set

    def assigned(
        self,
        agent: Agent,
        inputs: Mapping[str, Any] | None,
        *,
        index: int = 0,
        context: str = "",
        extra_tools: Sequence[BaseTool] = (),
        callbacks: Sequence[Callable[[TaskOutput], Any]] = (),
        step_callback: Callable[[Any], Any] | None = None,
        rates: Sequence[RateLimit] = (),
    ) -> Assignment:
        """This task for ``agent``, filled from ``inputs``. Raises ValueError for a missing input."""
        here = f"task {index} ({self.name or self.description[:40]!r}):"
        several = self.guardrails
        own: list[Guardrail | None] = [*several] if isinstance(several, list) else [several]
        return Assignment(
            persona=Persona.of(agent, inputs),
            description=fill(self.description, inputs, f"{here} description"),
            expected_output=fill(self.expected_output, inputs, f"{here} expected_output"),
            name=self.name,
            task_id=self.id,
            index=index,
            context=context,
            tools=[*(self.tools or agent.tools), *extra_tools],
            output_model=self.output_pydantic or self.output_json,
            output_format=OutputFormat.PYDANTIC
            if self.output_pydantic
            else OutputFormat.JSON
            if self.output_json
            else OutputFormat.RAW,
            output_file=OutputFile.of(self.output_file, inputs, f"{here} output_file") if self.output_file else None,
            callbacks=[*([self.callback] if self.callback else []), *callbacks],
            step_callback=step_callback,
            guardrails=[each for each in (self.guardrail, *own, agent.guardrail) if each is not None],
            guardrail_max_retries=self.guardrail_max_retries,
            human_input=self.human_input,
            markdown=self.markdown,
            rates=[rate for rate in (agent.rate, *rates) if rate is not None],
        )

    def events_by(self, agent: Agent) -> EventStream[Event]:
        """The events of ``agent`` working on this task alone."""
        assignment = self.assigned(agent, None)
        return EventStream(lambda scope: carry_out(scope, assignment))

    def chunks_by(self, agent: Agent) -> EventStream[StreamChunk]:
        """Their chunks."""
        return self.events_by(agent).select(chunks)
