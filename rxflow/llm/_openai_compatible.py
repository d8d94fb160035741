"""Calls OpenAI's chat API and compatible servers directly, without LiteLLM, whose import takes seconds.

:mod:`rxflow.llm._providers` decides which calls are made here, and which through LiteLLM. Requests, deltas and errors
are the same in both cases. A test compares them, with recorded answers of real providers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment, proxy_bypass

from pydantic_core import from_json, to_json
from reactivex import Observable

from rxflow import _prices as prices
from rxflow.llm._io import Deliver, from_io, get_resource
from rxflow.llm._litellm.advice import explain
from rxflow.llm._litellm.errors import (
    LostConnection,
    MissingKey,
    RefusedRequest,
    UnpreparedRequest,
    delay_before_retry,
    find_url,
    is_break,
    raise_as_litellm,
)
from rxflow.llm._litellm.setup import get_litellm
from rxflow.llm._reading import HEADER_GRACE_S, MAX_ERROR_BYTES, READ_TIMEOUT_S, count_request, read_answer
from rxflow.llm._redaction import find_keys, redact_error
from rxflow.llm._wires.openai_chat import OpenAIChatWire
from rxflow.llm.source import Delta, Ending, Request

if TYPE_CHECKING:
    import aiohttp  # imported in functions: it takes 0.1 s and 10 MB, and the embedded model does not need it
    from yarl import URL

_MAX_HEADER_BYTES = 1 << 16  # per line; aiohttp's default of 8 kB is less than some gateways send


@dataclass(frozen=True, slots=True)
class _Server:
    """The server of a provider. ``url`` is the default address; None if the provider has no default address.

    ``url_variables`` are the environment variables that may contain another address. ``key_variable`` is the
    environment variable for the API key.
    """

    url: str | None
    url_variables: tuple[str, ...]
    key_variable: str
    needs_key: bool = False


SERVERS = {
    "openai": _Server(
        "https://api.openai.com/v1", ("OPENAI_BASE_URL", "OPENAI_API_BASE"), "OPENAI_API_KEY", needs_key=True
    ),
    "hosted_vllm": _Server(None, ("HOSTED_VLLM_API_BASE",), "HOSTED_VLLM_API_KEY"),
    "lm_studio": _Server(None, ("LM_STUDIO_API_BASE",), "LM_STUDIO_API_KEY"),
    "llamafile": _Server("http://127.0.0.1:8080/v1", ("LLAMAFILE_API_BASE",), "LLAMAFILE_API_KEY"),
}
_REASONING_NAMES = ("o1", "o3", "o4", "gpt-5")


class OpenAICompatibleSource:
    """Posts to ``…/chat/completions`` and parses the bytes of the answer, on the I/O loop.

    Args:
        provider: a name in :data:`SERVERS`.
        name: the model's name on the server.
        base_url: the server's address. By default, it comes from the provider's environment variables. If none of them
            is set, the provider's default address is used.
        api_key: the API key. By default, it comes from the provider's environment variable.
        read_timeout: how many seconds may pass without data; None: :data:`READ_TIMEOUT_S`.
        connect_timeout: how many seconds opening the connection may take.
    """

    def __init__(
        self,
        provider: str,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        read_timeout: float | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self._provider = provider
        self._name = name
        self._server = SERVERS[provider]
        self._base_url = base_url
        self._api_key = api_key
        self._read_timeout = READ_TIMEOUT_S if read_timeout is None else read_timeout
        self._connect_timeout = connect_timeout

    def stream(self, request: Request) -> Observable[Delta]:
        async def read(deliver: Deliver) -> None:
            response: aiohttp.ClientResponse | None = None
            try:
                response = await self._post(request)
                deliver([await self._read(response, request, deliver)])
            except Exception as error:  # noqa: BLE001 - raised with LiteLLM's class
                await self._raise(error, request, has_begun=response is not None)
            finally:
                if response is not None:
                    # If the whole body was read, the connection is already back in the pool, and this does nothing.
                    response.close()

        return from_io(read)

    async def _read(self, response: aiohttp.ClientResponse, request: Request, deliver: Deliver) -> Ending:
        wire = OpenAIChatWire()
        async with aclosing(_read_blocks(response)) as blocks:
            await read_answer(
                blocks,
                wire,
                deliver,
                silence_s=self._read_timeout,
                is_break=is_break,
                content_type=response.headers.get("content-type", ""),
            )
        usage = count_request(wire.usage)
        cost = None
        if usage.is_reported:
            entry = await asyncio.to_thread(prices.find_entry, request.model)
            cost = prices.compute_cost(entry, usage, request.parameters.get("service_tier"))
        return wire.end(usage, cost)

    async def _post(self, request: Request) -> aiohttp.ClientResponse:
        """Send the request, and return the response when its headers have arrived.

        Raises RefusedRequest for a status other than 200, or TimeoutError if the error's body takes too long.
        """
        import aiohttp
        from yarl import URL

        url, json = self._url(), self._body(request, await self._select_hints(request))
        headers = self._headers(request, url)
        # The client's time limits apply to each read. A server that sends its headers or an error byte by byte would
        # never exceed them.
        async with asyncio.timeout(self._connect_timeout + self._read_timeout + HEADER_GRACE_S):
            session = get_resource("aiohttp session", _create_session)
            limits = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout, sock_read=self._read_timeout)
            try:
                response = await session.post(
                    f"{url}/chat/completions", data=json, headers=headers, timeout=limits, proxy=_find_proxy(URL(url))
                )
            except (aiohttp.ClientError, OSError) as error:
                raise LostConnection(str(URL(url).origin())) from error
            if response.status == 200:
                return response
            body = bytearray()
            try:
                async with aclosing(_read_blocks(response)) as blocks:
                    async for block in blocks:
                        body += block
                        if len(body) >= MAX_ERROR_BYTES:
                            break
            except TimeoutError:
                raise
            except (aiohttp.ClientError, OSError):
                pass  # the status and the headers say enough, even if the body breaks off
            finally:
                response.close()
        raise RefusedRequest(response.status, _read_error(bytes(body)), dict(response.headers))

    @property
    def _is_reasoning_model(self) -> bool:
        return self._provider == "openai" and self._name.startswith(_REASONING_NAMES)

    async def _select_hints(self, request: Request) -> dict[str, Any]:
        """Return the hints that the model supports.

        ``response_format`` is left out unless LiteLLM's table of models shows that the model supports it.
        """
        hints = dict(request.hints)
        if "response_format" in hints:
            entry = await asyncio.to_thread(prices.find_entry, request.model)
            if entry is None or not entry.get("supports_response_schema"):
                del hints["response_format"]
        if self._is_reasoning_model:
            hints.pop("stop", None)  # reasoning models refuse ``stop``; rxflow cuts the answer itself
        return hints

    def _body(self, request: Request, hints: Mapping[str, Any]) -> bytes:
        parameters = {**hints, **request.parameters}
        parameters.pop("extra_headers", None)
        extra: Mapping[str, Any] = parameters.pop("extra_body", None) or {}
        if self._is_reasoning_model and "max_tokens" in parameters:
            parameters["max_completion_tokens"] = parameters.pop("max_tokens")  # reasoning models refuse the old name
        body: dict[str, Any] = {
            "model": self._name,
            "messages": request.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = request.tools
        try:
            return to_json({**body, **parameters, **extra})
        except ValueError as error:
            raise UnpreparedRequest(str(error)) from error

    def _headers(self, request: Request, url: str) -> dict[str, str]:
        from yarl import URL

        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        key = self.api_key
        if key and URL(url).user is None:  # aiohttp makes an authorization header from a user in the URL
            headers["authorization"] = f"Bearer {key}"
        given: Mapping[str, object] = request.parameters.get("extra_headers") or {}
        return headers | {name.lower(): str(value) for name, value in given.items()}

    @property
    def base_url(self) -> str | None:
        """The address that was given, or else the address in the environment; None if there is neither."""
        variables = (os.environ.get(name) for name in self._server.url_variables)
        return self._base_url or next(filter(None, variables), None)

    @property
    def api_key(self) -> str | None:
        """The API key that was given, or else the key in the environment; None if there is neither."""
        return self._api_key or os.environ.get(self._server.key_variable)

    def find_url(self) -> str | None:
        """Return :attr:`base_url`, or else the provider's default address. If there is neither, return None."""
        return self.base_url or self._server.url

    def _url(self) -> str:
        variables = {name: os.environ.get(name) for name in self._server.url_variables}
        url = find_url({"base_url": self._base_url, **variables}) or self._server.url
        if url == self._server.url and self._server.needs_key and not self.api_key:
            raise MissingKey(self._server.key_variable)
        if url is None:
            names = " or ".join(self._server.url_variables)
            raise UnpreparedRequest(f"{self._provider}/ has no address of its own; pass base_url=…, or set {names}")
        return url.rstrip("/")

    async def _raise(self, error: Exception, request: Request, *, has_begun: bool) -> None:
        """Raise LiteLLM's error for ``error``. If LiteLLM is not imported yet, import it in another thread."""
        keys = find_keys(self.api_key, {"base_url": self._base_url}, request.parameters, *request.tools)
        redact_error(error, keys)  # before the import, because an ImportError would show ``error`` as its context
        raise_as_litellm(
            await get_litellm(), error, keys, model=request.model, provider=self._provider, has_begun=has_begun
        )

    async def calls_functions(self, model: str) -> bool:
        entry = await asyncio.get_running_loop().run_in_executor(None, prices.find_entry, model)
        # A model without an entry usually runs on a local server, and most local servers support function calls.
        # A user can turn function calls off with LLM(…, function_calling=False).
        return entry is None or bool(entry.get("supports_function_calling"))

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return delay_before_retry(error, attempt)

    def explain(self, error: BaseException, model: str) -> BaseException:
        return explain(error, model)


def _create_session() -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


def _find_proxy(url: URL) -> str | None:
    """Return the proxy for ``url`` from the environment variables. If there is none, return None."""
    # With trust_env, aiohttp 3.14 would find the proxy itself. But it would also look for a password in ~/.netrc, and
    # refuse every request with an API key to a host that has a password there.
    proxies = getproxies_environment()
    if not proxies or proxy_bypass(url.host or ""):
        return None
    return proxies.get(url.scheme)


async def _read_blocks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    import aiohttp
    from aiohttp.http_exceptions import HttpProcessingError

    try:
        async for block in response.content.iter_any():
            yield block
    except (RuntimeError, HttpProcessingError) as error:  # raised by aiohttp for bodies that violate HTTP
        raise aiohttp.ClientPayloadError(str(error)) from error


def _read_error(body: bytes) -> object:
    """Return the JSON of an error's body, even if the JSON is cut off. If the body is not JSON, return its text."""
    try:
        return from_json(body.decode(errors="ignore"), allow_partial="trailing-strings")
    except ValueError:
        return body.decode(errors="replace")
