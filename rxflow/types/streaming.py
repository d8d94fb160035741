"""The types for programs that stream.

Programs import the types from here. They are defined elsewhere, because chunks and frames belong to a lower floor than
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
