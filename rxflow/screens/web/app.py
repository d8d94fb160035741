"""The routes of the web server: the page, and the API, which the page and other programs use.

======  =====================================  ==========================================================
GET     ``/``                                  the page
GET     ``/api/flows``, ``/api/flows/{name}``  all flows with their inputs; the graph of one flow
POST    ``/api/runs``                          start: ``{"flow": name, "inputs": {…}}`` → ``{"id": …}``
GET     ``/api/runs``, ``/api/runs/{id}``      all runs; one run: status, error, result, open questions
GET     ``/api/runs/{id}/events``              the events after ``Last-Event-ID``, as server-sent events
POST    ``/api/runs/{id}/cancel``              stop: ``{"reason": …}``
POST    ``/api/runs/{id}/answers/{request}``   answer a question: ``{"value": …}``
GET     ``/drawing.css``                       the style sheet for the graphs
======  =====================================  ==========================================================
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast, get_args

import anyio
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from rxflow._lazy import extra
from rxflow._loops import Once
from rxflow._text import describe, in_words, list_problems, to_plain_json, write_json
from rxflow.adapters import sse
from rxflow.flow import Flow
from rxflow.flow._drawing.markup import DRAWING_STYLE, draw_figure
from rxflow.flow._graph import read_graph
from rxflow.flow._state import require_known
from rxflow.runs import LIVE, Head, Run, Runs, StoreError, WhenUnread
from rxflow.runs.options import read_grace
from rxflow.screens.web.guard import Guard, check_token
from rxflow.types import CrewOutput, Event, TaskOutput

with extra("web"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

__all__ = ["Limits", "create_app"]

PAGE = Path(__file__).parent / "page"
ANONYMOUS: Final = "flow"
ANSWER_WITHIN_S: Final = 600
"""Seconds that a question waits for its answer before the run is paused. A later answer resumes the run."""
KINDS = sorted({each.__name__ for each in get_args(Event)})

logger = logging.getLogger("rxflow")

T = TypeVar("T")
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server.

    Attributes:
        runs: how many runs may be live at once. A further start is refused with status 429.
        readers: how many readers may be connected at once, over all runs. A further reader is refused with status 429.
        input_bytes: the greatest size of a request's body. A larger body is refused with status 413.
        unread_s: seconds after which a reader that reads nothing is disconnected.
    """

    runs: int = 100
    readers: int = 2_000
    input_bytes: int = 64 * 1024
    unread_s: float = sse.SEND_TIMEOUT_S


def create_app(
    flows: type[Flow[Any]] | Mapping[str, type[Flow[Any]]],
    *,
    runs: Runs | None = None,
    token: str | None = None,
    allowed_origins: tuple[str, ...] = (),
    limits: Limits | None = None,
    when_unread: WhenUnread = "detach",
) -> Starlette:
    """Create an ASGI application that runs ``flows`` and shows them.

    Args:
        flows: a flow class, or a mapping of names to flow classes. The page shows these names.
        runs: where the runs are kept; by default in memory.
        token: the secret that every request needs, as ``Authorization: Bearer …`` or as a cookie. Opening
            ``/?token=…`` once sets the cookie. If None, only requests from this machine are accepted, and only if
            they use a name of this machine, such as ``localhost``.
        allowed_origins: other origins whose pages may use the API, such as ``"https://example.org"``.
        limits: the limits of the server.
        when_unread: what happens to a run without readers; see :meth:`Runs.start`. By default it continues, and can be
            stopped on the page.

    Raises:
        TypeError: ``flows`` are not flow classes, or ``when_unread`` has a wrong type.
        ValueError: ``token`` is too short, or has a character that is not printable ASCII; or ``when_unread`` has a
            wrong value.
    """
    named = _name_flows(flows)
    check_token(token)
    kept = Runs() if runs is None else runs
    api = _Api(named, kept, limits or Limits(), when_unread)

    @asynccontextmanager
    async def close_own_runs(app: Starlette) -> AsyncGenerator[None]:
        yield
        if runs is None:
            await anyio.to_thread.run_sync(kept.close)

    routes = [
        Route("/api/flows", api.list_flows),
        Route("/api/flows/{name}", api.show_flow),
        Route("/api/runs", api.start, methods=["POST"]),
        Route("/api/runs", api.list_runs),
        Route("/api/runs/{run_id}", api.show_run),
        Route("/api/runs/{run_id}/events", api.follow),
        Route("/api/runs/{run_id}/cancel", api.cancel, methods=["POST"]),
        Route("/api/runs/{run_id}/answers/{request_id}", api.answer, methods=["POST"]),
        Route("/drawing.css", _send_drawing_style),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    guard = Middleware(Guard, token=token, allowed_origins=allowed_origins)
    refusals = {HTTPException: _refuse, StoreError: _refuse_without_store}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=refusals, lifespan=close_own_runs)


