"""What an LLM call asks for, and the deltas that a source answers with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

from pydantic import BaseModel
from reactivex import Observable

from rxflow.json_text import encodable
from rxflow.types.usage import UsageMetrics

Message: TypeAlias = dict[str, Any]
ToolSchema: TypeAlias = dict[str, Any]

_SHAPE = "{'role': …, 'content': …}"


def written(messages: str | Sequence[Message]) -> list[Message]:
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
        return bool(self.tools) and self.parameters.get("tool_choice") != "none"

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


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of reasoning text."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; ``id`` and ``name`` come with the first of each ``index`` only."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """The last delta of a call that ended as it should."""

    finish_reason: str = "stop"
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


Delta: TypeAlias = str | ReasoningDelta | ToolCallDelta | Ending
"""Answer text is a plain ``str``: there are thousands of them."""


class Source(Protocol):
    """A provider of deltas: litellm, the embedded model, or one that a test scripts."""

    def stream(self, request: Request) -> Observable[Delta]:
        """A cold Observable of the answer: any deltas, then one :class:`Ending`."""
        ...

    async def calls_functions(self, model: str) -> bool:
        """The model takes tool schemas natively; otherwise tools are offered to it in text."""
        ...

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        """Seconds to wait before attempt number ``attempt`` (from 1) of ``of``; None: trying again is no use."""
        ...

    def explain(self, error: BaseException, model: str) -> BaseException:
        """The error to raise for ``error``: of the same class, with a line that says what to do."""
        ...
