"""The interface to models: the request that a source receives, and the deltas that it emits.

The sources for LiteLLM, for OpenAI-compatible servers, for the embedded model, for a program's own models and for the
scripted models of tests all implement :class:`Source`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, RootModel
from reactivex import Observable

from rxflow._text import encodable
from rxflow.tools import function_name
from rxflow.types import UsageMetrics as UsageMetrics

_BARE_NAMES = {
    "openai": ("gpt-3.5", "gpt-4", "gpt-5", "chatgpt-", "o1", "o3", "o4-"),
    "anthropic": ("claude-",),
}
"""Maps a provider to prefixes. Model names with such a prefix need no provider. LiteLLM accepts such names too."""

Message: TypeAlias = dict[str, Any]
ToolSchema: TypeAlias = dict[str, Any]

_SHAPE = "{'role': …, 'content': …}"


def normalize_messages(messages: str | Sequence[Message]) -> list[Message]:
    """Return messages in the form that providers accept. A string becomes a user's message.

    Characters that cannot be encoded are replaced. They may come from tools, inputs and other models.

    Raises:
        TypeError: ``messages`` is neither a string nor a list of messages.
        ValueError: ``messages`` is an empty list.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": encodable(messages)}]
    given: object = messages
    listed = list(given) if is_list(given) else None
    if listed is None or not all(isinstance(each, Mapping) for each in listed):
        raise TypeError(f"messages must be a string or a list of {_SHAPE}; got {given!r}")
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
    """Split a model's name into the provider and the rest.

    The names of OpenAI's and Anthropic's own models do not need a provider. For other names without a provider, the
    provider is "".
    """
    provider, separator, name = model.partition("/")
    if separator:
        return provider, name
    return next((provider for provider, names in _BARE_NAMES.items() if model.startswith(names)), ""), model


def check_url(name: str, url: str) -> str:
    """Return ``url``. Raises ValueError if ``url`` is not the address of an HTTP server.

    The error message begins with ``name``, the name of the option or variable that has the address.
    """
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or a bracket is missing
        is_right = False
    if not is_right:
        # Hide the user name and the password. A wrong password may contain "/", "@" or white space.
        shown = re.sub(r"\A([a-zA-Z]+://)?.*@", r"\1***@", url, flags=re.DOTALL)
        raise ValueError(f"{name} must begin with http:// or https:// and name a host; got {shown!r}")
    return url


