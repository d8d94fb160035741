"""``Agent``: a role with a goal, a backstory, a model and tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from reactivex import Observable

from rxflow.crew.rate_limit import RateLimit
from rxflow.llm.model import LLM
from rxflow.streaming.launch import RunObservable
from rxflow.tools import BaseTool
from rxflow.types.chunks import StreamChunk
from rxflow.types.results import TaskOutput

_MODEL_VARIABLES = ("MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME")
_DEFAULT_MODEL = "gpt-4.1-mini"

Guardrail = Callable[[TaskOutput], Any] | str
"""``fn(TaskOutput) -> (accepted, value or reason)``, sync or async; or a criterion in words, which the model judges."""


class Agent(BaseModel):
    """Works on tasks: asks its model, uses its tools, gives an answer.

    Args:
        role, goal, backstory: who it is; ``{placeholders}`` are filled from the crew's inputs.
        llm: an :class:`LLM`, a model's name, or None: the environment's MODEL, MODEL_NAME or OPENAI_MODEL_NAME, else
            ``gpt-4.1-mini``. The embedded model is never chosen silently.
        max_iter: turns with the model on one task; the last one is without tools.
        max_execution_time: seconds for one task; then TimeoutError.
        max_retry_limit: new attempts of an LLM call that failed before its first chunk.
        max_rpm: LLM calls a minute.
        allow_delegation: may hand work and questions to the other agents of its crew.
        verbose: log what it does, at INFO, to the logger ``rxflow``.
        guardrail: see :data:`Guardrail`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    role: str
    goal: str
    backstory: str
    llm: LLM | str | None = None
    tools: list[BaseTool] = Field(default_factory=list[BaseTool])
    max_iter: int = Field(default=25, gt=0)
    max_execution_time: float | None = Field(default=None, gt=0)
    max_retry_limit: int = Field(default=2, ge=0)
    max_rpm: int | None = Field(default=None, gt=0)
    allow_delegation: bool = False
    verbose: bool = False
    guardrail: Guardrail | None = None
    id: str = Field(default_factory=lambda: str(uuid4()))
    _model: LLM | None = PrivateAttr(default=None)
    _rate: RateLimit | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        if self.max_rpm is not None:
            self._rate = RateLimit(self.max_rpm)

    @property
    def model(self) -> LLM:
        """The model it uses, looked up on first use."""
        if self._model is None:
            self._model = self.llm if isinstance(self.llm, LLM) else LLM(self.llm or model_from_environment())
        return self._model

    @property
    def rate(self) -> RateLimit | None:
        """Its own limit of LLM calls."""
        return self._rate

    def observe(self, task: CanBeAssigned) -> Observable[StreamChunk]:
        """A cold Observable of the chunks of this agent's work on ``task``: each subscription works anew."""
        return task.chunks_by(self)

    def events(self, task: CanBeAssigned) -> RunObservable:
        """The same with everything that happens."""
        return task.events_by(self)


class CanBeAssigned(Protocol):
    """What an agent can work on: a Task."""

    def chunks_by(self, agent: Agent) -> Observable[StreamChunk]: ...

    def events_by(self, agent: Agent) -> RunObservable: ...


def model_from_environment() -> str:
    """The model's name for an agent that has none."""
    return next((os.environ[name] for name in _MODEL_VARIABLES if os.environ.get(name)), _DEFAULT_MODEL)
