"""The dialects that the provider on loopback speaks: one and the same `Reply`, as each provider would stream it.

Which one is meant is read from the path of the request, as a real provider has one path for each.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rxflow import LLM
from tests.loopback import encode
from tests.loopback.encode import Events
from tests.loopback.reply import Reply, Request


@dataclass(frozen=True)
class Dialect:
    """How a kind of provider is asked, and how it streams an answer."""

    name: str
    path: str
    """What the path of its requests ends with."""
    model: str
    """A model of that kind, as litellm names it."""
    base: str
    """Behind the provider's address, to make the base URL of such a model."""
    encode: Callable[[Reply, Request], Events]
    content_type: str = "text/event-stream; charset=utf-8"
    parameters: tuple[tuple[str, str], ...] = ()
    """What `LLM` needs besides."""
    has_tools: bool = True
    """Text completions have neither tools nor reasoning."""

    def make_llm(self, url: str, **given: Any) -> LLM:
        """A model of this kind, at a provider on loopback."""
        base_url = url.removesuffix("/v1") + self.base
        parameters: dict[str, Any] = dict(self.parameters) | given
        return LLM(self.model, base_url=base_url, api_key="k", **parameters)

    def make_burst(self, words: int) -> bytes:
        """The beginning of an answer of so many words, without its end."""
        asked = Request(body={}, headers={}, at=0.0, number=1, path=self.path)
        events = self.encode(Reply(text=[f"w{at} " for at in range(words)]), asked)
        return b"".join([events.role, *events.content])

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def dialect_of(path: str) -> Dialect | None:
    """The dialect of a request, by its path."""
    path = path.partition("?")[0]
    return next((each for each in DIALECTS if path.endswith(each.path)), None)


def sse(data: dict[str, Any], *, is_named: bool = False) -> bytes:
    """A server-sent event; `is_named`: with its type as its name, too."""
    name = f"event: {data['type']}\n".encode() if is_named else b""
    return name + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def cut_arguments(call: dict[str, Any]) -> Iterator[str]:
    arguments: str = call["function"]["arguments"]
    for start in range(0, len(arguments), encode.ARGUMENT_PIECE):
        yield arguments[start : start + encode.ARGUMENT_PIECE]


def model_of(request: Request) -> str:
    """As it is named in the body; others name it in the path."""
    return str(request.body.get("model") or "loopback")


def encode_mistral(reply: Reply, request: Request) -> Events:
    """Chat completions that report their usage without being asked to."""
    asked = request.body | {"stream_options": {"include_usage": True}}
    return encode.chat_events(reply, replace(request, body=asked))


def encode_completion(reply: Reply, request: Request) -> Events:
    """OpenAI's text completions: they have text only."""
    common = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": encode.CREATED,
        "model": model_of(request),
    }

    def event(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return sse(common | {"choices": [choice]})

    usage = sse(common | {"choices": [], "usage": encode.usage_of(reply, request)})
    return Events(
        b"", map(event, encode.text_pieces(reply)), [event("", reply.finish_reason or "stop"), usage, encode.DONE]
    )


def encode_messages(reply: Reply, request: Request) -> Events:
    """Anthropic's messages: blocks, each begun and ended."""
    usage = encode.usage_of(reply, request)
    stop = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}[encode.finish_reason(reply)]

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind} | fields, is_named=True)

    def block(index: int, start: dict[str, Any], deltas: Iterable[dict[str, Any]]) -> Iterator[bytes]:
        opening = event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield opening + event("content_block_delta", index=index, delta=delta)
            opening = b""
        yield event("content_block_stop", index=index)

    def blocks() -> Iterator[bytes]:
        index = 0
        if reply.reasoning:
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in reply.reasoning]
            signed: dict[str, Any] = {"type": "signature_delta", "signature": "sealed"}
            yield from block(index, {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed])
            index += 1
        if reply.text is not None:
            texts = ({"type": "text_delta", "text": piece} for piece in encode.text_pieces(reply))
            yield from block(index, {"type": "text", "text": ""}, texts)
            index += 1
        for call in encode.tool_calls(reply, request):
            start: dict[str, Any] = {
                "type": "tool_use",
                "id": call["id"],
                "name": call["function"]["name"],
                "input": {},
            }
            pieces = ({"type": "input_json_delta", "partial_json": piece} for piece in cut_arguments(call))
            yield from block(index, start, pieces)
            index += 1

    begun = {"input_tokens": usage["prompt_tokens"], "output_tokens": 1}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": model_of(request)}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
    opening = event("message_start", message=message)
    delta = {"stop_reason": stop, "stop_sequence": None}
    ending = event("message_delta", delta=delta, usage={"output_tokens": usage["completion_tokens"]})
    return Events(opening, blocks(), [ending, event("message_stop")])


