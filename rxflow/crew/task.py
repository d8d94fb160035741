"""``Task``: what to do, what answer is expected, and how the answer is checked and stored."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from rxflow._options import TRIGGER_PAYLOAD
from rxflow._streaming import EventStream, run_async, run_blocking
from rxflow._tool_adapter import Tool, as_tool
from rxflow.crew._assignment import Assignment, Fillable, OutputFile, Persona, RateLimit, fill
from rxflow.crew._guardrails import Guardrail
from rxflow.crew._task_run import carry_out
from rxflow.crew.agent import Agent
from rxflow.llm.source import has_object_root
from rxflow.tools import BaseTool
from rxflow.types import Event, OutputFormat, TaskFinished, TaskOutput


class Task(Fillable):
    """A piece of work for an agent.

    Args:
        description, expected_output: what to do, and what to answer; ``{placeholders}`` are filled with the crew's
            inputs.
        name: the ``task_name`` of the task's chunks; by default the description.
        agent: the agent that carries out the task.
        context: the tasks whose answers are part of the prompt. A task of another crew must have its answer already.
            The default is all earlier tasks that do not run at the same time. None or [] means no tasks.
        tools: the tools for this task, instead of the agent's tools. If the list is empty, it is filled with the
            agent's tools.
        async_execution: the task runs at the same time as adjacent tasks with this option.
        output_pydantic, output_json: a model that the answer must fit; at most one of the two.
        output_file: the path of a file for the answer. Placeholders are filled in. The folder before the first
            placeholder is fixed: ``out`` in ``out/report-{day}.md``. If inputs lead out of this folder, ValueError is
            raised. This applies to ``..``, absolute paths and symbolic links.
        callback: called with the :class:`TaskOutput`.
        guardrail, guardrails: judge the answer; see :data:`rxflow.crew._guardrails.Guardrail`.
            ``guardrail_max_retries`` limits the retries.
        human_input: a person reviews the answer.
        markdown: asks for an answer in Markdown.
        allow_crewai_trigger_context: adds the input ``crewai_trigger_payload`` to the description; by default only in
            the first task of a sequential crew.
        config: a mapping with any of these options, such as an entry of a YAML file. Keyword arguments take precedence.

    Attributes:
        output: the answer of the last run that gave an answer.
        retry_count: how often the last run tried again because a guardrail or the output type rejected the answer.
        start_time: when the last run started, in UTC.
        end_time: when the last run gave its answer, in UTC; None until then.

    Raises:
        ValueError: an option is missing, unknown or not supported; the message says what to do instead.
        TypeError: an element of ``tools`` is not a tool.
    """

    kind: ClassVar[str] = "Task"
    required: ClassVar[tuple[str, ...]] = ("description", "expected_output")
    texts: ClassVar[tuple[str, ...]] = ("description", "expected_output")

    description: str = ""  # required, but may be in config
    expected_output: str = ""
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
    allow_crewai_trigger_context: bool | None = None
    config: Mapping[str, Any] | None = None  # copied to the other fields when the task is created
    output: TaskOutput | None = None
    retry_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    _borrowed: Sequence[BaseTool] = PrivateAttr(default=())  # the agent's tools that _borrow_tools() put into ``tools``

    @model_validator(mode="after")
    def _borrow_tools(self) -> Self:
        if not self.tools and self.agent is not None:
            self.tools = [*self.agent.tools]
            self._borrowed = (*self.tools,)
        return self

    @model_validator(mode="after")
    def _check_output(self) -> Self:
        if self.output_pydantic is not None and self.output_json is not None:
            raise ValueError("give output_pydantic or output_json, not both")
        if self.output_json is not None and not has_object_root(self.output_json):
            raise ValueError(
                f"output_json returns a dict, and {self.output_json.__name__} is not read from a JSON object; "
                "use output_pydantic"
            )
        if self.output_file is not None:
            OutputFile.check_template(self.output_file)
        return self

    @property
    def takes_all_context(self) -> bool:
        """True if ``context`` was not given. The prompt then contains the answers of all tasks that ended earlier."""
        return "context" not in self.model_fields_set

    @property
    def own_tools(self) -> Sequence[BaseTool]:
        """The tools that were given to the task; empty if the task uses the current tools of its agent."""
        is_untouched = len(self.tools) == len(self._borrowed) and all(map(operator.is_, self.tools, self._borrowed))
        return () if is_untouched else self.tools

    def assign(
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
        shows_payload: bool = False,
    ) -> Assignment:
        """Return the assignment of this task for ``agent``, with ``inputs`` filled in.

        ``shows_payload`` is the default for ``allow_crewai_trigger_context``.

        Raises:
            ValueError: ``inputs`` is given, but has no value for a placeholder. Or ``output_file`` is not allowed with
                these inputs.
        """
        here = f"task {index} ({self.name or self.description[:40]!r}):"
        several = self.guardrails
        own: list[Guardrail | None] = [*several] if isinstance(several, list) else [several]
        return Assignment(
            persona=Persona.of(agent, inputs),
            description=fill(self.description, inputs, f"{here} description")
            + self._read_payload(inputs, shows_payload),
            expected_output=fill(self.expected_output, inputs, f"{here} expected_output"),
            name=self.name,
            task_id=self.id,
            index=index,
            context=context,
            tools=[*(self.own_tools or agent.tools), *extra_tools],
            output_model=self.output_pydantic or self.output_json,
            output_format=OutputFormat.PYDANTIC
            if self.output_pydantic
            else OutputFormat.JSON
            if self.output_json
            else OutputFormat.RAW,
            output_file=OutputFile.of(self.output_file, inputs, f"{here} output_file") if self.output_file else None,
            callbacks=[*([self.callback] if self.callback else []), *callbacks],
            step_callback=agent.step_callback or step_callback,
            guardrails=[each for each in (self.guardrail, *own, agent.guardrail) if each is not None],
            guardrail_max_retries=self.guardrail_max_retries,
            human_input=self.human_input,
            markdown=self.markdown,
            rates=[rate for rate in (agent.rate, *rates) if rate is not None],
            caches_tools=agent.cache,
            keep_start=self._keep_start,
            keep_output=self._keep_output,
            keep_retries=self._keep_retries,
        )

    def _read_payload(self, inputs: Mapping[str, Any] | None, by_default: bool) -> str:
        """Return the text that adds the trigger payload to the description; empty if no payload is added."""
        payload = (inputs or {}).get(TRIGGER_PAYLOAD)
        is_wanted = by_default if self.allow_crewai_trigger_context is None else self.allow_crewai_trigger_context
        is_shown = is_wanted and payload is not None and TRIGGER_PAYLOAD not in self.description
        return f"\n\nTrigger Payload: {payload}" if is_shown else ""

    def interpolate_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Fill in the placeholders of description, expected output and output file.

        See :meth:`Fillable.interpolate_inputs`.
        """
        template = self._get_template("output_file")
        file = None if template is None else OutputFile.of(template, inputs or None, "Task output_file")
        super().interpolate_inputs(inputs)
        if template is not None and file is not None:
            self._set_filled("output_file", template, str(file.path))

    def prompt(self) -> str:
        """Return the prompt of the last run that gave an answer.

        If there is no such run, return the prompt that a run would have now.

        Raises:
            ValueError: the task has no agent.
        """
        said = [] if self.output is None else [each for each in self.output.messages if each.get("role") == "user"]
        if said:
            return str(said[0]["content"])
        return str(self.assign(self._worker(None), None).messages()[-1]["content"])

    def copy(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, agents: Sequence[Agent] = (), task_mapping: Mapping[str, Task] | None = None
    ) -> Self:
        """Return another task with the same options and a new id.

        Args:
            agents: an agent in this list replaces the task's agent if both have the same role.
            task_mapping: tasks by ``key``. If this mapping has the key of a task in ``context``, that task is replaced
                by the task in the mapping.
        """
        mapping = task_mapping or {}
        update: dict[str, Any] = {
            "agent": next((each for each in agents if self.agent and each.role == self.agent.role), self.agent)
        }
        if self.context:
            update["context"] = [mapping.get(task.key, task) for task in self.context]
        return self.model_copy(update=update)

    interpolate_inputs_and_add_conversation_history = interpolate_inputs

    def execute_sync(
        self, agent: Agent | None = None, context: str | None = None, tools: Sequence[Tool] | None = None
    ) -> TaskOutput:
        """Carry out this task alone, without a crew.

        Args:
            agent: the agent to use instead of the task's own.
            context: a text for the prompt, with what is known so far.
            tools: the tools to use instead of the task's and the agent's.

        Raises:
            ValueError: the task has no agent.
            Exception: the same errors as in a crew.
        """
        return run_blocking(self._alone(agent, context, tools), TaskFinished).result

    async def aexecute_sync(
        self, agent: Agent | None = None, context: str | None = None, tools: Sequence[Tool] | None = None
    ) -> TaskOutput:
        """Do the same as :meth:`execute_sync` in async code."""
        return (await run_async(self._alone(agent, context, tools), TaskFinished)).result

    def _worker(self, agent: Agent | None) -> Agent:
        worker = agent or self.agent
        if worker is None:
            raise ValueError(f"the task {self.name or self.description[:40]!r} has no agent assigned; give it agent=…")
        return worker

    def _alone(self, agent: Agent | None, context: str | None, tools: Sequence[Tool] | None) -> EventStream[Event]:
        assignment = self.assign(self._worker(agent), None, context=context or "")
        if tools is not None:
            assignment = replace(assignment, tools=list(map(as_tool, tools)))
        return EventStream(lambda scope: carry_out(scope, assignment))

    def _renew(self) -> None:
        super()._renew()
        self.output = self.start_time = self.end_time = None
        self.retry_count = 0

    @property
    def execution_duration(self) -> float | None:
        """The seconds from the start to the answer of the last run; None before there is an answer."""
        if self.start_time is None or self.end_time is None:
            return None
        return (self.end_time - self.start_time).total_seconds()

    def _keep_start(self) -> None:
        self.start_time, self.end_time = datetime.now(UTC), None

    def _keep_output(self, output: TaskOutput) -> None:
        self.output = output
        self.end_time = datetime.now(UTC)

    def _keep_retries(self, retries: int) -> None:
        self.retry_count = retries