def _name_flows(flows: type[Flow[Any]] | Mapping[str, type[Flow[Any]]]) -> dict[str, type[Flow[Any]]]:
    named = dict(flows) if isinstance(flows, Mapping) else {getattr(flows, "__name__", ""): flows}
    for name, flow in cast("dict[str, object]", named).items():
        if not (isinstance(flow, type) and issubclass(flow, Flow)):
            raise TypeError(f"{name or 'flows'} is not a flow class: {flow!r}")
    return named


class _Api:
    def __init__(
        self, flows: Mapping[str, type[Flow[Any]]], runs: Runs, limits: Limits, when_unread: WhenUnread
    ) -> None:
        read_grace(when_unread)  # raises an error for a wrong value
        self._flows = flows
        self._runs = runs
        self._limits = limits
        self._when_unread: WhenUnread = when_unread
        self._readers = 0
        self._starting = anyio.Lock()
        self._started: dict[str, str] = {}  # maps the ids of runs to the names under which they were started

    async def list_flows(self, request: Request) -> Response:
        flows = {name: {"inputs": _inputs_of(name, flow)} for name, flow in self._flows.items()}
        return _send_json({"flows": flows, "kinds": KINDS})

    async def show_flow(self, request: Request) -> Response:
        graph = read_graph(self._flow(request.path_params["name"]))
        return _send_json({"methods": list(graph.methods), "svg": draw_figure(graph)})

    async def start(self, request: Request) -> Response:
        body = await self._read_body(request)
        name = body.get("flow") or next(iter(self._flows), "")
        flow = self._flow(name)
        inputs: Any = body.get("inputs") or {}
        if not isinstance(inputs, dict):
            raise HTTPException(422, f"inputs is not an object: {inputs!r}")
        async with self._starting:  # one start at a time, so that each start counts the runs of earlier starts
            live = await _in_thread(lambda: sum(len(self._runs.list(status=status)) for status in LIVE))
            if live >= self._limits.runs:
                raise HTTPException(429, f"{live} runs are live, which is the limit of this server; stop one, or wait")
            try:
                made = await _in_thread(flow)
            except Exception as error:
                raise _not_made(name, error) from error
            target = _name_target(flow) if _has_import_path(flow) else made
            try:
                run = await _in_thread(lambda: self._begin(target, made.state, cast("dict[str, Any]", inputs)))
            except (ValueError, TypeError) as error:
                raise HTTPException(422, _explain(error)) from error
            except StoreError:
                raise
            except Exception as error:
                raise _not_made(name, error) from error
        self._started[run.id] = name
        return _send_json({"id": run.id}, 201)

    def _begin(self, target: Flow[Any] | str, state: object, inputs: Mapping[str, Any]) -> Run:
        require_known(state, inputs)
        return self._runs.start(target, inputs, when_unread=self._when_unread, answer_within=ANSWER_WITHIN_S)

    async def list_runs(self, request: Request) -> Response:
        known = set(self._started)
        heads = await _in_thread(self._look_up_all)
        for forgotten in known.difference(head.run_id for head in heads):
            self._started.pop(forgotten, None)  # another request may have removed it
        shown = [{"id": head.run_id, "flow": self._name_of(head), "status": head.status} for head in reversed(heads)]
        return _send_json({"runs": shown})

    def _look_up_all(self) -> list[Head]:
        heads: list[Head] = []
        for run in self._runs.list():
            with suppress(LookupError):  # the run was forgotten after list() returned it
                heads.append(run.look_up())
        return heads

    async def show_run(self, request: Request) -> Response:
        run = await self._run(request)
        try:
            head = await _in_thread(run.look_up)
            end = await _in_thread(lambda: _describe_end(run, head))
        except LookupError as error:  # the run was forgotten meanwhile
            raise _not_there(error) from error
        return _send_json({"id": run.id, "flow": self._name_of(head), "status": head.status} | end)

    async def follow(self, request: Request) -> Response:
        run = await self._run(request)
        if self._readers >= self._limits.readers:
            raise HTTPException(429, f"{self._readers} readers follow runs, which is the limit of this server")
        response = sse.respond(request, run.read, send_timeout=self._limits.unread_s)
        return _Counted(response, self)

    async def cancel(self, request: Request) -> Response:
        run, body = await self._run(request), await self._read_body(request)
        try:
            await _in_thread(partial(run.cancel, str(body.get("reason") or "stopped by a client")))
        except LookupError as error:
            raise _not_there(error) from error
        return _send_json({})

    async def answer(self, request: Request) -> Response:
        run, body = await self._run(request), await self._read_body(request)
        if "value" not in body:
            raise HTTPException(422, 'the body has no "value"')
        try:
            await _in_thread(partial(_answer, run, request.path_params["request_id"], body["value"]))
        except LookupError as error:
            raise _not_there(error) from error
        except (ValueError, TypeError) as error:
            raise HTTPException(422, _explain(error)) from error
        except RuntimeError as error:
            raise HTTPException(409, str(error)) from error
        return _send_json({})

    def _flow(self, name: Any) -> type[Flow[Any]]:
        flow = self._flows.get(name) if isinstance(name, str) else None
        if flow is None:
            raise HTTPException(404, f"there is no flow {name!r}; the flows are {sorted(self._flows)}")
        return flow

    def _name_of(self, head: Head) -> str:
        """Return the name of a run's flow on this server.

        If another server started the run, this is a name of the flow with the run's import path. If this server does
        not have that flow, return the import path, or "flow" if the run has none.
        """
        target = head.spec.target or ANONYMOUS
        named = {_name_target(flow): name for name, flow in self._flows.items()}
        return self._started.get(head.run_id) or named.get(target, target)

    async def _run(self, request: Request) -> Run:
        try:
            return await _in_thread(partial(self._runs.__getitem__, request.path_params["run_id"]))
        except LookupError as error:
            raise _not_there(error) from error

    async def _read_body(self, request: Request) -> dict[str, Any]:
        """Return the JSON object in the request's body; an empty dict if the body is empty.

        The body is read in pieces, so that a body that is too large is not loaded as a whole.
        """
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._limits.input_bytes:
                raise HTTPException(413, f"the body is larger than {self._limits.input_bytes} bytes")
        try:
            read = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
        if not isinstance(read, dict):
            raise HTTPException(400, f"the body is not a JSON object: {body[:80].decode(errors='replace')!r}")
        return cast("dict[str, Any]", read)

    def reader_came(self) -> None:
        self._readers += 1

    def reader_left(self) -> None:
        self._readers -= 1


