"""A chunk's type prints by its name, and equals its value."""

import json

import pytest

from rxflow.types.chunks import StreamChunk, StreamChunkType


@pytest.mark.parametrize(
    ("member", "name", "value"),
    [(StreamChunkType.TEXT, "TEXT", "text"), (StreamChunkType.TOOL_CALL, "TOOL_CALL", "tool_call")],
)
def test_a_type_prints_by_its_name_and_equals_its_value(member: StreamChunkType, name: str, value: str) -> None:
    assert f"{member}" == str(member) == f"StreamChunkType.{name}"
    assert "%s" % member == "{}".format(member) == f"StreamChunkType.{name}"  # noqa: UP031, UP032
    assert (member, member.value, hash(member)) == (value, value, hash(value))
    assert StreamChunkType(value) is member
    assert json.dumps(member) == f'"{value}"'


def test_a_chunk_keeps_its_type_through_json() -> None:
    chunk = StreamChunk(content="{", chunk_type=StreamChunkType.TOOL_CALL)
    assert json.loads(chunk.model_dump_json())["chunk_type"] == "tool_call"
    again = StreamChunk.model_validate_json(chunk.model_dump_json())
    assert again.chunk_type is StreamChunkType.TOOL_CALL
    assert again == chunk
