"""``Agent``: a role with a goal, a backstory, a model and tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any, Protocol, runtime_checkable
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from rxflow.crew.rate_limit import RateLimit, limit_of
from rxflow.llm.model import LLM
from rxflow.streaming.observable import EventStream
from rxflow.tools import Tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event
from rxflow.types.results import TaskOutput

_MODEL_VARIABLES = ("MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME")
_DEFAULT_MODEL = "gpt-4.1-mini"

Guardrail = Callable[[TaskOutput], Any] | str
"""``fn(TaskOutput) -> (accepted, value or reason)``, sync or async; or a criterion in words, which the model judges."""


def _with_a_name(model: LLM | str) -> LLM | str:
    if isinstance(model, str) and not model.strip():
        raise ValueError('the model\'s name is empty; name one as "provider/model", or "rxflow/demo"')
    return model


Model = Annotated[LLM | str, AfterValidator(_with_a_name)]
"""An :class:`LLM`, or a model's name."""


class Agent(BaseModel):
    """Works on tasks: asks its model, uses its tools, gives an answer.

    Args:
        role, goal, backstory: who it is; ``{placeholders}`` are filled from the crew's inputs.
        llm: an :class:`LLM`, a model's name, or None: the environment's MODEL, MODEL_NAME or OPENAI_MODEL_NAME, else
            ``gpt-4.1-mini``. The embedded model is never chosen silently.
        max_iter: turns with the model for one answer; in the last one it may use no tools.
        max_execution_time: seconds for one task, all attempts and their judging included (a person's review begins them
            anew); then TimeoutError.
        max_retry_limit: new attempts of an LLM call that failed before its first chunk; not given: as its LLM has it.
        max_rpm: LLM calls a minute, those that judge its answers included.
        allow_delegation: may hand work and questions to the other agents of its crew.
        verbose: log what it does, at INFO, to the logger ``rxflow``.
        guardrail: see :data:`Guardrail`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    role: str
    goal: str
    backstory: str
    llm: Model | None = None
    tools: list[Tool] = Field(default_factory=list[Tool])
    max_iter: int = Field(default=25, gt=0)
    max_execution_time: float | None = Field(default=None, gt=0)
    max_retry_limit: int = Field(default=2, ge=0)
    max_rpm: int | None = Field(default=None, gt=0)
    allow_delegation: bool = False
    verbose: bool = False
    guardrail: Guardrail | None = None
    id: str = Field(default_factory=lambda: str(uuid4()))
    _named: LLM | None = PrivateAttr(default=None)
    _rate: RateLimit | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self._rate = limit_of(self.max_rpm, None)

    @property
    def model(self) -> LLM:
        """The model it uses: what ``llm`` says now."""
        if isinstance(self.llm, LLM):
            return self.llm
        name = model_from_environment() if self.llm is None else self.llm
        if self._named is None or self._named.model != name:
            self._named = LLM(name)
        return self._named

    @property
    def retries(self) -> int | None:
        """New attempts of its LLM calls; None: as many as its LLM makes."""
        return self.max_retry_limit if "max_retry_limit" in self.model_fields_set else None

    @property
    def rate(self) -> RateLimit | None:
        """Its own limit of LLM calls."""
        self._rate = limit_of(self.max_rpm, self._rate)
        return self._rate

    def observe(self, task: CanBeAssigned) -> EventStream[StreamChunk]:
        """A cold Observable of the chunks of this agent's work on ``task``: each subscription works anew.

        Raises:
            TypeError: ``task`` is no Task.
        """
        return _checked(task).chunks_by(self)

    def events(self, task: CanBeAssigned) -> EventStream[Event]:
        """The same with everything that happens."""
        return _checked(task).events_by(self)


@runtime_checkable
class CanBeAssigned(Protocol):
    """What an agent can work on: a Task."""

    def chunks_by(self, agent: Agent) -> EventStream[StreamChunk]: ...

    def events_by(self, agent: Agent) -> EventStream[Event]: ...


def _checked(task: object) -> CanBeAssigned:
    if isinstance(task, CanBeAssigned) and not isinstance(task, type):
        return task
    raise TypeError(f"an agent works on a Task, Task(description=…, expected_output=…) for instance; got {task!r}")


def model_from_environment() -> str:
    """The model's name for an agent that has none."""
    return next((os.environ[name] for name in _MODEL_VARIABLES if os.environ.get(name)), _DEFAULT_MODEL)
