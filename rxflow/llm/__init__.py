"""Models: ``LLM``, ``BaseLLM`` for a class of your own, and the port for sources of your own."""

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
