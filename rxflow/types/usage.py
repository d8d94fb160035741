"""Token usage: what one LLM call reports or is estimated to use, and the sums for crews and flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, cast

from pydantic import BaseModel

BYTES_PER_TOKEN = 4
"""The average number of UTF-8 bytes per token. A tokenizer needs milliseconds per call, and none knows all models."""


class UsageMetrics(BaseModel):
    """Tokens as the provider counted them, and the number of successful calls.

    None means that nothing was reported; 0 is a reported 0. ``prompt_tokens`` includes the tokens that were read from
    the provider's cache (``cached_prompt_tokens``) and those that were written to it (``cache_creation_tokens``).
    ``completion_tokens`` includes ``reasoning_tokens`` at most providers.

    A provider does not report the usage of a call that was stopped or failed during its answer, but bills it. For such
    a call, rxflow estimates one token for four bytes, and ``is_estimated`` is True, also in sums that include it.
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
        """Whether a number of tokens is known: reported by the provider, or estimated."""
        return self.prompt_tokens is not None or self.completion_tokens is not None or self.total_tokens is not None

    def __add__(self, other: UsageMetrics) -> UsageMetrics:
        sums: dict[str, Any] = {name: _add(getattr(self, name), getattr(other, name)) for name in _COUNTS}
        return UsageMetrics(**sums, is_estimated=self.is_estimated or other.is_estimated)


_COUNTS = tuple(name for name in UsageMetrics.model_fields if name != "is_estimated")


def _add(one: int | None, other: int | None) -> int | None:
    """Return the sum of the known numbers."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def estimate_usage(messages: Iterable[Mapping[str, Any]], output: Iterable[str]) -> UsageMetrics:
    """Estimate the usage of a call from its messages and the output so far."""
    prompt = ceil(sum(map(count_message_bytes, messages)) / BYTES_PER_TOKEN)
    completion = ceil(sum(map(count_bytes, output)) / BYTES_PER_TOKEN)
    return UsageMetrics(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, is_estimated=True
    )


def count_bytes(text: str) -> int:
    """Count the bytes in UTF-8. Half a surrogate pair, which a model's JSON can contain, counts too."""
    return len(text.encode("utf-8", "surrogatepass"))


def count_message_bytes(message: Mapping[str, Any]) -> int:
    """Count the bytes of a message's text, as a whole or in parts. Images are not counted."""
    content = message.get("content")
    if isinstance(content, str):
        return count_bytes(content)
    parts = cast("Sequence[Any]", content) if isinstance(content, Sequence) else ()
    return sum(count_bytes(str(cast(Any, part).get("text") or "")) for part in parts if isinstance(part, Mapping))
