"""A chunk's type prints by its name, and equals its value; equal chunks have equal hashes."""

import copy
import json
import pickle
from collections.abc import Callable

import pytest
import reactivex as rx
from hypothesis import given, strategies as st

from rxflow import operators as ops
from rxflow.types.chunks import Origin, PackedChunks, StreamChunk, StreamChunkType, ToolCallChunk, pack_chunks

CHUNKS = st.builds(
    StreamChunk,
    content=st.sampled_from(["a", "b"]),
    seq=st.integers(0, 1),
    llm_call_id=st.sampled_from(["", "call"]),
    task_name=st.sampled_from(["", "task"]),
    tool_call=st.none() | st.builds(ToolCallChunk, arguments=st.sampled_from(["", "{"]), index=st.integers(0, 1)),
)


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


@given(CHUNKS, CHUNKS)
def test_equal_chunks_have_equal_hashes(one: StreamChunk, other: StreamChunk) -> None:
    if one == other:
        assert hash(one) == hash(other)
        assert hash(one.tool_call) == hash(other.tool_call)
    assert len({one, other, one.model_copy()}) == (1 if one == other else 2)


def test_a_chunk_that_was_packed_is_found_in_a_set_of_the_originals() -> None:
    originals = [StreamChunk(content=text, seq=number) for number, text in enumerate("abc")]
    assert set(PackedChunks(list(map(vars, originals))).unpack()) == set(originals)


@pytest.mark.parametrize("change", ["set", "deleted and set", "another attempt", "another text"])
def test_what_was_changed_in_a_chunk_is_packed_with_it(change: str) -> None:
    chunks = [Origin(task_name="plan").chunk(text).with_seq(number) for number, text in enumerate("abc")]
    if change == "another attempt":
        chunks[1] = chunks[1].with_attempt(3)
    elif change == "another text":
        chunks[1] = chunks[1].with_content("other")
    else:
        if change == "deleted and set":
            del chunks[1].task_name
        chunks[1].task_name = "write"
    expected = [dict(vars(chunk)) for chunk in chunks]

    packed = pack_chunks(chunks)

    assert packed is not None
    assert [vars(chunk) for chunk in packed.unpack()] == expected


def test_chunks_of_equal_origins_are_told_apart_by_what_differs() -> None:
    chunks = [Origin(task_name=name).chunk("a") for name in ("plan", "plan", "write")]

    packed = pack_chunks(chunks)

    assert packed is not None
    assert packed.unpack() == chunks


COPIES: dict[str, Callable[[list[StreamChunk]], list[StreamChunk]]] = {
    "pickle": lambda chunks: pickle.loads(pickle.dumps(chunks)),
    "deepcopy": copy.deepcopy,
    "copy": lambda chunks: [copy.copy(chunk) for chunk in chunks],
    "model_copy": lambda chunks: [chunk.model_copy(update={"agent_role": "editor"}) for chunk in chunks],
}


@pytest.mark.parametrize("way", COPIES)
def test_chunks_that_were_copied_together_keep_their_own_labels(way: str) -> None:
    writer, critic = Origin(agent_role="writer"), Origin(agent_role="critic")
    tool_chunk = writer.tool_chunk(ToolCallChunk(arguments="{"))
    chunks = [tool_chunk, *(origin.chunk("a").with_attempt(7) for origin in (writer, critic) for _ in range(300))]

    copied = COPIES[way](chunks)

    expected = [dict(vars(chunk)) for chunk in copied]
    assert [vars(chunk) for chunk in rx.from_iterable(copied).pipe(ops.to_output())] == expected
    assert way == "model_copy" or copied == chunks
    packed = pack_chunks(copied)
    assert packed is not None
    assert [vars(chunk) for chunk in packed.unpack()] == expected


def test_a_copy_with_a_name_that_is_not_a_field_leaves_other_chunks_unchanged() -> None:
    chunk = Origin().chunk("a").with_attempt(1)
    chunk.model_copy(update={"mood": "good"})
    assert Origin().chunk("b").with_attempt(1).model_fields_set == set(StreamChunk.model_fields)
