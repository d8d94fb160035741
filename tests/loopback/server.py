"""The provider: a listening socket, a thread and an event loop of its own."""

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.loopback.connection import Connection
from tests.loopback.reply import Reply, Request
from tests.loopback.state import State

BACKLOG = 4096


def echo(request: Request) -> Reply:
    return Reply(text="Answer to: " + request.last_user[:200])


class Loopback(State):
    """An OpenAI-compatible provider for the length of one `with` block.

    A client can be ahead of what is counted here by a moment: ask with `wait_until` or `until`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self._queue: deque[Reply] = deque()
        self._answer: Callable[[Request], Reply] = echo
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def script(self, *replies: Reply) -> None:
        """Queue replies, one a request, in order of arrival."""
        self._queue.extend(replies)

    def answer(self, function: Callable[[Request], Reply]) -> None:
        """Answer by this function when the queue is empty; it runs in the server's thread: no blocking."""
        self._answer = function

    def release(self) -> None:
        """Let every reply go on that is holding now."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._release)

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        loop = asyncio.new_event_loop()
        self._loop = loop
        # No need to wait for it: the socket listens already.
        self._thread = threading.Thread(target=self._run, args=(loop, listener), name="loopback", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None
        assert thread is not None
        self._loop = None
        loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        serving: dict[asyncio.Task[None], Connection] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with self.change():
                self.connections += 1
                self.open_connections += 1
            connection = Connection(reader, writer, self, self._choose)
            task = asyncio.create_task(connection.run())
            serving[task] = connection
            task.add_done_callback(close)

        def close(task: asyncio.Task[None]) -> None:
            del serving[task]
            with self.change():
                self.open_connections -= 1

        server = await asyncio.start_server(accept, sock=listener, backlog=BACKLOG)
        await self._stop.wait()
        # All tasks, because asyncio has one for each connection that it is about to hand to accept(), and all
        # before the close, because on a closed server such a task leaves its socket open.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for connection in serving.values():
                connection.stop()
            await asyncio.wait(tasks)
        server.close()
        await server.wait_closed()

    def _choose(self, request: Request) -> Reply:
        if self._queue:
            return self._queue.popleft()
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001 - the client must hear of it: nobody else would
            return Reply(status=500, error=f"the test's answer function raised {error!r}")

    def _release(self) -> None:
        with self.change():
            for hold in self.holds:
                if not hold.done():
                    hold.set_result(None)
            self.holds.clear()
