"""What a test tells the provider to do, and what the provider tells the test it saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

Phase = Literal["body", "headers", "first_byte", "mid_stream"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that a client asked for, in whatever dialect."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    number: int
    path: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation: OpenAI's and Anthropic's messages, the input of Responses, Gemini's contents, a prompt."""
        if "prompt" in self.body:
            return [{"role": "user", "content": self.body["prompt"]}]
        found = self.body.get("messages") or self.body.get("input") or self.body.get("contents")
        return cast("list[dict[str, Any]]", found or [])

    @property
    def tools(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.body.get("tools") or [])

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream")) or "stream" in self.path.lower()  # Gemini and Bedrock say so there

    @property
    def include_usage(self) -> bool:
        options = cast("dict[str, Any]", self.body.get("stream_options") or {})
        return bool(options.get("include_usage"))

    @property
    def last_user(self) -> str:
        """Text of the last message of the user, or ""."""
        users = [message for message in self.messages if message.get("role") == "user"]
        return text_of(users[-1]) if users else ""


def text_of(message: Mapping[str, Any]) -> str:
    """Text of a message, whether its content is a string or a list of parts."""
    content = message.get("content") or message.get("parts") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in cast("list[dict[str, Any]]", content))


@dataclass(frozen=True)
class ToolCall:
    """A tool call in a reply; `arguments` as a string go out as they are, valid JSON or not."""

    name: str
    arguments: dict[str, Any] | str
    id: str | None = None


def no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one request is answered.

    The `…_after` fields count content chunks: every delta of reasoning, text and tool calls, or every item
    of `raw`. The role-only chunk travels with the first of them, so 0 means headers alone; -1 means not even
    headers. A whole (not streamed) answer is one such chunk.
    """

    text: str | Sequence[str] | None = None
    """A string goes out word by word; a sequence is exactly the deltas."""
    tool_calls: Sequence[ToolCall] = ()
    reasoning: Sequence[str] = ()
    finish_reason: str | None = None
    """Default: "tool_calls" if there are any, else "stop"."""
    usage: tuple[int, int] | None = None
    """(prompt, completion); default: counts of words."""

    delay: float = 0.0
    """Seconds before the headers."""
    first_byte_delay: float = 0.0
    """Seconds between the headers and the body."""
    pace: float = 0.0
    """Seconds between chunks."""

    hold_after: int | None = None
    """Wait there for `Loopback.release()`; comes before the three below if they have the same count."""
    stall_after: int | None = None
    """Never go on from there."""
    reset_after: int | None = None
    """Reset the TCP connection there."""
    end_after: int | None = None
    """End the HTTP response properly there and close: no finish reason, no [DONE]."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=no_headers)
    error: str | None = None
    """Message in the error body of a status other than 200."""
    raw: Sequence[bytes] | None = None
    """Body sent verbatim instead, whatever the request and the status, each item one write."""
    content_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Disconnect:
    """A client that closed before its reply was complete.

    `phase` says how far things were: "body" while its request was arriving (`request` is None then),
    "headers" before the headers were sent, "first_byte" after them, "mid_stream" from the first byte of the
    body on.
    """

    at: float
    chunks_sent: int
    phase: Phase
    request: Request | None
