"""Server-sent events and JSON lines: the events or frames of a run over HTTP. ::

    async def follow(request: Request) -> Response:
        return sse.respond(request, Trip().events())

A web page reads server-sent events with ``EventSource``. Each event is a message, whose id is the event's ``seq``. If
the run has a log, a client that lost its connection continues after the last event that it received. Needs
``rxflow[web]``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, cast

from reactivex import Observable

from rxflow._lazy import extra
from rxflow._streaming import Framing, Holder, on_loop
from rxflow._text import describe, write_json
from rxflow.adapters._translation import Translator, translate
from rxflow.runs import RunReader
from rxflow.types import Event
from rxflow.types.codec import encode

with extra("web"):
    from sse_starlette import EventSourceResponse, ServerSentEvent
    from sse_starlette.sse import SendTimeoutError
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["read_last_event_id", "respond", "respond_with_lines", "stream", "to_json_lines", "to_sse"]

logger = logging.getLogger("rxflow")

Source: TypeAlias = Observable[Any] | Callable[[int], Observable[Any] | RunReader]
"""A run, or a function that returns the events after a ``seq``: ``lambda after: runs[run_id].read(after)``."""

END = "end"
"""The name and id of the last message. The message contains ``{"error": …}``: the error that ended the run, or null."""

SEND_TIMEOUT_S = 30.0
"""Seconds after which a client that reads nothing is disconnected."""
MAX_WAITING_ITEMS = 100_000
"""How many items may wait for a client that reads more slowly than the run emits.

If more items wait, the client is disconnected.
"""
TAKE_DOWN_S = 0.5
"""Seconds from the disconnection of a client to the end of its response.

Ending a response occupies the loop for 0.2 ms, because a response has four tasks. If many clients disconnect at once,
the delay lets all their runs be disposed before the first response is ended.
"""
PIECE_BYTES = 1 << 16
"""Messages that are ready are sent together, in pieces of at least this many bytes. The last piece may be smaller."""


def respond(
    request: Request,
    source: Source,
    *,
    as_frames: bool = False,
    ping: float = 15.0,
    send_timeout: float = SEND_TIMEOUT_S,
) -> Response:
    """Respond to ``request`` with the events of ``source`` as server-sent events.

    When the client disconnects, reading stops. A run without a log then ends. A run with a log continues, unless its
    ``when_unread`` cancels it.

    A client that reconnects names the last event that it received. If ``source`` is a function, it is called with the
    ``seq`` of this event, or with -1 if the client names no event. With ``as_frames``, the function is always called
    with -1, because frames refer to earlier frames. The client still gets only the frames after the named event.

    If ``source`` is an Observable, each connection would start a new run. So a client that names an event gets status
    204, and ``EventSource`` then stops reconnecting.

    If ``source`` returns a reader (:meth:`rxflow.runs.Run.read`), a slow client is sent the next events when it is
    ready for them. If ``source`` is or returns an Observable, the items are buffered for a slow client. A client
    that is more than 100,000 items behind is disconnected.

    Args:
        as_frames: send frames, as ``flow.stream_events()`` yields them, instead of events.
        ping: seconds between two comments that keep the connection open.
        send_timeout: seconds after which a client that reads nothing is disconnected.

    Raises:
        HTTPException: 400 for a Last-Event-ID that is not a seq; 404 if ``source`` raises a LookupError.
    """
    if request.headers.get("last-event-id") == END:
        return Response(status_code=204)
    after = read_last_event_id(request)
    opened = _open(source, after, as_frames=as_frames)
    if opened is None:
        return Response(status_code=204)
    feed = _make_feed(opened, lambda: _Messages(_choose_encoder(as_frames), after))
    return _Streaming(feed, ping=ping, send_timeout=send_timeout)


def respond_with_lines(request: Request, source: Source, *, as_frames: bool = False) -> Response:
    """Respond with the events as lines of JSON. ``?after=17`` in the query continues after event 17.

    If ``source`` is an Observable, a client that asks to continue gets status 204, because each response would start a
    new run. Each line is an event in the form of :mod:`rxflow.types.codec`, or with ``as_frames`` a frame. If a flow
    fails, the last line is its ``FlowFailed`` event. The error that then ends the stream gets no line of its own.

    Raises:
        HTTPException: 400 for an ``after`` that is not a seq; 404 if ``source`` raises a LookupError.
    """
    after = read_last_event_id(request)
    opened = _open(source, after, as_frames=as_frames)
    if opened is None:
        return Response(status_code=204)
    feed = _make_feed(opened, lambda: _Lines(_choose_encoder(as_frames), after))
    return _Streaming(feed, media_type="application/x-ndjson", ping=0)


def stream(items: Observable[Any], *, headers: Any = None) -> Response:
    """Return a response with the messages that ``items`` emits.

    The subscription to ``items`` is disposed when the client disconnects or stops reading.
    """
    return _Streaming(_ItemFeed(items), headers=headers)


def read_last_event_id(request: Request) -> int:
    """Return the ``seq`` of the last event that the client received. Return -1 if the request names none.

    The ``seq`` is in the header ``Last-Event-ID`` or in the query (``?after=17``).

    Raises:
        HTTPException: 400, if the value is not a whole number.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "-1"
    try:
        return max(-1, int(given))
    except ValueError:
        raise HTTPException(400, f"Last-Event-ID is not the seq of an event: {given[:80]!r}") from None


