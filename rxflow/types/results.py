"""The outputs of tasks, agents and crews, and the token usage of LLM calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import ceil
from typing import Any, cast

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, ValidationInfo, computed_field, model_validator
from pydantic_core import to_json

from rxflow._text import draw_card, draw_table, draw_text, in_words, show_title
from rxflow.types._values import find_class, name_class

BYTES_PER_TOKEN = 4
"""The average number of UTF-8 bytes per token, for estimates.

A tokenizer would take milliseconds per call, and no tokenizer knows all models.
"""


class UsageMetrics(BaseModel):
    """The tokens of one or more LLM calls, and the number of successful calls.

    A number of tokens is None if the provider did not report it. 0 means that the provider reported 0.
    ``prompt_tokens`` includes the tokens that were read from the provider's cache (``cached_prompt_tokens``) and the
    tokens that were written to that cache (``cache_creation_tokens``). With most providers, ``completion_tokens``
    includes ``reasoning_tokens``.

    If a call is stopped or fails during its answer, the provider bills the call, but usually reports no usage. rxflow
    then estimates one token for four bytes, and sets ``is_estimated``. A sum with an estimate is an estimate too.
    """

    total_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    cache_creation_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    successful_requests: int = 0
    is_estimated: bool = False

    @property
    def is_reported(self) -> bool:
        """Whether at least one number of tokens is known: prompt, completion or total. Estimates count too."""
        return self.prompt_tokens is not None or self.completion_tokens is not None or self.total_tokens is not None

    def __add__(self, other: UsageMetrics) -> UsageMetrics:
        sums: dict[str, Any] = {name: _add(getattr(self, name), getattr(other, name)) for name in _COUNTS}
        return UsageMetrics(**sums, is_estimated=self.is_estimated or other.is_estimated)


_COUNTS = tuple(name for name in UsageMetrics.model_fields if name != "is_estimated")


def _add(one: int | None, other: int | None) -> int | None:
    """Return the sum of two numbers. If one is None, return the other number."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def estimate_usage(messages: Iterable[Mapping[str, Any]], output: Iterable[str]) -> UsageMetrics:
    """Estimate the usage of a call from the messages of its request and the output so far."""
    prompt = ceil(sum(map(count_message_bytes, messages)) / BYTES_PER_TOKEN)
    completion = ceil(sum(map(count_bytes, output)) / BYTES_PER_TOKEN)
    return UsageMetrics(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, is_estimated=True
    )


def count_bytes(text: str) -> int:
    """Count the bytes of ``text`` in UTF-8. Half a surrogate pair, which JSON can contain, counts too."""
    return len(text.encode("utf-8", "surrogatepass"))


def count_message_bytes(message: Mapping[str, Any]) -> int:
    """Count the bytes of a message's text, which is a string or a list of parts. Images are not counted."""
    content = message.get("content")
    if isinstance(content, str):
        return count_bytes(content)
    parts = cast("Sequence[Any]", content) if isinstance(content, Sequence) else ()
    return sum(count_bytes(str(cast(Any, part).get("text") or "")) for part in parts if isinstance(part, Mapping))


class OutputFormat(StrEnum):
    """The format in which a task's answer was requested."""

    RAW = "raw"
    JSON = "json"
    PYDANTIC = "pydantic"


class _Result(BaseModel):  # noqa: PLW1641 - it can be changed, so it has no hash
    """The text of an answer. If a structure was requested, also the object or dict that was read from the text.

    A result can be written as JSON and read again. In the JSON, ``pydantic_model`` names the class of ``pydantic``, as
    "module:Class". The module of that class must be imported before the JSON is read. If a class cannot be found by its
    name, for example because a function defines it, pass the class to ``model_validate_json``::

        CrewOutput.model_validate_json(text, context={"models": [Report]})
    """

    raw: str = ""
    pydantic: SerializeAsAny[BaseModel] | None = None
    json_dict: dict[str, Any] | None = None

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def pydantic_model(self) -> str | None:
        """The name of the class of ``pydantic``, as "module:Class"; None if ``pydantic`` is None."""
        return None if self.pydantic is None else name_class(type(self.pydantic))

    @model_validator(mode="before")
    @classmethod
    def _read_pydantic(cls, given: Any, info: ValidationInfo) -> Any:
        """Restore the object ``pydantic`` from its JSON. Raises ValueError if the object's class cannot be found."""
        values: Any = cast(dict[str, Any], given).get("pydantic") if isinstance(given, dict) else None
        if values is None or isinstance(values, BaseModel):
            return cast(Any, given)
        model = _find_model(cast(dict[str, Any], given).get("pydantic_model"), info.context)
        return {**cast(dict[str, Any], given), "pydantic": _read_as(model, values)}

    def to_dict(self) -> dict[str, Any]:
        """Return the structured answer as a dictionary; empty if no structure was requested.

        If the answer is a pydantic RootModel, return its root as plain values, for example a list.
        """
        if self.json_dict is not None:
            return dict(self.json_dict)
        return self.pydantic.model_dump() if self.pydantic is not None else {}

    def __getitem__(self, key: str) -> Any:
        if self.pydantic is not None and hasattr(self.pydantic, key):
            return getattr(self.pydantic, key)
        if self.json_dict is not None and key in self.json_dict:
            return self.json_dict[key]
        raise KeyError(f"{key!r} is not in this output; it has {sorted(self.to_dict()) or 'raw text only'}")

    def __eq__(self, other: object) -> bool:
        try:
            return super().__eq__(other)
        except Exception:  # noqa: BLE001 - raised by a user's class, for example because arrays in it cannot be compared
            return False

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _Shown(value) if name == "pydantic" else value

    def __str__(self) -> str:
        if self.pydantic is not None:
            return in_words(self.pydantic)
        if self.json_dict is not None:
            return in_words(self.json_dict)
        return self.raw


