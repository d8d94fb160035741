"""Token usage: what one LLM call reports, and what a crew or a flow adds up."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class UsageMetrics(BaseModel):
    """Tokens as the provider counted them, and how many calls succeeded.

    None means that nothing was reported; 0 is a reported 0. ``prompt_tokens`` contain those that were read from the
    provider's cache (``cached_prompt_tokens``) and those that were written to it (``cache_creation_tokens``);
    ``completion_tokens`` contain ``reasoning_tokens`` at most providers.
    """

    total_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    cache_creation_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    successful_requests: int = 0

    @property
    def is_reported(self) -> bool:
        """The provider reported at least one number of tokens."""
        return self.prompt_tokens is not None or self.completion_tokens is not None or self.total_tokens is not None

    def __add__(self, other: UsageMetrics) -> UsageMetrics:
        sums: dict[str, Any] = {
            name: _add(getattr(self, name), getattr(other, name)) for name in UsageMetrics.model_fields
        }
        return UsageMetrics(**sums)


def _add(one: int | None, other: int | None) -> int | None:
    """The sum of what is known."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
