"""``LLM``: one model of one provider, and the calls to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel
from reactivex import Observable

from rxflow.json_text import read_json
from rxflow.llm.call import make_call
from rxflow.llm.functions import (
    Functions,
    Offered,
    arun_function,
    function_for,
    refuse_async,
    run_function,
    runnable,
    schemas_of,
)
from rxflow.llm.providers import source_for
from rxflow.llm.request import Message, Request, normalize_messages
from rxflow.llm.source import Delta, Source
from rxflow.llm.stop_sequences import cut_at_stop, read_stop
from rxflow.llm.structured import response_format_for
from rxflow.llm.text_tools import offering_in_text
from rxflow.streaming.kickoff import run_async, run_blocking
from rxflow.streaming.observable import EventStream, chunks
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, LLMFinished

if TYPE_CHECKING:
    from rxflow.streaming.frames import StreamSession

M = TypeVar("M", bound=BaseModel)
P = TypeVar("P")


class _Parameter(Generic[P]):
    """An attribute of an LLM that is kept in its ``parameters``; None: the provider's default."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, llm: None, owner: type) -> _Parameter[P]: ...

    @overload
    def __get__(self, llm: LLM, owner: type) -> P | None: ...

    def __get__(self, llm: LLM | None, owner: type) -> _Parameter[P] | P | None:
        return self if llm is None else llm.parameters.get(self._name)

    def __set__(self, llm: LLM, value: P | None) -> None:
        if value is None:
            llm.parameters.pop(self._name, None)
        else:
            llm.parameters[self._name] = value


