"""Models: ``LLM``, ``BaseLLM`` for models of your own, and the interface for sources of your own."""

from rxflow._streaming import from_async
from rxflow.llm.base_llm import BaseLLM, Model
from rxflow.llm.model import LLM
from rxflow.llm.source import (
    Delta,
    Ending,
    Message,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    Request,
    Source,
    ToolCallDelta,
    UsageMetrics,
)

__all__ = [
    "LLM",
    "BaseLLM",
    "Delta",
    "Ending",
    "Message",
    "Model",
    "PartDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "Request",
    "Source",
    "ToolCallDelta",
    "UsageMetrics",
    "from_async",
]