def encode_gemini(reply: Reply, request: Request) -> Events:
    """Gemini's candidates: whole calls, and thoughts as marked parts."""
    usage = encode.usage_of(reply, request)
    reported = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["total_tokens"],
    }

    def event(part: dict[str, Any], **fields: Any) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0} | fields
        return sse({"candidates": [candidate], "usageMetadata": reported, "modelVersion": "loopback"})

    def content() -> Iterator[bytes]:
        yield from (event({"text": piece, "thought": True}) for piece in reply.reasoning)
        yield from (event({"text": piece}) for piece in encode.text_pieces(reply))
        for call in encode.tool_calls(reply, request):
            arguments = json.loads(call["function"]["arguments"])
            yield event({"functionCall": {"name": call["function"]["name"], "args": arguments}})

    reason = "MAX_TOKENS" if reply.finish_reason == "length" else "STOP"
    return Events(b"", content(), [event({"text": ""}, finishReason=reason)])


def encode_responses(reply: Reply, request: Request) -> Events:
    """OpenAI's Responses: items, whose whole content comes again at the end."""
    usage = encode.usage_of(reply, request)
    numbers = iter(range(1 << 30))
    response: dict[str, Any] = {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": encode.CREATED,
        "model": model_of(request),
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    output: list[dict[str, Any]] = []

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(numbers)} | fields, is_named=True)

    def item(begun: dict[str, Any], whole: dict[str, Any], kind: str, pieces: Iterable[str]) -> Iterator[bytes]:
        at: dict[str, Any] = {"output_index": len(output)}
        place: dict[str, Any] = at | {"item_id": begun["id"]}
        opening = event("response.output_item.added", item=begun, **at)
        if kind == "output_text":
            place["content_index"] = 0
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
            opening += event("response.content_part.added", part=part, **place)
        elif kind == "reasoning_summary_text":
            place["summary_index"] = 0
            part = {"type": "summary_text", "text": ""}
            opening += event("response.reasoning_summary_part.added", part=part, **place)
        for piece in pieces:
            yield opening + event(f"response.{kind}.delta", delta=piece, **place)
            opening = b""
        output.append(begun | whole)
        yield opening + event("response.output_item.done", item=output[-1], **at)

    def content() -> Iterator[bytes]:
        if reply.reasoning:
            begun: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": ""}
            summary = [{"type": "summary_text", "text": "".join(reply.reasoning)}]
            whole: dict[str, Any] = {"summary": summary, "encrypted_content": "sealed"}
            yield from item(begun, whole, "reasoning_summary_text", reply.reasoning)
        if reply.text is not None:
            texts = encode.text_pieces(reply)
            begun = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            part: dict[str, Any] = {"type": "output_text", "text": "".join(texts), "annotations": []}
            yield from item(begun, {"status": "completed", "content": [part]}, "output_text", texts)
        for call in encode.tool_calls(reply, request):
            begun = {"id": f"fc_{len(output)}", "type": "function_call", "status": "in_progress", "arguments": ""}
            begun |= {"call_id": call["id"], "name": call["function"]["name"]}
            whole = {"status": "completed", "arguments": call["function"]["arguments"]}
            yield from item(begun, whole, "function_call_arguments", cut_arguments(call))

    def end() -> bytes:
        counted: dict[str, Any] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        status = "incomplete" if reply.finish_reason == "length" else "completed"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        whole = {"status": status, "incomplete_details": details, "output": output, "usage": counted}
        return event(f"response.{status}", response=response | whole)

    opening = event("response.created", response=response)
    pieces = list(content())  # the end repeats them, so they are made first
    return Events(opening, iter(pieces), [end()])


