"""``Agent``: a role with a goal, a backstory, a model and tools."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, overload
from uuid import uuid4

from pydantic import BaseModel, Field, PrivateAttr
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._options import Switch
from rxflow._streaming import (
    AgentStreamingOutput,
    EventStream,
    Scope,
    Unanswered,
    chunks,
    end_with_pause,
    log_events,
    run_async,
    run_blocking,
)
from rxflow._tool_adapter import Tool
from rxflow.crew._assignment import Assignment, Fillable, Persona, RateLimit, limit_of
from rxflow.crew._guardrails import Guardrail
from rxflow.crew._task_run import carry_out
from rxflow.llm import LLM, BaseLLM, Message, Model
from rxflow.types import (
    AgentOutput,
    Event,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    OutputFormat,
    StreamChunk,
    TaskFinished,
)

if TYPE_CHECKING:
    from rxflow.crew.task import Task

_MODEL_VARIABLES = ("MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME")
_DEFAULT_MODEL = "gpt-4.1-mini"

Query: TypeAlias = str | Sequence[Message]
"""The input of ``agent.kickoff``: a question, or a conversation to continue."""


class Agent(Fillable):
    """Works on tasks: asks its model, uses its tools, and returns an answer.

    Args:
        role, goal, backstory: describe the agent; ``{placeholders}`` are filled with the crew's inputs.
        llm: an :class:`LLM`, a :class:`BaseLLM` of your own, or the name of a model. By default, the name comes from
            the environment variable MODEL, MODEL_NAME or OPENAI_MODEL_NAME. If none is set, the name is
            ``gpt-4.1-mini``. The embedded model is used only if you name it.
        tools: tools of rxflow, or of another library: see :func:`rxflow._tool_adapter.as_tool`.
        max_iter: the greatest number of turns with the model for one answer. In the last turn, the model must not call
            tools.
        max_execution_time: how many seconds one task may take, including all attempts and the judging of answers. After
            that, TimeoutError is raised. The time stops while a question to a person is open, and continues after the
            answer. If a person's feedback (``human_input``) leads to another attempt, the time starts again from zero.
        max_retry_limit: how often an LLM call is tried again if it failed before its first chunk or returned nothing;
            by default the ``max_retries`` of the LLM.
        max_rpm: how many LLM calls the agent may make in a minute, including the calls that judge its answers.
        allow_delegation: the agent may delegate work and questions to the other agents of its crew.
        verbose: the agent's work is reported on standard error: see :mod:`rxflow._streaming.console`.
        guardrail: judges the answers; see :data:`rxflow.crew._guardrails.Guardrail`. ``guardrail_max_retries`` limits
            the retries in ``kickoff`` and in work that another agent delegates. For a task, the task's own
            ``guardrail_max_retries`` applies.
        cache: results of tools are kept during a run, for later calls of the same tool with equal arguments.
        multimodal: the agent may see images. Its model asks for an image by address, with the tool
            ``add_image_to_content``.
        step_callback: called after each turn with the model and after each tool call, instead of the crew's callback.
        use_system_prompt: if True, the introduction (role, goal and backstory) is a system message. If False, the
            introduction is part of the first message, for models without system messages.
        system_template, prompt_template: texts to send instead of the introduction and instead of the prompt. In
            ``system_template``, ``{{ .System }}`` stands for the introduction. In ``prompt_template``,
            ``{{ .Prompt }}`` stands for the prompt. In both, ``{role}``, ``{goal}`` and ``{backstory}`` are filled in.
        inject_date: adds the date to the prompt, in the form of ``date_format``.
        stream: ``kickoff`` returns an :class:`AgentStreamingOutput` instead of the result.
        config: a mapping with any of these options, such as an entry of a YAML file. Keyword arguments take precedence.

    Raises:
        ValueError: an option is missing, unknown or not supported; the message says what to do instead.
        TypeError: an element of ``tools`` is not a tool.
    """

    kind: ClassVar[str] = "Agent"
    required: ClassVar[tuple[str, ...]] = ("role", "goal", "backstory")
    texts: ClassVar[tuple[str, ...]] = ("role", "goal", "backstory")

    role: str = ""  # required, but may be in config
    goal: str = ""
    backstory: str = ""
    llm: Model | None = Field(default_factory=lambda: LLM(model_from_environment()))
    tools: list[Tool] = Field(default_factory=list[Tool])
    max_iter: int = Field(default=25, gt=0)
    max_execution_time: float | None = Field(default=None, gt=0)
    max_retry_limit: int = Field(default=2, ge=0)
    max_rpm: int | None = Field(default=None, gt=0)
    allow_delegation: bool = False
    verbose: Switch = False
    guardrail: Guardrail | None = None
    guardrail_max_retries: int = Field(default=3, ge=0)
    cache: bool = True
    multimodal: Switch = False
    step_callback: Callable[[Any], Any] | None = None
    use_system_prompt: bool = True
    system_template: str | None = None
    prompt_template: str | None = None
    inject_date: bool = False
    date_format: str = "%Y-%m-%d"
    stream: bool = False
    config: Mapping[str, Any] | None = None  # copied to the other fields when the agent is created
    _named: LLM | None = PrivateAttr(default=None)
    _rate: RateLimit | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self._rate = limit_of(self.max_rpm, None)

    def _renew(self) -> None:
        super()._renew()
        self._rate = limit_of(self.max_rpm, None)  # a copy gets a new limit, which has counted no calls

    @property
    def model(self) -> LLM:
        """The model that the agent currently uses, according to ``llm``."""
        if isinstance(self.llm, LLM):
            return self.llm
        if isinstance(self.llm, BaseLLM):
            return self.llm.llm
        name = model_from_environment() if self.llm is None else self.llm
        if self._named is None or self._named.model != name:
            self._named = LLM(name)
        return self._named

    @property
    def has_chosen_model(self) -> bool:
        """Whether the program has set ``llm``. If not, the environment or the default has chosen the model."""
        return self.llm is not None and "llm" in self.model_fields_set

    @property
    def retries(self) -> int | None:
        """How often the agent's LLM calls are retried; None means the ``max_retries`` of the LLM."""
        return self.max_retry_limit if "max_retry_limit" in self.model_fields_set else None

    @property
    def rate(self) -> RateLimit | None:
        """The agent's own limit of LLM calls; None if ``max_rpm`` is not set."""
        self._rate = limit_of(self.max_rpm, self._rate)
        return self._rate

    def observe(self, work: Task | Query, response_format: type[BaseModel] | None = None) -> EventStream[StreamChunk]:
        """Return a cold Observable of the chunks of this agent's work on a task or query.

        Each subscription does the work again. ::

            turn 1     -t-t-|          (calls a tool)
            turn 2           -he-llo|
            result     -t-t---he-llo|

        Raises:
            TypeError: ``work`` is not a Task, a string or a list of messages.
        """
        return self.events(work, response_format).select(chunks)

    def events(self, work: Task | Query, response_format: type[BaseModel] | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events of this agent's work on a task or query.

        If the work completes, the last event is a TaskFinished. The result of this event is the answer, an
        :class:`AgentOutput`.
        """
        assignment = self._assign(work, response_format)

        def build(scope: Scope) -> Observable[Event]:
            metered = scope.with_own_ledger().mark_logged() if self.verbose else scope.with_own_ledger()
            events = _with_usage(carry_out(metered, assignment), metered, assignment.task_id, around=scope)
            return log_events(events) if self.verbose and not scope.is_logged else events

        return EventStream(build)

    @overload
    def kickoff(
        self, messages: Query, response_format: type[BaseModel] | None = None, *, stream: Literal[True]
    ) -> AgentStreamingOutput: ...

    @overload
    def kickoff(
        self, messages: Query, response_format: type[BaseModel] | None = None, *, stream: Literal[False]
    ) -> AgentOutput: ...

    @overload
    def kickoff(
        self, messages: Query, response_format: type[BaseModel] | None = None, *, stream: None = None
    ) -> Any: ...

    def kickoff(
        self, messages: Query, response_format: type[BaseModel] | None = None, *, stream: bool | None = None
    ) -> Any:
        """Answer ``messages`` without a crew.

        Return an :class:`AgentOutput`, or with ``stream`` an :class:`AgentStreamingOutput`.

        Inside a flow, the chunks are also in the flow's stream. ``response_format`` is a Pydantic class that the answer
        must fit. The output then has an instance of this class in ``.pydantic``.
        """
        events = self.events(messages, response_format)
        if self.stream if stream is None else stream:
            return AgentStreamingOutput(source=events)
        return run_blocking(events, TaskFinished).result

    async def kickoff_async(
        self, messages: Query, response_format: type[BaseModel] | None = None, *, stream: bool | None = None
    ) -> Any:
        """Do the same as :meth:`kickoff` in async code."""
        events = self.events(messages, response_format)
        if self.stream if stream is None else stream:
            return AgentStreamingOutput(source=events)
        return (await run_async(events, TaskFinished)).result

    akickoff = kickoff_async

    def execute_task(self, task: Task, context: str | None = None, tools: Sequence[Tool] | None = None) -> str:
        """Carry out ``task`` without a crew, and return the text of the answer; see :meth:`Task.execute_sync`."""
        return task.execute_sync(self, context, tools).raw

    async def aexecute_task(self, task: Task, context: str | None = None, tools: Sequence[Tool] | None = None) -> str:
        """Do the same as :meth:`execute_task` in async code."""
        return (await task.aexecute_sync(self, context, tools)).raw

    def _assign(self, work: Task | Query, response_format: type[BaseModel] | None) -> Assignment:
        """Return the assignment of a task or query. No inputs are filled in, so placeholders stay as they are."""
        if not isinstance(work, str | Sequence):
            if isinstance(work, type) or not hasattr(work, "assign"):
                raise TypeError(
                    "an agent works on a Task(description=…, expected_output=…), a question or a list of messages; "
                    f"got {work!r}"
                )
            assignment = work.assign(self, None)
            return assignment if response_format is None else replace(assignment, **_fitting(response_format))
        opening = self.model.request(work).messages  # raises errors in the messages before anything runs
        return Assignment(
            persona=Persona.of(self, None),
            description=str(opening[-1].get("content") or ""),
            expected_output="",
            opening=opening,
            task_id=str(uuid4()),
            tools=self.tools,
            step_callback=self.step_callback,
            guardrails=() if self.guardrail is None else (self.guardrail,),
            guardrail_max_retries=self.guardrail_max_retries,
            rates=() if self.rate is None else (self.rate,),
            caches_tools=self.cache,
            **({} if response_format is None else _fitting(response_format)),
        )


def _fitting(model: Any) -> dict[str, Any]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"response_format is a pydantic model, a class; got {model!r}")
    return {"output_model": model, "output_format": OutputFormat.PYDANTIC}


def _with_usage(events: Observable[Event], scope: Scope, task_id: str, *, around: Scope) -> Observable[Event]:
    """Emit ``events``, but make the task's result an :class:`AgentOutput`, which has the tokens of all LLM calls.

    ``S`` is the TaskStarted of the task, ``L`` is the end of an LLM call, and ``F`` is the TaskFinished of the task.
    ``A`` is the same event as ``F``, with an AgentOutput as its result. ::

        events     S--a--b--L---F|
        result     S--a--b--L---A|
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        def on_next(event: Event) -> None:
            if isinstance(event, StreamChunk):
                pass
            elif isinstance(event, LLMFinished | LLMFailed | LLMCancelled):
                scope.note_shown(event)
            elif isinstance(event, TaskFinished) and event.origin.task_id == task_id:
                event = replace(event, result=AgentOutput(**dict(event.result), token_usage=scope.ledger.total))
            observer.on_next(event)

        def on_error(error: BaseException) -> None:
            if isinstance(error, Unanswered):
                end_with_pause(observer, scope.origin, error, around.is_outermost)
            else:
                observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type excludes BaseException

        return events.subscribe(on_next, on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)


def model_from_environment() -> str:
    """Return the name of the model for agents whose ``llm`` is not set."""
    return next((os.environ[name] for name in _MODEL_VARIABLES if os.environ.get(name)), _DEFAULT_MODEL)
