"""Prepares LiteLLM: a late import in a thread of its own, settings, and a cache of HTTP clients.

The import takes seconds of CPU time and 190 MB, and its first call hundreds of milliseconds. So ``import rxflow`` never
imports it: the first ``LLM`` that needs LiteLLM, or the first error, starts the import in a background thread.

LiteLLM searches the text of an error for keys, with patterns that take 4 s per megabyte, on the call's event loop,
without releasing the GIL. So a gateway's error page of a megabyte would stall every stream of the process. Another
thread would not help: the text must be short before LiteLLM gets it. LiteLLM uses clients of httpx, and keeps them in a
cache that programs may replace. So rxflow replaces the cache, and adds a hook for responses to each client.

All this was measured with litellm 1.109.0 and 1.110.2.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, wait
from contextlib import aclosing
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, cast

from rxflow._loops import call_soon
from rxflow.llm._io import is_io_loop
from rxflow.llm._litellm.errors import iterate_causes, make_picklable
from rxflow.llm._reading import MAX_ERROR_BYTES

if TYPE_CHECKING:
    import httpx

_SETTINGS = {
    # otherwise LiteLLM fetches a price list, and blocks for 5 s on a silent network
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",  # otherwise LiteLLM reads a .env file from the working directory
    "AIOHTTP_CONNECTOR_LIMIT": "10000",  # otherwise at most 500 streams are possible
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "10000",
}
_WARNINGS = (
    ".*conflict with protected namespace.*",
    ".*Accessing the.*attribute on the instance is deprecated.*",
    ".*`ReadOnly` qualifier.*",
)
_THREAD = "rxflow import"
_FORK_TIMEOUT_S = 60.0

_imported: Future[Any] | None = None
_starting = threading.Lock()


def begin_import() -> Future[Any]:
    """Start the import if it was not started. The future resolves to the module."""
    global _imported
    with _starting:
        if _imported is None:
            _imported = Future()
            _KeepFilters.add_filters()
            threading.Thread(target=_import, args=(_imported,), name=_THREAD, daemon=True).start()
        return _imported


def find_imported() -> Any:
    """Return the litellm module; None if its import has not finished, or has failed."""
    if _imported is None or not _imported.done() or _imported.exception() is not None:
        return None
    return _imported.result()


def _wait_before_a_fork() -> None:
    """Wait for the import. Otherwise a forked child would have half a module, and wait for a thread of its parent."""
    if _imported is not None and threading.current_thread().name != _THREAD:
        wait([_imported], _FORK_TIMEOUT_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_before_a_fork)


async def get_litellm() -> Any:
    """Return the litellm module, ready for calls. Raises ImportError if it cannot be imported."""
    future = begin_import()
    if not future.done():
        # Not asyncio.wrap_future, because cancelling this call would then cancel the import for all others.
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        future.add_done_callback(lambda _: call_soon(loop, arrived.set))
        await arrived.wait()
    return future.result()


class _KeepFilters(MetaPathFinder):
    """Sets the filters for LiteLLM's warnings again before each module that its import loads.

    LiteLLM sets the filters once. If the program leaves ``warnings.catch_warnings()`` meanwhile, as pytest does after
    each test and FastAPI for each route, the filters are removed. The program would then see a hundred warnings, or the
    import would fail with one.
    """

    def find_spec(self, *_: object) -> None:
        if threading.current_thread().name == _THREAD:
            self.add_filters()

    @staticmethod
    def add_filters() -> None:
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message)


def _import(future: Future[Any]) -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    keep_filters = _KeepFilters()
    sys.meta_path.insert(0, keep_filters)
    try:
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        # Otherwise 100 equal chunks in a row count as a model that hangs.
        litellm.REPEATED_STREAMING_CHUNK_LIMIT = 10**9
        # Otherwise a model with "llama-3" in its name triggers the download of a tokenizer, on the loop of all streams.
        litellm.disable_hf_tokenizer_download = True
        tend_clients(litellm)
        make_picklable(litellm)
    except BaseException as error:  # noqa: BLE001 - raised where the module is awaited
        future.set_exception(error)
    else:
        future.set_result(litellm)
    finally:
        sys.meta_path.remove(keep_filters)


def tend_clients(litellm: Any) -> None:
    """Let LiteLLM's clients on the I/O loop read only the beginning of an error page, and live until they are closed.

    LiteLLM drops a client after an hour, or when there are 200, and closes it 15 minutes later unless it was
    garbage-collected. The collector closes sockets without the loop's knowledge. If such a client is closed later, the
    loop loses a newer connection with the same file descriptor (see ``source.py``).
    """
    known: Any = litellm.in_memory_llm_clients_cache
    kind: Any = known.__class__
    open_clients = _OpenClients()

    def set_cache(self: Any, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if is_io_loop():
            open_clients.add(value)
            if isinstance(value, litellm.AsyncHTTPHandler):
                _add_hook(value)
        return kind.set_cache(self, key, value, *args, **kwargs)

    cache: Any = type("ClientCache", (kind,), {"set_cache": set_cache})()
    cache.__dict__.update(known.__dict__)  # the program may already have clients in it
    litellm.in_memory_llm_clients_cache = cache


class _OpenClients:
    """Keeps clients from being garbage-collected before they are closed. Closed ones are dropped from time to time."""

    def __init__(self) -> None:
        self._clients: list[Any] = []
        self._limit = 256

    def add(self, client: Any) -> None:
        self._clients.append(client)
        if len(self._clients) > self._limit:
            self._clients = [each for each in self._clients if not _is_closed(each)]
            self._limit = max(256, 2 * len(self._clients))


def _add_hook(handler: Any) -> None:
    hooks: dict[str, list[Any]] = {"response": [_cut_error]}
    handler.event_hooks = hooks  # the handler gives them to a new client if this one is closed
    handler.client.event_hooks = hooks


async def _cut_error(response: httpx.Response) -> None:
    """Truncate an error response. A hook of httpx, which is called before the body is read."""
    if not response.is_error:
        return
    import httpx

    whole = httpx.Response(response.status_code, headers=response.headers, stream=response.stream)
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)

    class Beginning(httpx.AsyncByteStream):
        """The beginning of a body. It is decoded here, because a few bytes may expand to megabytes."""

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _read_beginning(whole)

        async def aclose(self) -> None:
            await whole.aclose()

    response.stream = Beginning()


async def _read_beginning(response: httpx.Response) -> AsyncGenerator[bytes]:
    left = MAX_ERROR_BYTES
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as blocks:
        async for block in blocks:
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return


def forget_closed_clients(litellm: Any, error: BaseException) -> bool:
    """Drop closed clients from LiteLLM's cache. Return True if there were any, so that the call can be made again.

    A program that calls ``litellm.close_litellm_async_clients()``, as LiteLLM recommends at the end of each
    ``asyncio.run``, closes the clients of all loops, and LiteLLM continues to use them for an hour.
    """
    if not any(isinstance(cause, RuntimeError) for cause in iterate_causes(error)):
        return False  # httpx and aiohttp raise RuntimeError for a closed client
    cache = litellm.in_memory_llm_clients_cache
    # a copy, because other threads of the program may use litellm too
    closed = [key for key, client in list(cache.cache_dict.items()) if _is_closed(client)]
    for key in closed:
        cache.delete_cache(key)
    return bool(closed)


def _is_closed(client: Any) -> bool:
    """Return whether a client is closed.

    OpenAI's clients have a method for it, httpx's a property; LiteLLM's handlers contain a client.
    """
    for each in (client, getattr(client, "client", None)):
        is_closed: bool | Callable[[], bool] = getattr(each, "is_closed", False)
        if is_closed() if callable(is_closed) else is_closed:
            return True
    return False
