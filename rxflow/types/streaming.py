"""The types of streaming programs, under the name by which programs import them.

The chunk lives below the streams and the outputs above them; this module only gathers them.
"""

from rxflow.streaming.output import AgentStreamingOutput, CrewStreamingOutput, FlowStreamingOutput
from rxflow.streaming.pipeline import PipelineOutput
from rxflow.streaming.session import AsyncStreamSession, StreamSession
from rxflow.types.chunks import StreamChunk, StreamChunkType, ToolCallChunk
from rxflow.types.frames import Channel, StreamFrame

__all__ = [
    "AgentStreamingOutput",
    "AsyncStreamSession",
    "Channel",
    "CrewStreamingOutput",
    "FlowStreamingOutput",
    "PipelineOutput",
    "StreamChunk",
    "StreamChunkType",
    "StreamFrame",
    "StreamSession",
    "ToolCallChunk",
]
