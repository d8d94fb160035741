"""What an LLM call asks for, and how it asks for an answer that fits a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard, cast

from pydantic import BaseModel, RootModel

from rxflow._json_text import encodable
from rxflow.tools import function_name

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
