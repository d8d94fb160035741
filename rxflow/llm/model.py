"""``LLM``: one model of one provider, and the calls to it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload
from urllib.parse import urlsplit

from pydantic import BaseModel
from reactivex import Observable, operators as rx_ops

from rxflow._options import (
    IGNORED_BY_LLM,
    NATIVE_TO_CREWAI,
    Parameter,
    Seconds,
    check_call_options,
    read_seconds,
    split_llm_options,
)
from rxflow._streaming import (
    Emitter,
    EventStream,
    Last,
    Scope,
    StreamSession,
    ambient,
    await_blocking,
    chunks,
    run_async,
    run_blocking,
)
from rxflow._text import read_json
from rxflow.llm._call import Server, cut_at_stop, make_call, read_stop
from rxflow.llm._functions import (
    Functions,
    Offered,
    arun_function,
    function_for,
    offering_in_text,
    refuse_async,
    run_function,
    runnable,
    schemas_of,
)
from rxflow.llm._limits import IN_PROCESS, RateLimits, name_key
from rxflow.llm._litellm.source import LiteLLMSource
from rxflow.llm._providers import find_account, source_for
from rxflow.llm.source import Delta, Message, Request, Source, normalize_messages, response_format_for, split_model
from rxflow.types import Event, LLMFailed, LLMFinished, LLMRetrying, StreamChunk
from rxflow.types.results import estimate_usage

M = TypeVar("M", bound=BaseModel)


class LLM:
    """A model, named ``"provider/model"`` as in litellm. The embedded model ``"rxflow/demo"`` needs no API key.

    Every call streams from the provider. Disposing a call closes its connection.

    Args:
        model: for example ``"openai/gpt-4.1-mini"``, ``"anthropic/claude-sonnet-4-5"``, ``"ollama_chat/llama3"``.
        temperature, top_p, max_tokens, seed, reasoning_effort: as the provider accepts them.
        response_format: a pydantic class, or a mapping as the provider accepts it.
        stop: an answer ends where one of these texts would begin, even if the provider does not support the parameter.
        base_url: the address of your own server. ``api_base`` is another name for this argument.
        api_key: the API key. By default, it comes from the provider's environment variable.
        timeout: how long to wait for the first byte, and for each later one, in seconds or as a timedelta. The default
            is 600 s. The whole call may take longer.
        connect_timeout: how long opening the connection may take, in seconds or as a timedelta.
        max_retries: how often a call is repeated if it fails before its first chunk. Later failures are not retried.
        function_calling: True offers tools to the model natively. False describes the tools in text. By default,
            litellm's table of models decides.
        max_rpm, max_tpm: requests and tokens per minute, for all LLMs with this model and API key together. LLMs
            without limits are not counted. Runs that wait take turns. After an answer with status 429, all LLMs with
            limits and this key wait. Needs ``rxflow[limits]``.
        limit_store: ``"redis://host:port/db"`` shares the limits among processes. By default, each process has its own.
        pace: for ``rxflow/demo``, seconds between two words.
        source: the object that calls the model. By default, rxflow chooses one by the model's name.
        stream: accepted for compatibility; rxflow always streams.
        via: ``"litellm"`` sends all requests through LiteLLM. By default, OpenAI's chat API and compatible servers are
            called directly, unless the program has configured LiteLLM or a parameter needs LiteLLM. All other calls go
            through LiteLLM.
        parameters: anything else that litellm's ``completion`` accepts, also as ``additional_params={…}``.
            ``presence_penalty``, ``frequency_penalty``, ``logit_bias``, ``logprobs``, ``top_logprobs``, ``n``,
            ``max_completion_tokens`` and ``api_version`` are also attributes. ``provider`` is put before a model's name
            that has no provider. CrewAI's options that rxflow does not need, such as ``llm_type``, have no effect.

    Raises:
        TypeError: an argument has the wrong type, or two names of the same argument have different values.
        ValueError: an argument has a value that is not allowed; for example, ``provider`` contradicts the name.
    """

    temperature = Parameter[float]()
    top_p = Parameter[float]()
    max_tokens = Parameter[int]()
    max_completion_tokens = Parameter[int]()
    api_version = Parameter[str]()
    seed = Parameter[int]()
    reasoning_effort = Parameter[str]()
    presence_penalty = Parameter[float]()
    frequency_penalty = Parameter[float]()
    logit_bias = Parameter[Mapping[Any, float]]()
    logprobs = Parameter[bool]()
    top_logprobs = Parameter[int]()
    n = Parameter[int]()

    def __init__(
        self,
        model: str,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        base_url: str | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: Seconds | None = None,
        connect_timeout: Seconds = 10.0,
        max_retries: int = 2,
        stream: bool = True,
        response_format: type[BaseModel] | Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        function_calling: bool | None = None,
        max_rpm: int | None = None,
        max_tpm: int | None = None,
        limit_store: str = IN_PROCESS,
        pace: float = 0.0,
        source: Source | None = None,
        via: Literal["litellm"] | None = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'model must be a name, "provider/model"; got {model!r}')
        if not model.strip():
            raise ValueError(f'model is empty: {model!r}; name one as "provider/model", or "rxflow/demo"')
        self._ignored = {name: parameters[name] for name in IGNORED_BY_LLM if name in parameters}
        model, parameters = split_llm_options(model, parameters)
        if max_retries < 0:
            raise ValueError(f"max_retries cannot be negative: {max_retries!r}")
        if base_url is not None and api_base is not None and base_url != api_base:
            raise TypeError(f"base_url and api_base are two names of one parameter; got {base_url!r} and {api_base!r}")
        silence_s = None if timeout is None else read_seconds("timeout", timeout)
        self.model = model
        self.max_retries = max_retries
        self.stream = stream
        self.stop = read_stop(stop)
        self._base_url = api_base if base_url is None else base_url
        self._api_key = api_key
        self.timeout = silence_s
        self._function_calling = function_calling
        self._limits: RateLimits | None = None
        if max_rpm is not None or max_tpm is not None:
            provider, name = split_model(model)
            key = name_key(provider, *find_account(provider, self._base_url, api_key))
            self._limits = RateLimits(
                key=key, model=f"{provider}/{name}", max_rpm=max_rpm, max_tpm=max_tpm, store=limit_store
            )
        self._response_model = response_format if isinstance(response_format, type) else None
        given: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "reasoning_effort": reasoning_effort,
            "response_format": response_format_for(self._response_model) if self._response_model else response_format,
        }
        self.parameters = {key: value for key, value in given.items() if value is not None} | parameters
        self._source = source or source_for(
            model,
            base_url=self._base_url,
            api_key=api_key,
            timeout=silence_s,
            connect_timeout=read_seconds("connect_timeout", connect_timeout),
            pace=pace,
            parameters=parameters,
            via=via,
        )

    def supports_function_calling(self) -> bool:
        """Return whether tools are offered to the model natively. Otherwise, they are described to it in text."""
        if self._function_calling is None:
            find: Coroutine[Any, Any, bool] = self._source.calls_functions(self.model)
            return await_blocking(find)
        return self._function_calling

    def supports_stop_words(self) -> bool:
        """Return True: an answer ends before ``stop``, even if the model does not support stop sequences."""
        return True

    @property
    def base_url(self) -> str | None:
        """The given address, or else the one in the environment (only for direct calls, see ``via``), or else None."""
        return self._base_url or getattr(self._source, "base_url", None)

    @property
    def api_key(self) -> str | None:
        """The given API key, or else the one in the environment (only for direct calls, see ``via``), or else None.

        Copies and pickles of this object do not contain a key from the environment.
        """
        return self._api_key or getattr(self._source, "api_key", None)

    @property
    def api_base(self) -> str | None:
        """Another name for ``base_url``."""
        return self.base_url

    @property
    def provider(self) -> str:
        """The provider in the model's name. Without one: "openai" or "anthropic" for their own models, or else ""."""
        return split_model(self.model)[0]

    @property
    def response_format(self) -> type[BaseModel] | Mapping[str, Any] | None:
        """The argument ``response_format``: the format that answers should have; None if none was given."""
        return self._response_model or self.parameters.get("response_format")

    if not TYPE_CHECKING:  # otherwise a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            if name == "is_anthropic":
                return self.model.startswith(("anthropic/", "claude-", "claude/"))
            if name == "is_litellm" and isinstance(self.__dict__.get("_source"), LiteLLMSource):
                return bool(self._ignored.get(name)) or self.provider not in NATIVE_TO_CREWAI | {""}
            if name in IGNORED_BY_LLM:
                return self.__dict__.get("_ignored", IGNORED_BY_LLM).get(name, IGNORED_BY_LLM[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"LLM({self.model!r})"

    def observe(
        self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None
    ) -> EventStream[StreamChunk]:
        """Return a cold Observable of the answer's chunks. Each subscription makes a call. ::

            subscribe  ----he--ll--o--|
            dispose    ----he--x          the provider's connection closes

        ``tools`` are ``@tool`` functions, ``BaseTool`` objects, or schemas as in OpenAI's chat API. If the provider
        fails, the error is an instance of one of litellm's exception classes. The error's message may end with advice.
        """
        return self.events(messages, tools).select(chunks)

    def events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events of a call, such as its start, chunks, reasoning and retries.

        The last event of a successful call has the usage, the finish reason and the cost.
        """
        request = self.request(messages, tools or ())
        return EventStream(lambda scope: self.ask(scope, request))

    def stream_events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> StreamSession:
        """Return one call as frames. Loop over the frames to run the call. Then ``result`` is the answer's text."""
        return StreamSession(self.events(messages, tools), LLMFinished)

    def request(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] = (),
        *,
        hints: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Request:
        """Return the request for one call. ``hints`` are parameters that are sent only if the model accepts them.

        Raises:
            ValueError: ``messages`` is an empty list.
            TypeError: ``messages`` or ``tools`` has the wrong type.
        """
        return Request(
            model=self.model,
            messages=normalize_messages(messages),
            tools=schemas_of(tools),
            parameters=self.parameters | parameters,
            hints=({"stop": self.stop} if self.stop else {}) | dict(hints or {}),
        )

    def ask(self, scope: Scope, request: Request, *, max_retries: int | None = None) -> Observable[Event]:
        """Return the events of one call in ``scope``. Agents use this."""
        limit = self.max_retries if max_retries is None else max_retries
        call = make_call(scope, request, self._source, self._deltas, limit, self._server)
        return call if self._limits is None else call.pipe(rx_ops.do_action(partial(self._note, self._limits, request)))

    async def ask_aside(self, emitter: Emitter, request: Request, *, max_retries: int | None = None) -> str:
        """Ask the model a side question, and return the answer. The answer's chunks are not emitted.

        All other events of the call are emitted. The usage and the cost of the call count for the run.
        """
        last = Last(LLMFinished)

        def note(event: Event) -> None:
            last.tap(event)
            if not isinstance(event, StreamChunk):
                emitter.on_next(event)

        await emitter.drain(self.ask(emitter.scope, request, max_retries=max_retries), note)
        return last.event.text

    @property
    def _server(self) -> Server:
        """The host and port of the server, if ``base_url`` was given or rxflow calls the server directly.

        Otherwise they are "" and None.
        """
        find: Callable[[], str | None] = getattr(self._source, "find_url", lambda: self.base_url)
        try:
            url = urlsplit(find() or "")
            return url.hostname or "", url.port
        except ValueError:  # not a URL; the call itself will report that
            return "", None

    def _note(self, limits: RateLimits, request: Request, event: Event) -> None:
        """Report to ``limits`` how many tokens a call used. If the provider refused the call with 429, report that."""
        if isinstance(event, LLMFinished) and not event.replayed:
            limits.settle(_estimate_tokens(request), event.usage)
        elif isinstance(event, LLMRetrying) and getattr(event.error, "status_code", None) == 429:
            limits.back_off(event.delay)
        elif isinstance(event, LLMFailed) and getattr(event.error, "status_code", None) == 429:
            limits.back_off(self._source.retry_delay(event.error, 1, 1) or 0.0)

    async def _deltas(self, request: Request) -> Observable[Delta]:
        native = not request.speaks_of_tools or self._function_calling
        if native is None:
            native = await self._source.calls_functions(self.model)
        if self._limits is not None:  # last: a call that is cancelled later has used its slot
            leaf = ambient.get()
            await self._limits.acquire(leaf.run.id if leaf is not None else "", _estimate_tokens(request))
        deltas = self._source.stream(request) if native else offering_in_text(self._source, request)
        return cut_at_stop(deltas, request)

    @overload
    def call(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        *,
        response_model: type[M],
        **options: Any,
    ) -> M: ...

    @overload
    def call(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: None = None,
        **options: Any,
    ) -> Any: ...

    def call(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: type[BaseModel] | None = None,
        **options: Any,
    ) -> Any:
        """Return the whole answer: its text, or an object of ``response_model`` that is read from the text.

        Without ``response_model``, a class that was given as ``response_format`` is used. If the model calls one of
        ``tools`` or ``available_functions``, this method runs the first tool call and returns the function's result.
        No function is run if ``available_functions`` is {}, or if it is not given and all ``tools`` are schemas. If the
        model then calls tools, this method returns the list of :class:`ToolCall` objects. Inside a flow, the chunks are
        part of the flow's stream. CrewAI's ``from_task``, ``from_agent`` and empty ``callbacks`` have no effect.

        Raises:
            TypeError: a function is async, an option is unknown, or ``response_model`` is not a pydantic class.
            ValueError: the model called an unknown function, the arguments do not fit the function, or the answer does
                not fit ``response_model``.
        """
        events = self._call_events(messages, tools, response_model, options)
        functions = runnable(tools, available_functions)
        refuse_async(functions)
        finished = run_blocking(events, LLMFinished)
        function = function_for(finished.tool_calls, functions, is_async=False)
        if function is None:
            return _answer_of(finished, response_model or self._response_model)
        return run_function(function, finished.tool_calls[0].name)

    @overload
    async def acall(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        *,
        response_model: type[M],
        **options: Any,
    ) -> M: ...

    @overload
    async def acall(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: None = None,
        **options: Any,
    ) -> Any: ...

    async def acall(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: type[BaseModel] | None = None,
        **options: Any,
    ) -> Any:
        """Do the same as :meth:`call`, but await async functions, and run sync functions in a worker thread."""
        events = self._call_events(messages, tools, response_model, options)
        functions = runnable(tools, available_functions)
        finished = await run_async(events, LLMFinished)
        function = function_for(finished.tool_calls, functions, is_async=True)
        if function is None:
            return _answer_of(finished, response_model or self._response_model)
        return await arun_function(function)

    def _call_events(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None,
        response_model: type[BaseModel] | None,
        options: Mapping[str, Any],
    ) -> EventStream[Event]:
        check_call_options(options)
        given = cast(object, response_model)
        if given is not None and not (isinstance(given, type) and issubclass(given, BaseModel)):
            raise TypeError(f"response_model must be a pydantic class; got {response_model!r}")
        extra = {"response_format": response_format_for(response_model)} if response_model else {}
        request = self.request(messages, tools or (), **extra)
        return EventStream(lambda scope: self.ask(scope, request))


def _answer_of(finished: LLMFinished, model: type[BaseModel] | None) -> Any:
    if finished.tool_calls:
        return list(finished.tool_calls)
    return read_json(model, finished.text) if model else finished.text


def _estimate_tokens(request: Request) -> int:
    """Estimate the tokens of a request: those of its messages' text, plus the limit for the answer if there is one."""
    allowed = request.parameters.get("max_tokens") or request.parameters.get("max_completion_tokens") or 0
    return (estimate_usage(request.messages, []).total_tokens or 0) + int(allowed)
