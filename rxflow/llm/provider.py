"""All providers that litellm knows, as one source of deltas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from reactivex import Observable

from rxflow.llm import litellm_import
from rxflow.llm.advice import add_advice, advice_for
from rxflow.llm.batches import Deliver, from_io
from rxflow.llm.closed_clients import forget_closed
from rxflow.llm.deltas import Tail
from rxflow.llm.error_texts import clean, known_keys
from rxflow.llm.lanes import read_fast, read_general
from rxflow.llm.litellm_errors import as_litellm
from rxflow.llm.preparation import Preparation
from rxflow.llm.request import Request
from rxflow.llm.source import Delta, Ending
from rxflow.types.usage import UsageMetrics

_READ_TIMEOUT = 600.0
_HEADERS_MAY_DRIP = 5.0  # seconds, beyond the limits for the connection and for a silence


class LiteLLMSource:
    """Calls a provider through litellm, on the I/O loop."""

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
        self._read_timeout = _READ_TIMEOUT if read_timeout is None else read_timeout
        self._connect_timeout = connect_timeout
        litellm_import.begin()

    def stream(self, request: Request) -> Observable[Delta]:
        async def read(deliver: Deliver) -> None:
            litellm = await litellm_import.module()
            try:
                await self._read(litellm, request, deliver)
            except Exception as error:
                keys = known_keys(self._api_key, {"base_url": self._base_url}, request.parameters, _settings(litellm))
                # Before litellm sees it, too: some errors show only the beginning of what they hold.
                clean(error, keys)
                mapped = as_litellm(litellm, error, model=request.model, provider=_provider_of(litellm, request.model))
                clean(mapped, keys)
                if mapped is error:
                    raise
                raise mapped from error

        return from_io(read)

    async def _read(self, litellm: Any, request: Request, deliver: Deliver) -> None:
        with Preparation():
            wrapper = await self._answer(litellm, request)
        inner = wrapper.completion_stream
        watched = _has_callbacks(litellm)
        if hasattr(inner, "response") and type(inner).__module__.startswith("openai") and not watched:
            tail = await read_fast(inner, deliver, silence=self._read_timeout)
        else:
            tail = await read_general(wrapper, deliver, to_the_end=watched, silence=self._read_timeout)
        if tail.finish_reason is None:
            raise litellm.APIConnectionError(
                message="the stream ended before the answer was complete (no finish reason was seen)",
                llm_provider=_provider_of(litellm, request.model),
                model=request.model,
            )
        deliver([_ending(litellm, tail, request.model)])

    async def _answer(self, litellm: Any, request: Request) -> Any:
        """litellm's stream, once the headers are there."""
        # Its own limits are for each read, so a provider could drip headers, or the text of an error, for ever.
        async with asyncio.timeout(self._connect_timeout + self._read_timeout + _HEADERS_MAY_DRIP):
            try:
                return await litellm.acompletion(**self._arguments(litellm, request))
            except Exception as error:
                if not forget_closed(litellm, error):
                    raise
            return await litellm.acompletion(**self._arguments(litellm, request))

    def _arguments(self, litellm: Any, request: Request) -> dict[str, Any]:
        import httpx  # comes with litellm, and only with it: `import rxflow` stays light

        api_key = self._api_key
        if api_key is None and _provider_of(litellm, request.model) == "openai":
            api_key = self._openai_key(litellm, request.model)
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": list(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            # Retries are ours, before the first chunk only; the SDK would make three of its own.
            "max_retries": 0,
            "num_retries": 0,
            "timeout": httpx.Timeout(self._read_timeout, connect=self._connect_timeout),
            # Without it any call with tools fails in litellm 1.106.
            "_skip_mcp_handler": True,
        }
        optional = {"api_base": self._base_url, "api_key": api_key, "tools": list(request.tools) or None}
        hints = _taken(litellm, request)
        return arguments | {k: v for k, v in optional.items() if v is not None} | hints | dict(request.parameters)

    def _openai_key(self, litellm: Any, model: str) -> str | None:
        # litellm reports a missing OpenAI key as the provider's internal error, which would even be retried.
        if not litellm.validate_environment(model).get("missing_keys") or litellm.api_key or litellm.openai_key:
            return None
        if self._base_url is not None:
            return "none"  # servers of one's own ask for no key, but the SDK insists on one
        raise litellm.AuthenticationError(
            message="there is no API key for this model", llm_provider="openai", model=model
        )

    async def calls_functions(self, model: str) -> bool:
        litellm = await litellm_import.module()
        try:
            litellm.get_model_info(model)
        except Exception:  # noqa: BLE001 - litellm's way to say that it does not know the model
            return True  # most servers of one's own do; LLM(…, function_calling=False) says otherwise
        return bool(litellm.supports_function_calling(model))

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            return None
        litellm = litellm_import.begin().result()  # it is there: the error is one of its own
        if not litellm._should_retry(status):
            return None
        # The response in litellm's own errors is an empty one; the headers it came with stand beside it.
        headers = getattr(error, "litellm_response_headers", None)
        return float(litellm._calculate_retry_after(of - attempt + 1, of, headers))

    def explain(self, error: BaseException, model: str) -> BaseException:
        imported = litellm_import.begin()
        if imported.exception() is not None:
            return error
        advice = advice_for(error, imported.result(), model)
        return error if advice is None else add_advice(error, advice)