def to_sse(*, as_frames: bool = False, after: int = -1) -> Callable[[Observable[Any]], Observable[ServerSentEvent]]:
    """Translate events into server-sent messages. ::

        events      S----a----b----F|
        to_sse()    {S}--{a}--{b}--{F}{end}|

    The id of a message is the ``seq`` of the event. The name of a message is the event's class, or with ``as_frames``
    the frame's type. The last message, ``{end}``, is described at ``END``. Events up to and including number ``after``
    are left out.
    """
    return translate(lambda: _Messages(_choose_encoder(as_frames), after))


def to_json_lines(*, as_frames: bool = False, after: int = -1) -> Callable[[Observable[Any]], Observable[bytes]]:
    """Translate events into lines of JSON. Events up to and including number ``after`` are left out."""
    return translate(lambda: _Lines(_choose_encoder(as_frames), after))


_Encoder: TypeAlias = Callable[[Event], tuple[str, bytes]]
"""A function that returns a name and JSON bytes for an event. They describe either the event itself or its frame."""


class _Message(ServerSentEvent):
    """A message with one line of data.

    ``encode()`` is overridden, because the inherited method takes four times as long: it searches the text for line
    ends.
    """

    def __init__(self, data: bytes, event: str, seq: int) -> None:
        super().__init__(data.decode(), event=event, id=str(seq))

    def encode(self) -> bytes:
        return f"id: {self.id}\r\nevent: {self.event}\r\ndata: {self.data}\r\n\r\n".encode()


class _Messages:
    def __init__(self, encode_event: _Encoder, after: int) -> None:
        self._encode = encode_event
        self._after = after

    def read(self, event: Event) -> Iterable[ServerSentEvent]:
        name, data = self._encode(event)
        if event.seq > self._after:
            yield _Message(data, name, event.seq)

    def finish(self, error: BaseException | None) -> Iterator[ServerSentEvent]:
        said = None if error is None else describe(error)
        yield ServerSentEvent(json.dumps({"error": said}), event=END, id=END)


class _Lines:
    def __init__(self, encode_event: _Encoder, after: int) -> None:
        self._encode = encode_event
        self._after = after

    def read(self, event: Event) -> Iterable[bytes]:
        _, data = self._encode(event)
        if event.seq > self._after:
            yield data + b"\n"

    def finish(self, error: BaseException | None) -> Iterable[bytes]:
        return ()


def _choose_encoder(as_frames: bool) -> _Encoder:
    if not as_frames:
        return lambda event: (type(event).__name__, encode(event).rstrip())
    framing = Framing()

    def encode_frame(event: Event) -> tuple[str, bytes]:
        frame = framing.frame(event)
        return frame.type, write_json(frame)

    return encode_frame


