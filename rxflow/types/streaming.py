"""The types for programs that stream.

Programs import them from here. This module only collects the names: chunks and frames belong to a lower layer than
streams and outputs.
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
