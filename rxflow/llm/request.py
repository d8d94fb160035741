"""What an LLM call asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard, cast

from pydantic import BaseModel

from rxflow.json_text import encodable

Message: TypeAlias = dict[str, Any]
ToolSchema: TypeAlias = dict[str, Any]

_SHAPE = "{'role': …, 'content': …}"


def normalize_messages(messages: str | Sequence[Message]) -> list[Message]:
    """Messages as providers take them; a string is what a user says. Raises TypeError, or ValueError for none.

    What tools, inputs and other models have said may hold what cannot be encoded: here it is replaced.
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


def is_list(given: object) -> TypeGuard[Iterable[Any]]:
    """Something to go through that stands for its items, and not one thing."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call: messages and tool schemas in the shape of OpenAI's chat API, and the model's parameters.

    ``hints`` are parameters that help where the model takes them, and are left out where it does not.
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