def _open(source: Source, after: int, *, as_frames: bool) -> Observable[Any] | RunReader | None:
    """Return the events after number ``after``. With ``as_frames``, return all: frames refer to earlier frames.

    Return None if ``source`` is an Observable and the client wants to continue: subscribing would start a new run.
    """
    if isinstance(source, Observable):
        return cast("Observable[Any]", source) if after < 0 else None
    try:
        return source(-1 if as_frames else after)
    except LookupError as error:
        raise HTTPException(404, str(error)) from error


def _make_feed(source: Observable[Any] | RunReader, make: Callable[[], Translator[Any]]) -> _Feed:
    if isinstance(source, Observable):
        return _ItemFeed(source.pipe(translate(make)))
    return _PageFeed(source, make())


class _Feed(Protocol):
    """The body of a response: yields bytes as they become ready."""

    def read(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None:
        """Stop reading the run, because the client has left.

        ``read()`` then waits until the server ends the response. ``read()`` must not end earlier: see
        ``TAKE_DOWN_S``.
        """
        ...


class _PageFeed:
    """Reads a run from its log at the client's pace: a page is read when the page before it has been sent."""

    def __init__(self, reader: RunReader, translator: Translator[Any]) -> None:
        self._reader = reader
        self._translator = translator
        self._has_left = False

    def close(self) -> None:
        self._has_left = True
        self._reader.close()

    async def read(self) -> AsyncIterator[bytes]:
        error: Exception | None = None
        try:
            async for events in self._reader:
                for piece in _pack(item for event in events for item in self._translator.read(event)):
                    yield piece
        except Exception as raised:  # noqa: BLE001 - sent to the client as the last message
            error = raised
        finally:
            self._reader.close()
        if self._has_left:
            await asyncio.get_running_loop().create_future()
        for piece in _pack(self._translator.finish(error)):
            yield piece


class _ItemFeed:
    """Buffers the items of an Observable until they are sent. An Observable does not wait for the client."""

    def __init__(self, items: Observable[Any]) -> None:
        self._items = items
        self._subscription = Holder()
        self.close = self._subscription.dispose
        self._waiting: deque[Any] = deque()
        self._has_come = asyncio.Event()
        self._ends: list[BaseException | None] = []

    async def read(self) -> AsyncIterator[bytes]:
        source = on_loop(self._items, asyncio.get_running_loop())
        self._subscription.hold(source.subscribe(self._take, self._end, self._end))
        try:
            while self._waiting or not self._ends:
                await self._has_come.wait()
                self._has_come.clear()
                for piece in _pack(self._drain()):
                    yield piece
            if self._ends[0] is not None:
                raise self._ends[0]
        finally:
            self.close()

    def _drain(self) -> Iterator[Any]:
        while self._waiting:
            yield self._waiting.popleft()

    def _take(self, item: Any) -> None:
        self._waiting.append(item)
        self._has_come.set()
        if len(self._waiting) > MAX_WAITING_ITEMS and not self._ends:
            logger.warning("a client was disconnected: it is more than %d items behind the run", MAX_WAITING_ITEMS)
            self._waiting.clear()
            self.close()
            self._end()

    def _end(self, error: BaseException | None = None) -> None:
        self._ends.append(error)
        self._has_come.set()


def _pack(items: Iterable[ServerSentEvent | bytes]) -> Iterator[bytes]:
    piece = bytearray()
    for item in items:
        piece += item if isinstance(item, bytes) else item.encode()
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


class _Streaming(EventSourceResponse):
    """A response that ends properly when the server stops, and logs one line when its client stops reading."""

    def __init__(self, feed: _Feed, *, send_timeout: float = SEND_TIMEOUT_S, **options: Any) -> None:
        async def leave(message: Any) -> None:
            feed.close()
            await asyncio.sleep(TAKE_DOWN_S)

        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            feed.read(), send_timeout=send_timeout, client_close_handler_callable=leave, **options
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_complete = False

        async def send_watched(message: Any) -> None:
            nonlocal is_complete
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await super().__call__(scope, receive, send_watched)
        except SendTimeoutError:
            logger.warning("a client was disconnected: it read nothing for %g s", self.send_timeout)
            return
        # When the server stops, sse-starlette 3.7 does not end the body. uvicorn logs an error if the body has no end.
        if not is_complete:
            await send({"type": "http.response.body", "body": b""})
