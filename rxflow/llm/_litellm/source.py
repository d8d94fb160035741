"""A source for all providers that LiteLLM knows."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from reactivex import Observable

from rxflow.llm._io import Deliver, UnawaitedCoroutines, from_io
from rxflow.llm._litellm.advice import explain, find_missing_variables, lacks_credentials
from rxflow.llm._litellm.errors import (
    MissingKey,
    UnpreparedRequest,
    delay_before_retry,
    find_url,
    is_break,
    iterate_causes,
    raise_as_litellm,
)
from rxflow.llm._litellm.setup import begin_import, forget_closed_clients, get_litellm
from rxflow.llm._litellm.streams import WrapperReader, find_response, tap, wire_of
from rxflow.llm._reading import (
    HEADER_GRACE_S,
    LAST_BYTE_TIMEOUT_S,
    READ_TIMEOUT_S,
    USAGE_TIMEOUT_S,
    count_request,
    read_answer,
)
from rxflow.llm._redaction import find_keys
from rxflow.llm._wires.sse import Wire
from rxflow.llm.source import Delta, Ending, Request, ToolCallDelta, UsageMetrics

if TYPE_CHECKING:
    import httpx

_MAX_PREPARATIONS = 3  # calls of acompletion(): one as usual, one without hints, and one without closed clients
_USED_WITHOUT_ASKING = frozenset({"cache"})  # LiteLLM registers this callback itself, at the first call to gemini/

# By provider: the fields of an answer that contain its reasoning. The provider refuses these fields in a request.
_REFUSED_FIELDS = {"groq": ("reasoning",), "mistral": ("reasoning_content", "reasoning")}


class LiteLLMSource:
    """Calls a provider through LiteLLM, on the I/O loop."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        read_timeout: float | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._read_timeout = READ_TIMEOUT_S if read_timeout is None else read_timeout
        self._connect_timeout = connect_timeout
        begin_import()

    def stream(self, request: Request) -> Observable[Delta]:
        async def read(deliver: Deliver) -> None:
            litellm = await get_litellm()
            call = _Call(litellm, request)
            try:
                await self._read(call, _restore_names(deliver, call))
            except Exception as error:  # noqa: BLE001 - raised with LiteLLM's class
                given = {"base_url": self._base_url}, request.parameters, *request.tools, _settings(litellm)
                keys = find_keys(self._api_key, *given)
                raise_as_litellm(
                    litellm, error, keys, model=request.model, provider=call.provider, has_begun=call.has_begun
                )

        return from_io(read)

    async def _read(self, call: _Call, deliver: Deliver) -> None:
        async with self._own_client(call):
            await self._read_answer(call, deliver)

    @asynccontextmanager
    async def _own_client(self, call: _Call) -> AsyncGenerator[None]:
        """For a text completion of OpenAI's API, create a client, and close the client after the ``with`` block.

        If :meth:`_text_key` returns None, do nothing.

        LiteLLM would create a client for each text completion, and close none of them. The garbage collector would
        close the client's socket without the loop's knowledge. The loop would then lose the next connection that gets
        the same file descriptor. The call on that connection would wait until its time-out (litellm 1.109.0 and
        1.110.2).
        """
        key = self._text_key(call)
        if key is None:
            yield
            return
        import httpx

        openai: Any = importlib.import_module("openai")
        # Use httpx itself. By default, OpenAI's package uses a fork of httpx, and the fork raises other exceptions.
        http_client = httpx.AsyncClient(timeout=self._timeout(), follow_redirects=True)
        options = {"api_key": key, "base_url": self._openai_url(call), "http_client": http_client, "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as call.client:
            yield

    def _text_key(self, call: _Call) -> str | None:
        """Return the API key for the client that :meth:`_own_client` creates.

        Return None if no client is needed: the call is not a text completion of OpenAI's API, or the program has set a
        client or ``api_base``.
        """
        litellm = call.litellm
        if call.provider != "text-completion-openai" or litellm.aclient_session is not None:
            return None
        if not call.request.parameters.keys().isdisjoint(("client", "api_base")):
            return None
        return self._openai_key(call)

    async def _read_answer(self, call: _Call, deliver: Deliver) -> None:
        stream = await self._open(call)
        response: Any = None
        try:
            if getattr(stream, "make_call", None) is not None and stream.completion_stream is None:
                async with asyncio.timeout(self._connect_timeout + self._read_timeout + HEADER_GRACE_S):
                    await stream.fetch_stream()  # LiteLLM sends Gemini's request only at the first read
            call.has_begun = hasattr(stream, "completion_stream")
            response = find_response(stream)
            wire = wire_of(stream, response) if response is not None and call.has_begun else None
            if response is None or wire is None:
                await self._read_wrapper(call, stream, deliver)
                return
            is_tapped = uses_litellm(call.litellm)
            async with aclosing(tap(stream, response, wire) if is_tapped else response.aiter_bytes()) as blocks:
                await read_answer(
                    blocks,
                    wire,
                    deliver,
                    silence_s=self._read_timeout,
                    is_break=is_break,
                    content_type=response.headers.get("content-type", ""),
                    # tap() needs more time at the end, because LiteLLM's wrapper then joins all chunks (50 µs each).
                    last_byte_timeout_s=USAGE_TIMEOUT_S if is_tapped else LAST_BYTE_TIMEOUT_S,
                )
            deliver([_ending_of(wire, wire.usage, call)])
        finally:
            # Close the response here: a cancellation may come between two chunks, when nothing awaits the response and
            # nothing else would close it.
            response = response or find_response(stream)
            if response is not None:
                await response.aclose()

    async def _read_wrapper(self, call: _Call, stream: Any, deliver: Deliver) -> None:
        reader = WrapperReader(stream)
        call.has_begun = True
        await reader.read(deliver, silence_s=self._read_timeout, is_break=is_break)
        deliver([_ending_of(reader.chat, reader.usage, call)])

    async def _open(self, call: _Call) -> Any:
        """Make the call through LiteLLM, and return LiteLLM's stream.

        With most providers, this waits for the headers of the response. For Gemini, see :meth:`_read_answer`.
        """
        # LiteLLM's time limits apply to each read. A provider that sends its headers or an error byte by byte would
        # never exceed them.
        async with asyncio.timeout(self._connect_timeout + self._read_timeout + HEADER_GRACE_S):
            hints = _select_hints(call)
            for attempt in range(_MAX_PREPARATIONS):
                try:
                    with UnawaitedCoroutines():
                        return await call.litellm.acompletion(**self._arguments(call, hints))
                except Exception as error:
                    is_last = attempt == _MAX_PREPARATIONS - 1
                    if not is_last and hints and isinstance(error, call.litellm.UnsupportedParamsError):
                        # For example, Bedrock does not accept tool_choice="none". Nothing was sent, so call again.
                        hints = {}
                    elif is_last or not forget_closed_clients(call.litellm, error):
                        self._raise_unsent(call, error)
                        raise
        raise AssertionError  # unreachable: the last attempt returns or raises

    def _raise_unsent(self, call: _Call, error: Exception) -> None:
        """Raise MissingKey or UnpreparedRequest if nothing was sent and ``error`` hides the reason.

        Return without an error in all other cases. LiteLLM reports most errors that occur before sending as failures of
        the provider.
        """
        if isinstance(error, MissingKey | UnpreparedRequest):
            return
        missing = find_missing_variables(call.litellm, call.request.model, error)
        has_key = self._api_key is not None or _has_key(call.request.parameters) or _has_key(_settings(call.litellm))
        missing = [name for name in missing if not (self._base_url if name.endswith("_API_BASE") else has_key)]
        if missing and lacks_credentials(error):
            raise MissingKey(*missing) from error
        status = getattr(error, "status_code", None)
        is_the_clients = isinstance(status, int) and 400 <= status < 500  # LiteLLM describes these errors precisely
        if is_the_clients or any(_is_of_the_network(cause) for cause in iterate_causes(error)):
            return
        if missing:
            raise MissingKey(*missing) from error
        raise UnpreparedRequest(str(error)) from error

    def _timeout(self) -> httpx.Timeout:
        import httpx

        return httpx.Timeout(self._read_timeout, connect=self._connect_timeout)

    def _arguments(self, call: _Call, hints: Mapping[str, Any]) -> dict[str, Any]:
        request = call.request
        api_key = self._api_key
        if call.provider == "openai":
            self._openai_url(call)  # only checks the address; LiteLLM finds it by itself
            api_key = self._openai_key(call)
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": [_drop_refused(message, call.provider) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            # rxflow retries by itself, and only before the first chunk. By default, OpenAI's package would retry too.
            "max_retries": 0,
            "num_retries": 0,
            "timeout": self._timeout(),
            # Without this, any call with tools failed in litellm 1.106.
            "_skip_mcp_handler": True,
        }
        optional = {
            "api_base": self._base_url,
            "api_key": api_key,
            "client": call.client,
            "tools": list(request.tools) or None,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return arguments | given | dict(hints) | dict(request.parameters)

    def _openai_key(self, call: _Call) -> str:
        litellm = call.litellm
        key = self._api_key or litellm.api_key or litellm.openai_key or os.environ.get("OPENAI_API_KEY")
        if key:
            return str(key)
        if self._openai_url(call) is not None:
            return "none"  # local servers need no key, but OpenAI's package requires one
        raise MissingKey("OPENAI_API_KEY")

    def _openai_url(self, call: _Call) -> str | None:
        """Return the server's address from ``base_url``, from litellm's settings or from the environment.

        Return None if no address is set. The server is then OpenAI's own.
        """
        urls = {"base_url": self._base_url, "litellm.api_base": call.litellm.api_base}
        urls |= {name: os.environ.get(name) for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE")}
        return find_url(urls)

    async def calls_functions(self, model: str) -> bool:
        litellm, model = await get_litellm(), _strip_bridge(model)
        try:
            litellm.get_model_info(model)
        except Exception:  # noqa: BLE001 - litellm raises this if it does not know the model
            return True  # most local servers support function calls; LLM(…, function_calling=False) turns them off
        return bool(litellm.supports_function_calling(model))

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return delay_before_retry(error, attempt)

    def explain(self, error: BaseException, model: str) -> BaseException:
        return explain(error, model)


class _Call:
    def __init__(self, litellm: Any, request: Request) -> None:
        self.litellm = litellm
        self.request = request
        self.has_begun = False
        self.client: Any = None
        """A client of OpenAI's package for this call alone. If it is None, LiteLLM uses clients of its own."""
        try:
            self.provider = str(litellm.get_llm_provider(request.model)[1])
        except Exception:  # noqa: BLE001 - the call itself will report what is wrong with the name
            self.provider = request.model.partition("/")[0]


def _ending_of(wire: Wire, usage: UsageMetrics | None, call: _Call) -> Ending:
    reported = count_request(usage)
    return wire.end(reported, _compute_cost(call, reported))


def _restore_names(deliver: Deliver, call: _Call) -> Deliver:
    """Return a function that restores the names of tools in deltas, and then calls ``deliver``.

    If LiteLLM changes no name, return ``deliver`` itself. For Bedrock, LiteLLM puts an "a" before names that do not
    begin with a letter. LiteLLM remembers only 50 changed names per process, each for ten minutes (litellm 1.110). So
    the names are taken from the request.
    """
    names: list[str] = [function["name"] for function in call.request.functions]
    sent = {f"a{name}": name for name in names if not name[:1].isalpha()}
    if not (sent and call.provider.startswith("bedrock")):
        return deliver

    def restore(delta: Delta) -> Delta:
        if isinstance(delta, ToolCallDelta) and delta.name in sent:
            return replace(delta, name=sent[delta.name])
        return delta

    return lambda batch: deliver([restore(delta) for delta in batch])


def _strip_bridge(model: str) -> str:
    """Return the name of ``model`` in LiteLLM's table of models: without the "responses/", which selects an API."""
    return model.replace("/responses/", "/", 1)


def _compute_cost(call: _Call, usage: UsageMetrics) -> float | None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    counted = call.litellm.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details={"cached_tokens": usage.cached_prompt_tokens or 0},
        cache_creation_input_tokens=usage.cache_creation_tokens or 0,
        cache_read_input_tokens=usage.cached_prompt_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens,
    )
    try:
        model, tier = _strip_bridge(call.request.model), call.request.parameters.get("service_tier")
        return float(sum(call.litellm.cost_per_token(model=model, usage_object=counted, service_tier=tier)))
    except Exception:  # noqa: BLE001 - litellm raises this if it does not know the price
        return None


def uses_litellm(litellm: Any) -> bool:
    """Return whether the program has registered callbacks or a cache with LiteLLM.

    If it has, LiteLLM must also read every answer, so that the callbacks and the cache receive it.
    """
    lists = (
        "callbacks",
        "input_callback",
        "success_callback",
        "failure_callback",
        "service_callback",
        "_async_input_callback",
        "_async_success_callback",
        "_async_failure_callback",
    )
    if litellm.cache is not None:
        return True
    registered = (callback for name in lists for callback in getattr(litellm, name, None) or ())
    return any(not isinstance(callback, str) or callback not in _USED_WITHOUT_ASKING for callback in registered)


def _select_hints(call: _Call) -> dict[str, Any]:
    """Return the hints that the model supports. LiteLLM would refuse the others."""
    hints = call.request.hints
    if not hints:
        return {}
    litellm, model = call.litellm, _strip_bridge(call.request.model)
    supported: Any = litellm.get_supported_openai_params(model=model) or ()
    taken = {name: value for name, value in hints.items() if name in supported}
    if "response_format" in taken and not litellm.supports_response_schema(model):
        del taken["response_format"]
    return taken


def _has_key(parameters: Mapping[str, Any]) -> bool:
    """Return whether a parameter has the name of a key, token or other credentials, such as ``azure_ad_token``."""
    return any(name.endswith(("_key", "_token", "_token_provider", "_credentials")) for name in parameters)


def _drop_refused(message: Mapping[str, Any], provider: str) -> dict[str, Any]:
    refused = _REFUSED_FIELDS.get(provider, ())
    return {name: value for name, value in message.items() if name not in refused}


def _is_of_the_network(error: BaseException) -> bool:
    import aiohttp
    import httpx
    import openai

    # LiteLLM's exceptions inherit from OpenAI's classes, even if nothing was sent. So check the module too.
    is_openais = isinstance(error, openai.APIError) and type(error).__module__.startswith("openai")
    return is_openais or isinstance(error, httpx.HTTPError | aiohttp.ClientError | OSError | TimeoutError)


def _settings(litellm: Any) -> dict[str, Any]:
    """Return ``headers`` and all string settings of the litellm module. Any of these may contain API keys."""
    found = cast(dict[str, Any], vars(litellm))
    return {
        name: value
        for name, value in found.items()
        if name == "headers" or (isinstance(value, str) and name.islower())  # constants of litellm are in capitals
    }
