"""The types for programs that stream, in the module from which programs import them.

Chunks belong to a lower layer than streams, and outputs to a higher one; this module only collects the names.
"""

from rxflow._streaming import (
    AgentStreamingOutput,
    AsyncStreamSession,
    CrewStreamingOutput,
    EventStream,
    FlowStreamingOutput,
    PipelineOutput,
    StreamSession,
)
from rxflow.types import Channel, StreamChunk, StreamChunkType, StreamFrame, ToolCallChunk

__all__ = [
    "AgentStreamingOutput",
    "AsyncStreamSession",
    "Channel",
    "CrewStreamingOutput",
    "EventStream",
    "FlowStreamingOutput",
    "PipelineOutput",
    "StreamChunk",
    "StreamChunkType",
    "StreamFrame",
    "StreamSession",
    "ToolCallChunk",
]
