"""The types of streaming programs, under the name by which programs import them.

The chunk lives below the streams and the outputs above them; this module only gathers them.
"""

from rxflow._streaming.frames import AsyncStreamSession, StreamSession
from rxflow._streaming.observable import EventStream
from rxflow._streaming.output import AgentStreamingOutput, CrewStreamingOutput, FlowStreamingOutput, PipelineOutput
from rxflow.types.chunks import StreamChunk, StreamChunkType, ToolCallChunk
from rxflow.types.frames import Channel, StreamFrame

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
