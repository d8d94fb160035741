"""Serves flows as models, for any client of OpenAI's Responses or chat completions API. ::

    app = responses.serve_models({"trip": lambda asked: Trip().events({"topic": asked.text})})

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.responses.create(model="trip", input="tides")

The answer consists of the texts of the run's LLM calls. To leave some calls out, pipe the events through an operator,
for example ``.pipe(ops.only_agent("Writer"))``. If there is no text, the answer is the run's result. Needs
``rxflow[responses]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, cast

import anyio
import reactivex
from pydantic_core import from_json
from reactivex import Observable

from rxflow import operators as ops
from rxflow._lazy import extra
from rxflow._streaming import everything
from rxflow._text import write_json
from rxflow.adapters._openai_answers import Asked, ChatAnswer, Json, ResponseAnswer
from rxflow.adapters._translation import translate
from rxflow.adapters.sse import stream
from rxflow.operators._core import select

with extra("responses"):
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

__all__ = ["Asked", "Model", "serve_models"]

MAX_BODY_BYTES: Final = 4 << 20
DONE: Final = b"data: [DONE]\n\n"


Model: TypeAlias = Callable[[Asked], Observable[Any]]
"""A function that returns the run for a request. To refuse the request with status 400, it raises ValueError."""


def serve_models(models: Mapping[str, Model]) -> Starlette:
    """Create an ASGI app that answers ``/v1/responses``, ``/v1/chat/completions`` and ``/v1/models``.

    The run of a request is disposed when the client disconnects. The app has no access control: an app around it must
    provide that.
    """

    def list_models(request: Request) -> Response:
        found = [{"id": name, "object": "model", "created": 0, "owned_by": "rxflow"} for name in models]
        return JSONResponse({"object": "list", "data": found})

    def answer_by(
        read: Callable[[Json], Asked], make: type[ResponseAnswer | ChatAnswer]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                asked = read(await _read_body(request))
                if asked.model not in models:
                    message = f"unknown model: {asked.model!r}; there are: {', '.join(models)}"
                    return _refuse(404, message, "model_not_found")
                events = models[asked.model](asked)
            except ValueError as error:
                return _refuse(400, str(error))
            if asked.parameters.get("stream"):
                return _stream(events, lambda: make(asked))
            return await _answer_at_once(request, events, make(asked))

        return answer

    return Starlette(
        routes=[
            Route("/v1/models", list_models),
            Route("/v1/responses", answer_by(_read_response_request, ResponseAnswer), methods=["POST"]),
            Route("/v1/chat/completions", answer_by(_read_chat_request, ChatAnswer), methods=["POST"]),
        ]
    )


def _stream(events: Observable[Any], make: Callable[[], ResponseAnswer | ChatAnswer]) -> Response:
    def encode(item: Json) -> bytes:
        name = f"event: {item['type']}\n" if "type" in item else ""
        return name.encode() + b"data: " + write_json(item) + b"\n\n"

    items = events.pipe(translate(make)).map(encode)
    return stream(reactivex.concat(items, reactivex.just(DONE)))


async def _answer_at_once(request: Request, events: Observable[Any], answer: ResponseAnswer | ChatAnswer) -> Response:
    response = Response(status_code=499)  # returned only if the client has disconnected, so nobody receives it
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, request, group.cancel_scope)
        response = await _collect(events, answer)
        group.cancel_scope.cancel()
    return response


async def _collect(events: Observable[Any], answer: ResponseAnswer | ChatAnswer) -> Response:
    failure: Exception | None = None
    async with events.pipe(select(everything), ops.to_output()) as output:
        try:
            async for event in output:
                for _ in answer.read(event):
                    pass
        except Exception as error:  # noqa: BLE001 - sent to the client
            failure = error
    for _ in answer.finish(failure):
        pass
    return JSONResponse(answer.whole) if answer.failure is None else _refuse(500, answer.failure, "server_error")


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _read_body(request: Request) -> Json:
    """Return the body as a JSON object. Raises ValueError if the body is too large or is not a JSON object."""
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the request is larger than {MAX_BODY_BYTES} bytes")
    try:
        parameters = from_json(bytes(body))
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ValueError(f"the request is not a JSON object: {type(parameters).__name__}")
    return cast(Json, parameters)


def _refuse(status: int, message: str, code: str = "invalid_request") -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _read_response_request(parameters: Json) -> Asked:
    given = parameters.get("input")
    return _read_request(parameters, [{"role": "user", "content": given}] if isinstance(given, str) else given, "input")


def _read_chat_request(parameters: Json) -> Asked:
    return _read_request(parameters, parameters.get("messages"), "messages")


def _read_request(parameters: Json, messages: Any, field: str) -> Asked:
    """Convert the parameters of a request to an :class:`Asked`.

    Raises:
        ValueError: the request names no model or has no valid messages, or ``stream_options`` is not an object.
    """
    model = parameters.get("model")
    if not isinstance(model, str):
        raise ValueError(f"model is not a string: {model!r}")
    if not (isinstance(messages, list) and messages):
        raise ValueError(f"{field} is not a list of messages: {cast(object, messages)!s:.80}")
    read: list[Json] = []
    for each in cast("list[Any]", messages):
        if not isinstance(each, dict):
            raise ValueError(f"{field} has what is not a message: {str(each)[:80]}")
        message = cast(Json, each)
        read.append(message | {"content": _join_texts(message.get("content"))})
    if isinstance(parameters.get("instructions"), str):
        read.insert(0, {"role": "system", "content": parameters["instructions"]})
    options: object = parameters.get("stream_options")
    if not isinstance(options, dict | None):
        raise ValueError(f"stream_options is not an object: {options!s:.80}")
    text = next((str(each["content"] or "") for each in reversed(read) if each.get("role") == "user"), "")
    return Asked(model=model, messages=read, text=text, parameters=parameters)


def _join_texts(content: Any) -> Any:
    """Return the joined texts of the parts if ``content`` is a list of parts. Otherwise return ``content`` itself."""
    if not isinstance(content, list):
        return content
    parts = [cast(Json, part) for part in cast("list[Any]", content) if isinstance(part, dict)]
    return "".join(str(part.get("text") or "") for part in parts)