def _taken(litellm: Any, request: Request) -> dict[str, Any]:
    """The hints that the model takes; litellm would refuse the others."""
    takes_schema = "response_format" in request.hints and litellm.supports_response_schema(request.model)
    return {name: value for name, value in request.hints.items() if name != "response_format" or takes_schema}


def _has_callbacks(litellm: Any) -> bool:
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
    # "cache" is litellm's own: a single call to gemini/ registers it, and every later call would be slow.
    unused = {"cache"} if litellm.cache is None else set[str]()
    return any(callback not in unused for name in lists for callback in getattr(litellm, name, None) or ())


def _settings(litellm: Any) -> dict[str, Any]:
    """What programs set on the module itself: ``litellm.api_key``, a key for each provider, ``litellm.headers``."""
    found = cast(dict[str, Any], vars(litellm))
    return {
        name: value
        for name, value in found.items()
        if name == "headers" or (isinstance(value, str) and name.islower())  # its constants are in capitals
    }


def _provider_of(litellm: Any, model: str) -> str:
    try:
        return str(litellm.get_llm_provider(model)[1])
    except Exception:  # noqa: BLE001 - the call itself will say what is wrong with the name
        return model.partition("/")[0]


def _ending(litellm: Any, tail: Tail, model: str) -> Ending:
    usage = _usage(tail.usage or {})
    try:
        # The whole report, as cached tokens have a price of their own.
        prompt, completion = litellm.cost_per_token(model=model, usage_object=litellm.Usage(**(tail.usage or {})))
        cost = float(prompt + completion)
    except Exception:  # noqa: BLE001 - litellm's way to say that it knows no price
        cost = None
    return Ending(tail.finish_reason or "stop", usage, cost)


def _usage(reported: Mapping[str, Any]) -> UsageMetrics:
    """OpenAI's usage object, which litellm gives for every provider."""
    prompt = _count(reported, "prompt_tokens")
    completion = _count(reported, "completion_tokens")
    return UsageMetrics(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_count(reported, "total_tokens") or prompt + completion,
        cached_prompt_tokens=_count(reported.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(reported.get("completion_tokens_details"), "reasoning_tokens"),
        successful_requests=1,
    )


def _count(reported: Any, name: str) -> int:
    """A number of tokens, or 0: the answer is there, and nonsense about its price is no reason to lose it."""
    value: Any = cast(Mapping[str, Any], reported).get(name) if isinstance(reported, Mapping) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < float("inf") else 0
