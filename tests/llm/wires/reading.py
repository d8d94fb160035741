"""What a wire makes of a body, and bodies to give it."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from rxflow.llm._wires.sse import Wire
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, RefusalDelta, ToolCallDelta
from tests.llm.wire import cut


@dataclass
class Answer:
    """All that a wire said of one body."""

    wire: Wire
    deltas: list[Delta] = field(default_factory=list[Delta])

    @property
    def text(self) -> str:
        return "".join(each for each in self.deltas if isinstance(each, str))

    @property
    def reasoning(self) -> str:
        return "".join(each.content for each in self.deltas if isinstance(each, ReasoningDelta))

    @property
    def refusal(self) -> str:
        return "".join(each.content for each in self.deltas if isinstance(each, RefusalDelta))

    @property
    def parts(self) -> list[tuple[str, Any]]:
        return [(each.kind, each.data) for each in self.deltas if isinstance(each, PartDelta)]

    @property
    def calls(self) -> list[tuple[str | None, str | None, str]]:
        """The id, name and arguments of each tool call, in order of their indexes."""
        pieces = [each for each in self.deltas if isinstance(each, ToolCallDelta)]
        found: dict[int | None, tuple[str | None, str | None, str]] = {}
        for piece in pieces:
            call_id, name, arguments = found.get(piece.index, (None, None, ""))
            found[piece.index] = (piece.id or call_id, piece.name or name, arguments + piece.arguments)
        return list(found.values())

    @property
    def extras(self) -> list[Any]:
        """What has to go back with tool calls."""
        return [each.extra for each in self.deltas if isinstance(each, ToolCallDelta) and each.extra]

    @property
    def all(self) -> tuple[Any, ...]:
        """Everything, to be compared: how the deltas are cut does not matter."""
        wire = self.wire
        said = (self.text, self.reasoning, self.refusal, self.parts, self.calls, self.extras)
        ends = (wire.finish_reason, wire.is_complete, wire.usage, wire.message, wire.response_id, wire.response_model)
        return (*said, *ends)


def read(wire: Wire, body: bytes, places: Iterable[int] = ()) -> Answer:
    """``body`` as ``wire`` reads it, cut at these places."""
    answer = Answer(wire)
    for piece in cut(body, places):
        if not wire.is_done:
            wire.feed(piece, answer.deltas)
    if not wire.is_done:
        wire.flush(answer.deltas)
    return answer


def encode(said: object) -> bytes:
    """JSON in which the euro sign is not escaped, so that cuts fall within characters too."""
    return json.dumps(said).encode().replace(b"\\u20ac", "€".encode())


def events(*said: object) -> bytes:
    """Server-sent events."""
    return b"".join(b"data: %s\n\n" % encode(each) for each in said)


def lines(*said: object) -> bytes:
    """One JSON object a line."""
    return b"".join(encode(each) + b"\n" for each in said)


def aws_events(*said: dict[str, Any]) -> bytes:
    """Messages of an AWS event stream: each object has the event's type as its key. An ``error`` is an exception."""
    return b"".join(map(_encode_for_aws, said))


def _encode_for_aws(said: dict[str, Any]) -> bytes:
    kind = next(iter(said), "empty")
    content: Any = said.get(kind)
    if "error" in said:
        name, kind, content = ":exception-type", said["error"]["type"], said["error"]
    else:
        name = ":event-type"
    header = bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(kind)) + kind.encode()
    payload = encode(content)
    prelude = struct.pack("!II", len(header) + len(payload) + 16, len(header))
    message = prelude + struct.pack("!I", crc32(prelude)) + header + payload
    return message + struct.pack("!I", crc32(message))