class _Counted(Response):
    """A response that counts as a reader until it ends or its client leaves."""

    def __init__(self, response: Response, api: _Api) -> None:
        self._response = response
        self._api = api

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        leave = Once()

        async def receive_watched() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect" and leave.take():
                self._api.reader_left()
            return message

        self._api.reader_came()
        try:
            await self._response(scope, receive_watched, send)
        finally:
            if leave.take():
                self._api.reader_left()


def _not_there(error: LookupError) -> HTTPException:
    return HTTPException(404, str(error.args[0] if error.args else error))


async def _send_drawing_style(request: Request) -> Response:
    return Response(DRAWING_STYLE, media_type="text/css")


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function that may wait for the store's disk or network, without blocking other requests."""
    return await anyio.to_thread.run_sync(function)


def _not_made(name: str, error: Exception) -> HTTPException:
    """Log that a flow could not be created or started, and return an error with status 500."""
    logger.error("the flow %r cannot be created", name, exc_info=error)
    return HTTPException(500, f"the flow {name!r} cannot be created: {describe(error)}")


def _inputs_of(name: str, flow: type[Flow[Any]]) -> Any:
    """Return the inputs of a flow: the fields of its state with their defaults.

    The page shows these defaults, and sends them to the server when it starts a run. So a field is left out if JSON
    would change its default, for example if the default is a secret. The field ``id`` is always left out.
    """
    try:
        state = flow().state
    except Exception as error:
        raise _not_made(name, error) from error
    fields = (
        {each: getattr(state, each) for each in type(state).model_fields} if isinstance(state, BaseModel) else state
    )
    inputs: dict[str, Any] = {}
    for field, value in fields.items():
        if field == "id":
            continue
        with suppress(Exception):  # raised by pydantic, or by users' serializers and comparisons
            sent, taken = _round_trip(state, field, value)
            if taken == value:
                inputs[field] = sent
    return inputs


