"""Models: ``LLM``, ``BaseLLM`` for a class of your own, and the port for sources of your own."""

from rxflow.llm.base_llm import BaseLLM
from rxflow.llm.model import LLM
from rxflow.llm.request import Request
from rxflow.llm.source import Delta, Ending, PartDelta, ReasoningDelta, RefusalDelta, Source, ToolCallDelta
from rxflow.streaming.bridge import from_async

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
