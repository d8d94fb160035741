"""The import of LiteLLM: late, off every loop, with its settings made before and after.

The import takes seconds of CPU time and 190 MB, and its first call hundreds of milliseconds. So ``import rxflow`` never
does it: the first ``LLM`` that needs LiteLLM begins it in a background thread, or the first error.
The settings were measured with litellm 1.109.0 and 1.110.2.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import warnings
from concurrent.futures import Future, wait
from typing import Any

from rxflow.llm._litellm.errors import make_picklable
from rxflow.loops import call_soon

_SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a price list, and blocks 5 s on a silent network
    "LITELLM_MODE": "PRODUCTION",  # else it reads a .env from the working directory
    "AIOHTTP_CONNECTOR_LIMIT": "10000",  # else at most 500 streams
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
    """Start the import unless it has been started; the future gives the module."""
    global _imported
    with _starting:
        if _imported is None:
            _imported = Future()
            # LiteLLM sets these filters itself, in the thread of the import. A program that is inside
            # warnings.catch_warnings() at that moment would remove them when it leaves, and see a hundred warnings.
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            threading.Thread(target=_import, args=(_imported,), name=_THREAD, daemon=True).start()
        return _imported


def _wait_before_a_fork() -> None:
    """The child would have half a module, and wait for a thread that only its parent has."""
    if _imported is not None and threading.current_thread().name != _THREAD:
        wait([_imported], _FORK_TIMEOUT_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_before_a_fork)


async def get_litellm() -> Any:
    """The litellm module, ready for calls. ImportError if it cannot be imported."""
    future = begin_import()
    if not future.done():
        # Not by asyncio.wrap_future: a call that is cancelled meanwhile would cancel the import, and that for everyone.
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        future.add_done_callback(lambda _: call_soon(loop, arrived.set))
        await arrived.wait()
    return future.result()


def _import(future: Future[Any]) -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        # Else 100 equal chunks in a row are taken for a model that hangs.
        litellm.REPEATED_STREAMING_CHUNK_LIMIT = 10**9
        # Else a model with "llama-3" in its name has it download a tokenizer, on the loop that carries all streams.
        litellm.disable_hf_tokenizer_download = True
        make_picklable(litellm)
    except BaseException as error:  # noqa: BLE001 - whoever awaits the module gets it
        future.set_exception(error)
    else:
        future.set_result(litellm)
