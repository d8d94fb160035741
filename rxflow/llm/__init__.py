"""Models: ``LLM``, ``BaseLLM`` for models of your own, and the interface for sources of your own."""

from rxflow._streaming import from_async
from rxflow.llm.base_llm import BaseLLM
from rxflow.llm.model import LLM
from rxflow.llm.source import Delta, Ending, PartDelta, ReasoningDelta, RefusalDelta, Request, Source, ToolCallDelta

__all__ = [
    "LLM",
    "BaseLLM",
    "Delta",
    "Ending",
    "PartDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "Request",
    "Source",
    "ToolCallDelta",
    "from_async",
]