class _Shown:
    """An object with the ``repr`` of ``value``. If ``repr(value)`` raises, the ``repr`` describes the error."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return in_words(self._value, repr)


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
        """The answer as JSON text. Raises ValueError if the task has no ``output_json``."""
        return _json_text(self, self.output_format)

    def _repr_html_(self) -> str:
        return draw_card(self.agent or "Answer", show_title(self.name or self.description), draw_text(self.raw))


class AgentOutput(TaskOutput):
    """The answer of an agent that works without a crew, after ``agent.kickoff(…)``.

    ``pydantic`` is set if ``response_format`` was given. ``messages`` is the whole conversation.
    """

    token_usage: UsageMetrics = Field(default_factory=UsageMetrics)

    @property
    def agent_role(self) -> str:
        """The role of the agent."""
        return self.agent

    @property
    def usage_metrics(self) -> dict[str, int]:
        """``token_usage`` as a dictionary, with 0 instead of None."""
        return {name: count or 0 for name, count in self.token_usage}

    def __str__(self) -> str:
        return self.raw


class CrewOutput(_Result):
    """The answer of a crew, and the outputs of its tasks.

    The answer of a crew is the last non-empty answer of its tasks.
    """

    tasks_output: list[TaskOutput] = Field(default_factory=list[TaskOutput])
    token_usage: UsageMetrics = Field(default_factory=UsageMetrics)

    @property
    def json(self) -> str:  # type: ignore[override]
        """The answer as JSON text. Raises ValueError if the task that gave the answer has no ``output_json``."""
        answers = [output for output in self.tasks_output if output.raw]
        return _json_text(self, answers[-1].output_format if answers else OutputFormat.RAW)

    def _repr_html_(self) -> str:
        rows = [(each.agent, show_title(each.name or each.description), each.raw) for each in self.tasks_output]
        tokens = self.token_usage.total_tokens
        note = f"{len(rows)} task{'' if len(rows) == 1 else 's'}" + (f", {tokens:,} tokens" if tokens else "")
        table = draw_table(("agent", "task", "answer"), rows) if len(rows) > 1 else ""
        return draw_card("Crew", note, draw_text(self.raw), table)


def _json_text(result: _Result, output_format: OutputFormat) -> str:
    if output_format is not OutputFormat.JSON:
        raise ValueError(
            f"No JSON output found in the final task. Its output format is {output_format.value!r}; give it "
            "output_json=Model"
        )
    return json.dumps(result.json_dict)


def _find_model(name: str | None, context: Any) -> type[BaseModel]:
    """Return the class ``name`` from ``context``, or else from a module that is already imported.

    Raises ValueError if there is no such class.
    """
    if name is None:
        raise ValueError("the value of pydantic is not a pydantic object, and pydantic_model does not name its class")
    module, _, path = name.partition(":")
    given: Any = cast(Mapping[str, Any], context).get("models", ()) if isinstance(context, Mapping) else ()
    for model in cast(Sequence[type[BaseModel]], given):
        if model.__qualname__ == path or model.__name__ == path.rpartition(".")[2]:
            return model
    found = find_class(name)
    if found is not None and issubclass(found, BaseModel):
        return found
    raise ValueError(
        f"the pydantic object of this result is a {path} of {module}, which is not known here; import that module "
        f"before, or give the class: model_validate_json(text, context={{'models': [{path.rpartition('.')[2]}]}})"
    )


def _read_as(model: type[BaseModel], values: Any) -> BaseModel:
    given = values
    if isinstance(values, Mapping):
        computed = model.model_computed_fields  # the JSON has computed fields, but a model may refuse them
        values = {name: value for name, value in cast(Mapping[str, Any], values).items() if name not in computed}
    try:
        # Validate as JSON, because the values may come from JSON. A strict model accepts a date as text only in JSON.
        text = to_json(values)
    except ValueError:
        return model.model_validate(values, by_name=True, by_alias=True)
    try:
        return model.model_validate_json(text, by_name=True, by_alias=True)
    except ValidationError:
        # A model inside may refuse its own computed fields. So ignore fields that the object computes again.
        made = model.model_validate_json(text, by_name=True, by_alias=True, extra="ignore")
        written = json.loads(to_json(given))
        if any(_contains(json.loads(made.model_dump_json(by_alias=each)), written) for each in (False, True)):
            return made
        raise


def _contains(values: Any, part: Any) -> bool:
    """Return whether the JSON ``values`` has everything that the JSON ``part`` has, with equal values."""
    if isinstance(values, dict) and isinstance(part, dict):
        known = cast(dict[str, Any], values)
        return all(name in known and _contains(known[name], each) for name, each in cast(dict[str, Any], part).items())
    if isinstance(values, list) and isinstance(part, list):
        known_items, items = cast(list[Any], values), cast(list[Any], part)
        return len(known_items) == len(items) and all(map(_contains, known_items, items))
    return bool(values == part)
