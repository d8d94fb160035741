"""The bytes of streamed answers, to be cut and garbled."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from tests.loopback import Reply, Request, encode

ASKED = Request(
    body={"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}},
    headers={},
    at=0.0,
    number=1,
    path="",
)


def body_of(reply: Reply) -> bytes:
    """The whole body of an answer, as one piece."""
    events = encode.completion_events(reply, ASKED)
    return b"".join([events.role, *events.content, *events.end, encode.DONE])


def event(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """One event of a streamed answer."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": encode.CREATED,
            "model": "gpt-4o",
            "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
        }
    )


def usage(**reported: Any) -> bytes:
    """The event that reports the usage."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": encode.CREATED,
            "model": "gpt-4o",
            "choices": [],
            "usage": reported,
        }
    )


def cut(body: bytes, at: Iterable[int]) -> list[bytes]:
    """``body`` in pieces, cut at these places."""
    edges = [0, *sorted({place % (len(body) + 1) for place in at}), len(body)]
    return [piece for start, end in pairwise(edges) if (piece := body[start:end])]