def encode_converse(reply: Reply, request: Request) -> Events:
    """Bedrock's Converse: binary frames, each with its type in its head."""
    usage = encode.usage_of(reply, request)
    stop = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}[encode.finish_reason(reply)]

    def block(index: int, start: dict[str, Any] | None, deltas: Iterable[dict[str, Any]]) -> Iterator[bytes]:
        at = {"contentBlockIndex": index}
        opening = b"" if start is None else frame("contentBlockStart", at | {"start": start})
        for delta in deltas:
            yield opening + frame("contentBlockDelta", at | {"delta": delta})
            opening = b""
        yield opening + frame("contentBlockStop", at)

    def content() -> Iterator[bytes]:
        index = 0
        if reply.reasoning:
            thoughts = [{"reasoningContent": {"text": piece}} for piece in reply.reasoning]
            yield from block(index, None, [*thoughts, {"reasoningContent": {"signature": "sealed"}}])
            index += 1
        if reply.text is not None:
            yield from block(index, None, ({"text": piece} for piece in encode.text_pieces(reply)))
            index += 1
        for call in encode.tool_calls(reply, request):
            start = {"toolUse": {"toolUseId": call["id"], "name": call["function"]["name"]}}
            pieces = ({"toolUse": {"input": piece}} for piece in cut_arguments(call))
            yield from block(index, start, pieces)
            index += 1

    counted = {"inputTokens": usage["prompt_tokens"], "outputTokens": usage["completion_tokens"]}
    counted["totalTokens"] = usage["total_tokens"]
    metadata = frame("metadata", {"usage": counted, "metrics": {"latencyMs": 1}})
    return Events(
        frame("messageStart", {"role": "assistant"}), content(), [frame("messageStop", {"stopReason": stop}), metadata]
    )


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    """A message of AWS's event stream."""
    fields = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in fields.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + body
    return message + struct.pack("!I", zlib.crc32(message))


def encode_ollama(reply: Reply, request: Request) -> Events:
    """Ollama's own: a line of JSON for each event."""
    usage = encode.usage_of(reply, request)

    def event(**fields: Any) -> bytes:
        common = {"model": model_of(request), "created_at": "2024-01-01T00:00:00Z", "done": False}
        return json.dumps(common | fields).encode() + b"\n"

    def message(**fields: Any) -> bytes:
        return event(message={"role": "assistant", "content": ""} | fields)

    def content() -> Iterator[bytes]:
        yield from (message(thinking=piece) for piece in reply.reasoning)
        yield from (message(content=piece) for piece in encode.text_pieces(reply))
        for call in encode.tool_calls(reply, request):
            function = call["function"] | {"arguments": json.loads(call["function"]["arguments"])}
            yield message(tool_calls=[{"function": function}])

    end = event(
        message={"role": "assistant", "content": ""},
        done=True,
        done_reason="length" if reply.finish_reason == "length" else "stop",
        prompt_eval_count=usage["prompt_tokens"],
        eval_count=usage["completion_tokens"],
    )
    return Events(b"", content(), [end])


_AWS = (("aws_access_key_id", "x"), ("aws_secret_access_key", "x"), ("aws_region_name", "us-east-1"))

CHAT = Dialect("openai chat", "/chat/completions", "openai/gpt-4o", "/v1", encode.chat_events)
DIALECTS = (
    Dialect("mistral chat", "/mistral/v1/chat/completions", "mistral/mistral-small", "/mistral", encode_mistral),
    CHAT,
    Dialect(
        "completions",
        "/completions",
        "text-completion-openai/gpt-3.5-turbo-instruct",
        "/v1",
        encode_completion,
        has_tools=False,
    ),
    Dialect("openai responses", "/responses", "openai/responses/gpt-4o", "/v1", encode_responses),
    Dialect("anthropic messages", "/messages", "anthropic/claude-sonnet-4-5-20250929", "", encode_messages),
    Dialect("gemini", ":streamGenerateContent", "gemini/gemini-2.5-flash", "/v1beta", encode_gemini),
    Dialect(
        "bedrock converse",
        "/converse-stream",
        "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        encode_converse,
        "application/vnd.amazon.eventstream",
        _AWS,
    ),
    Dialect("ollama", "/api/chat", "ollama_chat/llama3", "", encode_ollama, "application/x-ndjson"),
)