def is_list(given: object) -> TypeGuard[Iterable[Any]]:
    """Return whether ``given`` is an iterable other than a string, bytes, a mapping or a pydantic model."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The request for one call. Messages and tool schemas have the shape of OpenAI's chat API.

    ``parameters`` are always sent. ``hints`` are parameters that are sent only to models that accept them.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSchema] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hints: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The schemas of the functions among the tools. Other tools are the provider's own, such as a web search."""
        return [tool["function"] for tool in self.tools if "function" in tool]

    @property
    def may_call_tools(self) -> bool:
        """Whether the model may call tools. With ``tool_choice="none"``, it may not.

        Such a request still has tools: some providers refuse messages with tool calls if the request has no schemas.
        """
        return bool(self.tools) and {**self.hints, **self.parameters}.get("tool_choice") != "none"

    @property
    def speaks_of_tools(self) -> bool:
        """Whether tools are offered, or the messages contain earlier calls or results of tools."""
        return bool(self.tools) or any(
            message.get("role") == "tool" or message.get("tool_calls") for message in self.messages
        )

    @property
    def last_user_text(self) -> str:
        """The text of the last message from a user; "" if there is none. The texts of its parts are joined."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return join_texts(message.get("content"))
        return ""


def join_texts(content: object) -> str:
    """Return the text in the content of a message. The content may be a text, a list of parts, or None."""
    if not is_list(content):
        return str(content or "")
    texts = (cast(Any, part).get("text") if isinstance(part, Mapping) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


LABEL_MODEL_NAME = "SelectedLabel"
"""The name of the pydantic model, and the title of its schema, in which a model selects a label for a text."""


def response_format_for(model: type[BaseModel]) -> dict[str, Any]:
    """Return the ``response_format`` parameter of OpenAI's chat API for ``model``."""
    return {
        "type": "json_schema",
        "json_schema": {"name": function_name(model.__name__), "schema": _schema_of(model)},
    }


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of ``model``. A reference at its root is replaced by the definition that it refers to.

    The schema of a model that contains itself, or of ``RootModel[Model]``, is such a reference. OpenAI requires the
    definition itself.
    """
    schema = model.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    for _ in definitions:  # a reference may lead to another one, but not to more than there are definitions
        name = str(schema.pop("$ref", "")).rpartition("/")[2]
        schema = definitions.get(name, {}) | schema
    return schema


def has_object_root(model: type[BaseModel]) -> bool:
    """Return whether the JSON of ``model`` is an object.

    OpenAI refuses the ``response_format`` for a model whose JSON is a list or another value.
    """
    return not issubclass(model, RootModel) or _schema_of(cast(type[BaseModel], model)).get("type") == "object"


def instructions_for(model: type[BaseModel]) -> str:
    """Return a prompt that asks for JSON of ``model``, for LLMs that do not support ``response_format``."""
    schema = json.dumps(model.model_json_schema())
    kind = "object" if has_object_root(model) else "value"
    return f"Answer with one JSON {kind} and nothing else. It must fit this JSON schema:\n{schema}"


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of reasoning text."""

    content: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the text with which the model refuses to answer."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call.

    ``id``, ``name`` and ``index`` are None if the provider does not send them with this piece. That is common, so
    :class:`rxflow.llm._tool_calls.ToolCallAssembler` decides which call a piece belongs to. ``extra`` holds fields of
    the provider that must be sent back with the call, for example a thought signature.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PartDelta:
    """A part of the answer that is not text: a citation, an image, or the work of one of the provider's own tools.

    ``kind`` is, for example, "citation", "image", "audio", "server_tool", "tool_plan" (Cohere's), or "function_call"
    (OpenAI's old form of a tool call). ``data`` is the provider's JSON.
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Ending:
    """The last delta of a call that ended normally.

    Args:
        finish_reason: one of OpenAI's words ("stop", "length", "tool_calls", "content_filter") if one of them fits,
            otherwise the provider's own word; None if the provider sent none.
        usage: the usage that the provider reported.
        cost: the cost of the call in US dollars; None if it cannot be computed.
        message: additional fields for the assistant's message when it is sent back to the provider, such as
            ``reasoning_content``, ``reasoning_details`` and ``thinking_blocks``.
        response_id: the provider's id of the answer; "" if it sent none.
        response_model: the provider's name of the model that answered; "" if it sent none.
    """

    finish_reason: str | None = "stop"
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None
    message: Mapping[str, Any] = field(default_factory=dict[str, Any])
    response_id: str = ""
    response_model: str = ""


Delta: TypeAlias = str | ReasoningDelta | RefusalDelta | ToolCallDelta | PartDelta | Ending
"""An item that a source emits. Answer text is a plain ``str``, because an answer has thousands of pieces of text."""


class Source(Protocol):
    """Produces the deltas of calls. A class that inherits from ``Source`` only has to implement :meth:`stream`."""

    def stream(self, request: Request) -> Observable[Delta]:
        """Return a cold Observable of the answer: any number of deltas, then one :class:`Ending`."""
        ...

    async def calls_functions(self, model: str) -> bool:
        """Return whether the model accepts tool schemas natively. This default returns True.

        If the model does not accept them, rxflow describes the tools in text.
        """
        return True

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        """Return the seconds to wait before retry number ``attempt`` (from 1). At most ``of`` retries are allowed.

        Return None if the call should not be retried. This default returns None.
        """
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        """Return the error that is raised in place of ``error``. It has the same class, and may contain advice.

        This default returns ``error`` itself.
        """
        return error
