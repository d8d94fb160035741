"""The port to models: what a source is asked, and the deltas that it gives.

LiteLLM, OpenAI-compatible servers, the embedded model and the models that tests script all implement :class:`Source`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

from pydantic import BaseModel, RootModel
from reactivex import Observable

from rxflow._json_text import encodable
from rxflow.tools import function_name
from rxflow.types import UsageMetrics

_BARE_OPENAI_NAMES = ("gpt-3.5", "gpt-4", "gpt-5", "chatgpt-", "o1", "o3", "o4-")

Message: TypeAlias = dict[str, Any]
ToolSchema: TypeAlias = dict[str, Any]

_SHAPE = "{'role': …, 'content': …}"


def normalize_messages(messages: str | Sequence[Message]) -> list[Message]:
    """Messages as providers take them; a string becomes a user's message. Raises TypeError, or ValueError for none.

    Texts of tools, inputs and other models may hold characters that cannot be encoded. They are replaced here.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": encodable(messages)}]
    given: object = messages
    listed = list(given) if is_list(given) else None
    if listed is None or not all(isinstance(each, Mapping) for each in listed):
        raise TypeError(f"messages is a string, or a list of {_SHAPE}; got {given!r}")
    if not listed:
        raise ValueError(f"messages is empty; give a string, or a list of {_SHAPE}")
    return [_encodable(each) for each in listed]


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {name: _encodable(each) for name, each in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in cast(Sequence[Any], value)]
    return value


def split_model(model: str) -> tuple[str, str]:
    """Provider and name of a model. OpenAI's own models may stand without the provider."""
    provider, separator, name = model.partition("/")
    if separator:
        return provider, name
    return ("openai" if model.startswith(_BARE_OPENAI_NAMES) else ""), model


def is_list(given: object) -> TypeGuard[Iterable[Any]]:
    """Whether ``given`` is a collection of items, and not a text, a mapping or a model."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call: messages and tool schemas in the shape of OpenAI's chat API, and the model's parameters.

    ``hints`` are parameters that help a model which takes them, and are left out for the others.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSchema] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hints: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def may_call_tools(self) -> bool:
        """Tools are offered for use, and not only because earlier turns used them."""
        return bool(self.tools) and {**self.hints, **self.parameters}.get("tool_choice") != "none"

    @property
    def speaks_of_tools(self) -> bool:
        """Tools are offered, or have been used before."""
        return bool(self.tools) or any(
            message.get("role") == "tool" or message.get("tool_calls") for message in self.messages
        )

    @property
    def last_user_text(self) -> str:
        """The text of the last message from a user."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return str(message.get("content") or "")
        return ""


def response_format_for(model: type[BaseModel]) -> dict[str, Any]:
    """The ``response_format`` parameter of OpenAI's chat API for ``model``."""
    return {
        "type": "json_schema",
        "json_schema": {"name": function_name(model.__name__), "schema": model.model_json_schema()},
    }


def has_object_root(model: type[BaseModel]) -> bool:
    """Whether ``model`` is read from an object. OpenAI refuses a ``response_format`` for lists and other values."""
    return not issubclass(model, RootModel) or model.model_json_schema().get("type") == "object"


def instructions_for(model: type[BaseModel]) -> str:
    """What :func:`response_format_for` asks for, in words, for models that do not know the parameter."""
    schema = json.dumps(model.model_json_schema())
    kind = "object" if has_object_root(model) else "value"
    return f"Answer with one JSON {kind} and nothing else. It must fit this JSON schema:\n{schema}"


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of reasoning text."""

    content: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the text in which the model refuses to answer."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call.

    A source passes on what its provider says. ``id``, ``name`` and ``index`` are None if the provider gives none;
    which call the piece belongs to is decided in one place, :class:`rxflow.llm._tool_calls.ToolCallAssembler`.

    ``extra`` holds fields of the provider's own that have to go back with the call, for example a thought signature.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PartDelta:
    """A part of the answer that is not text: a citation, an image, what a tool of the provider's own did.

    ``kind`` is "citation", "image", "audio", "server_tool", "tool_plan" (Cohere's) or "function_call" (OpenAI's old
    form); ``data`` is the provider's own JSON.
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Ending:
    """The last delta of a call that ended as it should.

    Args:
        finish_reason: in OpenAI's words ("stop", "length", "tool_calls", "content_filter") if there is one for it;
            None if the provider gave none.
        usage: as the provider reported it.
        cost: in US dollars; None if it cannot be computed.
        message: fields that the assistant's message needs when it goes back to the provider, beside its text and
            its tool calls: ``reasoning_content``, ``reasoning_details``, ``thinking_blocks`` …
    """

    finish_reason: str | None = "stop"
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None
    message: Mapping[str, Any] = field(default_factory=dict[str, Any])
    response_id: str = ""
    response_model: str = ""


Delta: TypeAlias = str | ReasoningDelta | RefusalDelta | ToolCallDelta | PartDelta | Ending
"""Answer text is a plain ``str``: there are thousands of them."""


class Source(Protocol):
    """A provider of deltas. A class that inherits from this one has to write :meth:`stream` alone."""

    def stream(self, request: Request) -> Observable[Delta]:
        """A cold Observable of the answer: any deltas, then one :class:`Ending`."""
        ...

    async def calls_functions(self, model: str) -> bool:
        """Whether the model takes tool schemas natively, as it does here; otherwise they are offered to it in text."""
        return True

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        """Seconds to wait before attempt number ``attempt`` (from 1) of ``of``; None if trying again is useless."""
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        """The error to raise for ``error``: of the same class, with advice if there is any."""
        return error
