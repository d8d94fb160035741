"""The port to models: what a source is asked, and the deltas that it gives.

LiteLLM, OpenAI-compatible servers, the embedded model and the models that tests script all implement :class:`Source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from reactivex import Observable

from rxflow.llm._request import Request
from rxflow.types import UsageMetrics


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
