"""Turns a `Reply` into the bytes of an HTTP response."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from tests.loopback.reply import Reply, Request, text_of

DONE = b"data: [DONE]\n\n"
LAST_HTTP_CHUNK = b"0\r\n\r\n"
ARGUMENT_PIECE = 6
CREATED = 1_700_000_000
EVENT_STREAM = "text/event-stream; charset=utf-8"


class Piece(NamedTuple):
    """Bytes of one write and how many SSE events, [DONE] aside, they carry."""

    data: bytes
    events: int


@dataclass(frozen=True)
class Response:
    """The writes of a response: head, content pieces, and what ends it."""

    head: bytes
    pieces: Iterable[Piece]
    tail: Piece | None = None
    """None: the length is in the head, nothing has to end the body."""


class Events(NamedTuple):
    """The events of a streamed answer; those that open and end it hold no content."""

    role: bytes
    content: Iterator[bytes]
    end: list[bytes]


def response(
    reply: Reply,
    request: Request,
    stream: Callable[[Reply, Request], Events] | None = None,
    content_type: str = EVENT_STREAM,
) -> Response:
    """`stream` gives the events of a streamed answer, with all that ends it; by default those of a chat completion."""
    if reply.raw is not None:
        items = (Piece(http_chunk(item), count_events(item)) for item in reply.raw)
        return Response(chunked_head(reply, content_type), items, Piece(LAST_HTTP_CHUNK, 0))
    if reply.status != HTTPStatus.OK:
        return whole(reply.status, error_body(reply.status, reply.error), reply)
    if not request.stream:
        return whole(reply.status, completion(reply, request), reply)
    return streamed(reply, (stream or chat_events)(reply, request), content_type)


def streamed(reply: Reply, events: Events, content_type: str) -> Response:
    first = next(events.content, None)
    end = Piece(b"".join(map(http_chunk, events.end)) + LAST_HTTP_CHUNK, sum(event != DONE for event in events.end))
    role = http_chunk(events.role)
    if first is None:
        return Response(chunked_head(reply, content_type), (), Piece(role + end.data, 1 + end.events))

    def pieces() -> Iterator[Piece]:
        yield Piece(role + http_chunk(first), 2)
        yield from (Piece(http_chunk(event), 1) for event in events.content)

    return Response(chunked_head(reply, content_type), pieces(), end)


def whole(status: int, body: dict[str, Any], reply: Reply | None = None) -> Response:
    """A JSON response with its length in the head."""
    data = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(data))}
    return Response(head(status, fields, reply), (Piece(data, 0),))


def chunked_head(reply: Reply, content_type: str) -> bytes:
    fields = {"content-type": content_type, "transfer-encoding": "chunked"}
    return head(reply.status, fields, reply)


def head(status: int, fields: dict[str, str], reply: Reply | None) -> bytes:
    if reply is not None:
        if reply.content_type is not None:
            fields["content-type"] = reply.content_type
        fields.update({name.lower(): value for name, value in reply.headers.items()})
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # providers answer with codes of their own, such as 529
        return "Error"


def http_chunk(data: bytes) -> bytes:
    # An empty HTTP chunk would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def count_events(data: bytes) -> int:
    return data.count(b"data:") - data.count(b"data: [DONE]")


# As OpenAI answers them, because clients read the class of an error out of these words: message, type, code.
ERRORS: dict[int, tuple[str, str, str | None]] = {
    HTTPStatus.UNAUTHORIZED: ("Incorrect API key provided: k.", "invalid_request_error", "invalid_api_key"),
    HTTPStatus.FORBIDDEN: ("Project has no access to this model.", "request_forbidden", "forbidden"),
    HTTPStatus.NOT_FOUND: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    HTTPStatus.TOO_MANY_REQUESTS: ("Rate limit reached.", "rate_limit_error", "rate_limit_exceeded"),
}


def error_body(status: int, message: str | None) -> dict[str, Any]:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    usual, kind, code = ERRORS.get(status, (phrase(status), kind, None))
    return {"error": {"message": message or usual, "type": kind, "param": None, "code": code}}


def chat_events(reply: Reply, request: Request) -> Events:
    """A streamed chat completion, to its [DONE]."""
    events = completion_events(reply, request)
    return Events(events.role, events.content, [*events.end, DONE])


def completion_events(reply: Reply, request: Request) -> Events:
    common: dict[str, Any] = {
        "id": completion_id(request),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.body.get("model"),
    }
    # As OpenAI does: every chunk has the field once usage was asked for.
    usage: dict[str, Any] = {"usage": None} if request.include_usage else {}

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse(common | {"choices": [choice]} | usage)

    end = [event({}, finish_reason(reply))]
    if request.include_usage:
        end.append(sse(common | {"choices": [], "usage": usage_of(reply, request)}))
    role = event({"role": "assistant", "content": None if reply.text is None else ""})
    return Events(role, (event(delta) for delta in deltas(reply, request)), end)


def sse(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def deltas(reply: Reply, request: Request) -> Iterator[dict[str, Any]]:
    yield from ({"reasoning_content": piece} for piece in reply.reasoning)
    yield from ({"content": piece} for piece in text_pieces(reply))
    for index, call in enumerate(tool_calls(reply, request)):
        arguments: str = call["function"]["arguments"]
        opening = call | {"function": call["function"] | {"arguments": ""}}
        yield {"tool_calls": [{"index": index} | opening]}
        for start in range(0, len(arguments), ARGUMENT_PIECE):
            piece = arguments[start : start + ARGUMENT_PIECE]
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def text_pieces(reply: Reply) -> list[str]:
    if isinstance(reply.text, str):
        return re.findall(r"\A\s+|\S+\s*", reply.text)
    return list(reply.text or ())


def tool_calls(reply: Reply, request: Request) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{request.number}_{index}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
            },
        }
        for index, call in enumerate(reply.tool_calls)
    ]


def completion(reply: Reply, request: Request) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if reply.text is None else "".join(text_pieces(reply)),
    }
    if reply.reasoning:
        message["reasoning_content"] = "".join(reply.reasoning)
    if reply.tool_calls:
        message["tool_calls"] = tool_calls(reply, request)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(reply)}
    return {
        "id": completion_id(request),
        "object": "chat.completion",
        "created": CREATED,
        "model": request.body.get("model"),
        "choices": [choice],
        "usage": usage_of(reply, request),
    }


def completion_id(request: Request) -> str:
    return f"chatcmpl-{request.number}"


def finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def usage_of(reply: Reply, request: Request) -> dict[str, int]:
    if reply.usage is not None:
        prompt, answer = reply.usage
    else:
        prompt = sum(len(text_of(message).split()) for message in request.messages)
        parts = ["".join(reply.reasoning), "".join(text_pieces(reply))]
        parts += [call["function"]["arguments"] for call in tool_calls(reply, request)]
        answer = sum(len(part.split()) for part in parts)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
