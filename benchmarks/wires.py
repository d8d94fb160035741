"""A bare loop on each of the wires of Anthropic, Gemini and OpenAI's Responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

Event = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One provider's format: how rxflow names a model of it, what a bare client asks, and what the events say."""

    name: str
    model: str
    base: str
    """Behind the provider's address, to make the base URL of such a model."""
    path: str
    body: Event
    text_of: Callable[[Event], str]

    def base_url(self, url: str) -> str:
        """The base URL of this wire at the provider of the benchmarks."""
        return url.removesuffix("/v1") + self.base

    async def read_bare(self, url: str) -> int:
        """What a program would do that has nothing but an HTTP client."""
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{self.base_url(url)}{self.path}", json=self.body) as response,
        ):
            lines = response.aiter_lines()
            return sum([1 async for line in lines if line.startswith("data: ") and self.text_of(json.loads(line[6:]))])


def _anthropic_text(event: Event) -> str:
    return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""


def _gemini_text(event: Event) -> str:
    return "".join(str(part.get("text", "")) for part in event["candidates"][0]["content"]["parts"])


def _responses_text(event: Event) -> str:
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


_QUESTION = [{"role": "user", "content": "Read it all"}]
WIRES = (
    Wire(
        name="anthropic",
        model="anthropic/claude-sonnet-4-5-20250929",
        base="",
        path="/v1/messages",
        body={"model": "claude-sonnet-4-5-20250929", "stream": True, "max_tokens": 4096, "messages": _QUESTION},
        text_of=_anthropic_text,
    ),
    Wire(
        name="gemini",
        model="gemini/gemini-2.5-flash",
        base="/v1beta",
        path="/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        body={"contents": [{"role": "user", "parts": [{"text": "Read it all"}]}]},
        text_of=_gemini_text,
    ),
    Wire(
        name="responses",
        model="openai/responses/gpt-4o",
        base="/v1",
        path="/responses",
        body={"model": "gpt-4o", "stream": True, "input": _QUESTION},
        text_of=_responses_text,
    ),
)
