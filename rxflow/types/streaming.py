"""The types of streaming programs, under the name by which programs import them.

The chunk lives below the streams and the outputs above them; this module only gathers them.
"""

from rxflow.streaming.output import CrewStreamingOutput, FlowStreamingOutput
from rxflow.types.chunks import StreamChunk, StreamChunkType, ToolCallChunk

__all__ = [
    "CrewStreamingOutput",
    "FlowStreamingOutput",
    "StreamChunk",
    "StreamChunkType",
    "ToolCallChunk",
]
