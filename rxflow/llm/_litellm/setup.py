"""Prepares LiteLLM: imports it in a background thread, sets its settings, and replaces its cache of HTTP clients.

The import takes seconds of CPU time and 190 MB of memory. LiteLLM's first call takes hundreds of milliseconds. So
``import rxflow`` does not import LiteLLM. The import starts with the first ``LLM`` or call that needs LiteLLM. Some
calls go to the provider without LiteLLM. If such a call fails, it needs LiteLLM too, because the error must have a
class of LiteLLM.

LiteLLM searches the text of an error for API keys, on the event loop of the call. The search takes 4 s per megabyte,
and does not release the GIL. A gateway's error page of a megabyte would stall every stream of the process, even if
another thread did the search. So the text must be cut before LiteLLM gets it. LiteLLM keeps its clients of httpx in a
cache, which programs may replace. rxflow replaces the cache, and adds a hook to each httpx client on rxflow's I/O loop.
The hook cuts the text of an error response.

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
    # otherwise LiteLLM fetches a price list, and blocks for 5 s if the network does not answer
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",  # otherwise LiteLLM reads a .env file from the working directory
    # otherwise LiteLLM allows at most 1,000 streams, and at most 500 to one host
    "AIOHTTP_CONNECTOR_LIMIT": "10000",
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
    """Start the import of LiteLLM if it was not started before. Return a future of the module."""
    global _imported
    with _starting:
        if _imported is None:
            _imported = Future()
            _KeepFilters.add_filters()
            try:
                threading.Thread(target=_import, args=(_imported,), name=_THREAD, daemon=True).start()
            except RuntimeError:  # no thread can be started now
                _imported = None  # otherwise all later calls would wait for an import that never began
                raise
        return _imported


def find_imported() -> Any:
    """Return the litellm module; None if its import has not finished, or has failed."""
    if _imported is None or not _imported.done() or _imported.exception() is not None:
        return None
    return _imported.result()


def _wait_before_a_fork() -> None:
    """Before this process forks, wait for the end of a running import, but at most 60 s.

    Otherwise the child would have half a module, and would wait for a thread that exists only in the parent.
    """
    if _imported is not None and threading.current_thread().name != _THREAD:
        wait([_imported], _FORK_TIMEOUT_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_before_a_fork)


async def get_litellm() -> Any:
    """Return the litellm module, ready for calls. If its import has failed, raise the error, usually an ImportError."""
    future = begin_import()
    if not future.done():
        # Do not use asyncio.wrap_future: cancelling this call would then cancel the import for all other calls.
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        future.add_done_callback(lambda _: call_soon(loop, arrived.set))
        await arrived.wait()
    return future.result()


class _KeepFilters(MetaPathFinder):
    """Hides LiteLLM's warnings during its import, by setting the warning filters again before each module is loaded.

    LiteLLM itself sets the filters only once. They are removed if the program leaves a ``warnings.catch_warnings()``
    block during the import, as pytest does after each test and FastAPI does for each route. The program would then see
    a hundred warnings. If the program turns warnings into errors, the import would fail.
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
        # Otherwise LiteLLM takes 100 equal chunks in a row as a sign that the model hangs.
        litellm.REPEATED_STREAMING_CHUNK_LIMIT = 10**9
        # Otherwise LiteLLM downloads a tokenizer for a model with "llama-3" in its name, and blocks the I/O loop.
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
    """Replace LiteLLM's cache of HTTP clients. The new cache does two things for clients on the I/O loop:

    - It makes LiteLLM's httpx clients read only the beginning of an error page.
    - It keeps each client in memory until the client is closed.

    LiteLLM removes a client from its cache after an hour, or when the cache has 200 clients. It closes the client 15
    minutes later, unless the client is garbage-collected earlier. The garbage collector closes sockets without the
    loop's knowledge. The loop may then lose a newer connection with the same file descriptor; see
    ``LiteLLMSource._own_client()``.
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
    cache.__dict__.update(known.__dict__)  # keeps the clients that the program may already have put into the cache
    litellm.in_memory_llm_clients_cache = cache


class _OpenClients:
    """Keeps clients in memory until they are closed, so that the garbage collector does not close their sockets.

    From time to time, closed clients are dropped.
    """

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
    handler.event_hooks = hooks  # if the handler's client is closed, the handler creates a new client with these hooks
    handler.client.event_hooks = hooks


async def _cut_error(response: httpx.Response) -> None:
    """Cut the body of an error response to MAX_ERROR_BYTES. httpx calls this hook before the body is read."""
    if not response.is_error:
        return
    import httpx

    whole = httpx.Response(response.status_code, headers=response.headers, stream=response.stream)
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)

    class Beginning(httpx.AsyncByteStream):
        """The decoded beginning of a body. A few compressed bytes may expand to megabytes, so decode before cutting."""

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
    """Remove closed clients from LiteLLM's cache if ``error`` may come from a closed client.

    Return True if a client was removed. The caller can then repeat the call.

    LiteLLM recommends calling ``litellm.close_litellm_async_clients()`` at the end of each ``asyncio.run``. That
    function closes the clients of all loops, but leaves the closed clients in the cache for up to an hour.
    """
    if not any(isinstance(cause, RuntimeError) for cause in iterate_causes(error)):
        return False  # httpx and aiohttp raise RuntimeError for a closed client, so this error has another reason
    cache = litellm.in_memory_llm_clients_cache
    # Copy the items, because other threads of the program may change LiteLLM's cache during the iteration.
    closed = [key for key, client in list(cache.cache_dict.items()) if _is_closed(client)]
    for key in closed:
        cache.delete_cache(key)
    return bool(closed)


def _is_closed(client: Any) -> bool:
    """Return whether ``client``, or the client inside a handler of LiteLLM, is closed.

    ``is_closed`` is a method of OpenAI's clients, and a property of httpx's clients.
    """
    for each in (client, getattr(client, "client", None)):
        is_closed: bool | Callable[[], bool] = getattr(each, "is_closed", False)
        if is_closed() if callable(is_closed) else is_closed:
            return True
    return False
