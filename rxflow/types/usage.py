"""Token usage: what one LLM call reports, and what a crew or a flow adds up."""

from __future__ import annotations

from pydantic import BaseModel


class UsageMetrics(BaseModel):
    """Tokens as the provider counted them, and how many calls succeeded. Zero where it reported nothing."""

    total_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    successful_requests: int = 0

    def __add__(self, other: UsageMetrics) -> UsageMetrics:
        return UsageMetrics(**{name: getattr(self, name) + getattr(other, name) for name in UsageMetrics.model_fields})
