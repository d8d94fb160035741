"""Clients that others have closed under litellm's cache, which goes on giving them out.

A program that tidies up with ``litellm.close_litellm_async_clients()``, as litellm advises at the end of each
``asyncio.run``, closes the clients of all loops, ours too. For an hour from then on every call to the same provider
would fail with "Connection error", before anything is sent.
"""

from __future__ import annotations

from typing import Any

_REFUSAL = "client has been closed"


def forget_closed(litellm: Any, error: BaseException) -> bool:
    """Whether ``error`` is such a client's refusal; then litellm has forgotten it, and the call can be made again."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and _REFUSAL in str(cause):
            return _forget(litellm.in_memory_llm_clients_cache)
        cause = cause.__cause__ or cause.__context__
    return False


def _forget(cache: Any) -> bool:
    # A copy: other threads of the program may use litellm too.
    closed = [key for key, client in list(cache.cache_dict.items()) if _is_closed(client)]
    for key in closed:
        cache.delete_cache(key)
    return bool(closed)


def _is_closed(client: Any) -> bool:
    """OpenAI's clients say so by a method, httpx's by a property, litellm's handlers hold one of those."""
    for each in (client, getattr(client, "client", None)):
        says = getattr(each, "is_closed", False)
        if says() if callable(says) else says:
            return True
    return False
