"""Lets agents use the tools of an MCP server. Programs import this from :mod:`rxflow.adapters.mcp`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, cast

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel, ConfigDict, PrivateAttr

from rxflow._lazy import extra
from rxflow._loops import Once
from rxflow._streaming import current_emitter, report_progress
from rxflow._text import to_plain_json
from rxflow.tools import BaseTool, as_text

with extra("mcp"):
    from mcp import Client, types as mcp_types


class ServerError(RuntimeError):
    """A tool of an MCP server reported an error.

    The message is the text that the tool returned, or "the tool failed" if the tool returned no text.
    """


class connect:  # noqa: N801 - used like a function
    """Connects to an MCP server for a ``with`` or ``async with`` block.

    The block gets a list of the server's tools, which agents can use. The connection lives in a thread of its own, so
    the tools work in every run, sync or async. If a run is cancelled, its tool calls are cancelled at the server too.
    At the end of the block, the connection is closed. A server process that was started for the block ends too.

    Args:
        server: a URL, ``StdioServerParameters`` for a command to start, or a server object of the ``mcp`` package.
        only: the names of the tools to use; by default all of them.

    Raises:
        LookupError: the server does not have a tool that ``only`` names.
        Exception: an error of ``mcp``. If ``mcp`` raises an ExceptionGroup with only one error, this error is raised
            instead.
    """

    def __init__(self, server: Any, *, only: tuple[str, ...] | None = None) -> None:
        self._server = server
        self._only = only
        self._open = ExitStack()

    def __enter__(self) -> list[BaseTool]:
        return self._connect(self._open, Once())

    def _connect(self, opened: ExitStack, keep: Once) -> list[BaseTool]:
        """Connect, and return the tools. Closing ``opened`` disconnects.

        If ``keep`` is already taken, disconnect at once, because nobody waits any more.
        """
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            connection = portal.wrap_async_context_manager(Client(self._server))
            try:
                client = connection.__enter__()
            except ExceptionGroup as group:  # mcp's task groups raise this; the group's text does not give the reason
                reason = _find_reason(group)
                if reason is group:
                    raise
                raise reason from group
            # Do not pass errors of the user's block to the connection. mcp's task groups would wrap these errors in
            # groups.
            stack.callback(connection.__exit__, None, None, None)
            offered = portal.call(_list_tools, client)
            wanted = [each for each in offered if self._only is None or each.name in self._only]
            if missing := sorted(set(self._only or ()) - {each.name for each in wanted}):
                raise LookupError(
                    f"the server has no tool {', '.join(missing)}; it has {[each.name for each in offered]}"
                )
            tools = [_make_tool(each, client, portal) for each in wanted]
            # Fill ``opened`` before taking ``keep``: from then on, a cancelled __aenter__() closes ``opened``.
            opened.enter_context(stack.pop_all())
        if not keep.take():
            opened.close()
        return tools

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    async def __aenter__(self) -> list[BaseTool]:
        opened, keep = ExitStack(), Once()
        try:
            tools = await anyio.to_thread.run_sync(self._connect, opened, keep)
        except asyncio.CancelledError:
            # asyncio has ended this wait, but not the thread that connects. If that thread has taken ``keep``, the
            # connection is open, and only this code can close it.
            if not keep.take():
                threading.Thread(target=opened.close, name="rxflow mcp close").start()
            raise
        self._open = opened
        return tools

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.__exit__, kind, error, traceback)


def _find_reason(error: Exception) -> Exception:
    """Unwrap exception groups that have only one member. Return the first exception that is not such a group."""
    found: Any = error
    while len(getattr(found, "exceptions", ())) == 1:
        found = found.exceptions[0]
    return cast(Exception, found)


async def _list_tools(client: Client) -> list[mcp_types.Tool]:
    page = await client.list_tools()
    tools = list(page.tools)
    while page.next_cursor:
        page = await client.list_tools(cursor=page.next_cursor)
        tools.extend(page.tools)
    return tools


class _ServerTool(BaseTool):
    _client: Client = PrivateAttr()
    _portal: BlockingPortal = PrivateAttr()

    def _run(self, **arguments: Any) -> Any:
        return _read_result(self._portal.call(self._call(arguments)))

    async def _arun(self, **arguments: Any) -> Any:
        # If this coroutine is cancelled, the call in the portal's thread is cancelled too. The client then informs the
        # server.
        called = self._portal.start_task_soon(self._call(arguments))
        return _read_result(await asyncio.wrap_future(called))

    def _call(self, arguments: dict[str, Any]) -> Callable[[], Any]:
        context = copy_context()

        async def note(progress: float, total: float | None, message: str | None) -> None:
            # If the run was cancelled, _report() raises a CancelledError. This error must not cancel the call.
            with suppress(asyncio.CancelledError):
                context.run(_report, progress, total, message or "")

        return partial(self._client.call_tool, self.name, to_plain_json(arguments), progress_callback=note)


def _report(progress: float, total: float | None, message: str) -> None:
    """Report progress to the run that called the tool. If no run waits for the tool, do nothing.

    Raises:
        CancelledError: the run was cancelled.
    """
    if current_emitter() is not None:
        report_progress(progress, total, message)


def _make_tool(offered: mcp_types.Tool, client: Client, portal: BlockingPortal) -> BaseTool:
    class Arguments(BaseModel):
        """Accepts any arguments. The server checks the arguments. If one is wrong, the LLM gets the server's error."""

        model_config = ConfigDict(extra="allow")

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return dict(offered.input_schema)

    tool = _ServerTool(name=offered.name, description=offered.description or offered.name, args_schema=Arguments)
    tool._client, tool._portal = client, portal  # pyright: ignore[reportPrivateUsage]
    return tool


def _read_result(result: mcp_types.CallToolResult) -> str:
    """Return the text for the LLM. Raises ServerError if the tool reported an error."""
    said = [each.text if isinstance(each, mcp_types.TextContent) else f"[{each.type}]" for each in result.content]
    if not said and result.structured_content is not None:
        said = [as_text(result.structured_content)]
    if result.is_error:
        raise ServerError("\n".join(said) or "the tool failed")
    return "\n".join(said)
