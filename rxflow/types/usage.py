"""Token usage: what one LLM call reports or is estimated at, and what a crew or a flow adds up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, cast

from pydantic import BaseModel

BYTES_PER_TOKEN = 4
"""UTF-8 bytes, on average. A tokenizer takes milliseconds per call, and none knows all models."""


class UsageMetrics(BaseModel):
    """Tokens as the provider counted them, and how many calls succeeded.

    None means that nothing was reported; 0 is a reported 0. ``prompt_tokens`` contain those that were read from the
    provider's cache (``cached_prompt_tokens``) and those that were written to it (``cache_creation_tokens``);
    ``completion_tokens`` contain ``reasoning_tokens`` at most providers.

    The provider does not report a call that was stopped or that failed in mid-answer, but it bills it. Its tokens are
    estimated at one for four bytes, and ``is_estimated`` is True; also in a sum that such a call is a part of.
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
    """The sum of what is known."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def estimate_usage(messages: Iterable[Mapping[str, Any]], output: Iterable[str]) -> UsageMetrics:
    """Estimate the usage of a call from what was asked and what of the answer has come."""
    prompt = ceil(sum(map(count_message_bytes, messages)) / BYTES_PER_TOKEN)
    completion = ceil(sum(map(count_bytes, output)) / BYTES_PER_TOKEN)
    return UsageMetrics(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, is_estimated=True
    )


def count_bytes(text: str) -> int:
    """Count the bytes in UTF-8. A half surrogate, which a model's JSON can hold, counts too."""
    return len(text.encode("utf-8", "surrogatepass"))


def count_message_bytes(message: Mapping[str, Any]) -> int:
    """Count the text of a message, as a whole or in parts; images are not counted."""
    content = message.get("content")
    if isinstance(content, str):
        return count_bytes(content)
    parts = cast("Sequence[Any]", content) if isinstance(content, Sequence) else ()
    return sum(count_bytes(str(cast(Any, part).get("text") or "")) for part in parts if isinstance(part, Mapping))