class LLM:
    """A model, named ``"provider/model"`` as litellm writes it, or ``"rxflow/demo"``, which needs no key.

    Every call streams from the provider, and closes its connection when it is disposed.

    Args:
        model: for example ``"openai/gpt-4.1-mini"``, ``"anthropic/claude-sonnet-4-5"``, ``"ollama_chat/llama3"``.
        temperature, top_p, max_tokens, seed, reasoning_effort, response_format: as the provider takes them.
        stop: an answer ends in front of the first of these texts, also if the model does not take the parameter.
        base_url: where an OpenAI-compatible server of your own listens; ``api_base`` is its other name.
        api_key: else the provider's environment variable.
        timeout: seconds without a byte from the provider, also before the first one (not the whole call).
        connect_timeout: seconds for the connection.
        max_retries: new attempts after a failure before the first chunk; never in mid-stream.
        function_calling: None asks litellm whether the model takes tools natively; False offers them in text.
        pace: for ``rxflow/demo``, seconds between two words.
        stream: taken for compatibility; rxflow always streams.
        via: "litellm" insists that LiteLLM sends the requests. By default it sends those that need it: OpenAI's chat
            API and servers that speak it are asked directly, unless the program has registered callbacks or a cache
            with LiteLLM.
        parameters: anything else that litellm's ``completion`` takes.
    """

    temperature = _Parameter[float]()
    top_p = _Parameter[float]()
    max_tokens = _Parameter[int]()
    seed = _Parameter[int]()
    reasoning_effort = _Parameter[str]()

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
        timeout: float | None = None,
        connect_timeout: float = 10.0,
        max_retries: int = 2,
        stream: bool = True,
        response_format: type[BaseModel] | Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        function_calling: bool | None = None,
        pace: float = 0.0,
        source: Source | None = None,
        via: Literal["litellm"] | None = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'model is a name, "provider/model"; got {model!r}')
        if not model.strip():
            raise ValueError(f'model is empty: {model!r}; name one as "provider/model", or "rxflow/demo"')
        if max_retries < 0:
            raise ValueError(f"max_retries cannot be negative: {max_retries!r}")
        if base_url is not None and api_base is not None and base_url != api_base:
            raise TypeError(f"base_url and api_base are two names of one thing; got {base_url!r} and {api_base!r}")
        self.model = model
        self.max_retries = max_retries
        self.stream = stream
        self.stop = read_stop(stop)
        self.base_url = api_base if base_url is None else base_url
        self.timeout = timeout
        self._function_calling = function_calling
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
            base_url=self.base_url,
            api_key=api_key,
            timeout=timeout,
            connect_timeout=connect_timeout,
            pace=pace,
            parameters=parameters,
            via=via,
        )

    @property
    def response_format(self) -> type[BaseModel] | Mapping[str, Any] | None:
        """What every answer has to fit."""
        return self._response_model or self.parameters.get("response_format")

    def __repr__(self) -> str:
        return f"LLM({self.model!r})"

    def observe(
        self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None
    ) -> EventStream[StreamChunk]:
        """A cold Observable of the answer's chunks: each subscription is a call of its own. ::

            subscribe  ----he--ll--o--|
            dispose    ----he--x          the provider's connection closes

        ``tools`` are ``@tool`` functions, ``BaseTool`` objects, or schemas as OpenAI's chat API has them. Errors are
        litellm's, with a line that says what to do.
        """
        return self.events(messages, tools).select(chunks)

    def events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> EventStream[Event]:
        """The same with everything: started, reasoning text, retries, usage, finish reason and cost."""
        request = self.request(messages, tools or ())
        return EventStream(lambda scope: self.ask(scope, request))

    def stream_events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> StreamSession:
        """The call as frames, for ``for``; the first pull starts it, and ``result`` is the text."""
        from rxflow.streaming.frames import StreamSession  # most programs read chunks, not frames

        return StreamSession(self.events(messages, tools), LLMFinished)

    def request(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] = (),
        *,
        hints: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Request:
        """What one call asks for; ``hints`` are left out where the model does not take them.

        Raises:
            ValueError: ``messages`` is empty.
            TypeError: ``messages`` or ``tools`` is something else.
        """
        return Request(
            model=self.model,
            messages=normalize_messages(messages),
            tools=schemas_of(tools),
            parameters=self.parameters | parameters,
            hints=({"stop": self.stop} if self.stop else {}) | dict(hints or {}),
        )

    def ask(self, scope: Scope, request: Request, *, max_retries: int | None = None) -> Observable[Event]:
        """One call, made in ``scope``: what agents use."""
        limit = self.max_retries if max_retries is None else max_retries
        return make_call(scope, request, self._source, self._deltas, limit)

    async def _deltas(self, request: Request) -> Observable[Delta]:
        native = not request.speaks_of_tools or self._function_calling
        if native is None:
            native = await self._source.calls_functions(self.model)
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
    ) -> M: ...

    @overload
    def call(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: None = None,
    ) -> Any: ...

    def call(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        """The whole answer: its text, or what ``response_model`` reads from it.

        Where the model calls one of ``tools``, or of ``available_functions``, that is carried out and its result
        returned. Where only schemas were given, or ``available_functions={}``, the list of :class:`ToolCall` that it
        asked for is. Inside a flow, its chunks are in the flow's stream.

        Raises:
            TypeError: a function is async: sync code cannot await it.
            ValueError: the model called what is not there, or with arguments that do not fit.
        """
        events = self._call_events(messages, tools, response_model)
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
    ) -> M: ...

    @overload
    async def acall(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: None = None,
    ) -> Any: ...

    async def acall(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None = None,
        available_functions: Functions | None = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        """:meth:`call` for async code; a coroutine function is awaited, another one runs in a worker thread."""
        finished = await run_async(self._call_events(messages, tools, response_model), LLMFinished)
        function = function_for(finished.tool_calls, runnable(tools, available_functions), is_async=True)
        if function is None:
            return _answer_of(finished, response_model or self._response_model)
        return await arun_function(function)

    def _call_events(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Offered] | None,
        response_model: type[BaseModel] | None,
    ) -> EventStream[Event]:
        extra = {"response_format": response_format_for(response_model)} if response_model else {}
        request = self.request(messages, tools or (), **extra)
        return EventStream(lambda scope: self.ask(scope, request))


def _answer_of(finished: LLMFinished, model: type[BaseModel] | None) -> Any:
    if finished.tool_calls:
        return list(finished.tool_calls)
    return read_json(model, finished.text) if model else finished.text
