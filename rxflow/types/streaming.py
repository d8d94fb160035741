"""The types of streaming programs, under the name by which programs import them.

The chunk lives below the streams and the outputs above them; this module only gathers them.
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