def _round_trip(state: Any, field: str, value: Any) -> tuple[Any, Any]:
    """Return the field's JSON value for the page, and what a new state gets if the page sends this value back."""

    def through(given: Any) -> Any:
        # Send infinity as the text "Infinity". A pydantic field for numbers accepts this text, but not null.
        return from_json(to_json(given, inf_nan_mode="strings"))

    if not isinstance(state, BaseModel):
        sent = through(value)
        return sent, sent
    sent = through(state.model_dump(mode="json", include={field}, warnings=False)[field])
    return sent, getattr(type(state).model_validate({field: sent}), field)


def _answer(run: Run, request_id: str, value: Any) -> None:
    if run.status == "paused":
        run.resume({request_id: value}, answer_within=ANSWER_WITHIN_S)
    else:
        run.answer(request_id, value)


def _name_target(flow: type[Flow[Any]]) -> str:
    return f"{flow.__module__}:{flow.__qualname__}"


def _has_import_path(flow: type[Flow[Any]]) -> bool:
    """Return whether another process can import the flow, and so restart its runs."""
    found = getattr(sys.modules.get(flow.__module__), flow.__qualname__, None)
    return found is flow and flow.__module__ != "__main__"


def _describe_end(run: Run, head: Head) -> dict[str, Any]:
    if head.status in LIVE or head.status == "paused":
        return {"pending": [to_plain_json(each) for each in run.pending()]}
    if head.status != "completed":
        return {"error": in_words(head.error) if head.error is not None else head.reason}
    return {"result": to_plain_json(_show(run.result()))}


def _show(result: Any) -> Any:
    """Return the text if the result is the output of a crew, a task or an agent, because the events have the rest.

    Return any other result unchanged.
    """
    return result.raw if isinstance(result, CrewOutput | TaskOutput) else result


def _explain(error: Exception) -> str:
    cause = error if isinstance(error, ValidationError) else error.__cause__
    return list_problems(cause, "the state") if isinstance(cause, ValidationError) else str(error)


def _send_json(content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response. Starlette's JSONResponse would fail on infinity and lone surrogates (half characters)."""
    return Response(write_json(content), status_code, headers, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    refused = cast(HTTPException, error)
    return _send_json({"error": refused.detail}, refused.status_code, refused.headers)


async def _refuse_without_store(request: Request, error: Exception) -> Response:
    return _send_json({"error": str(error)}, 503)
