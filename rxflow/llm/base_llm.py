"""``BaseLLM``: a model that a program's own class answers for, and the types that are accepted as a model."""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo, ModelPrivateAttr
from reactivex import Observable

from rxflow._loops import call_soon
from rxflow._streaming.bridge import from_async
from rxflow._streaming.emitter import ambient, in_thread
from rxflow._streaming.observable import EventStream
from rxflow.llm._functions import Offered
from rxflow.llm._request import Message, Request
from rxflow.llm.model import LLM
from rxflow.llm.source import Delta, Ending, PartDelta, ReasoningDelta, RefusalDelta, ToolCallDelta
from rxflow.tools import as_text
from rxflow.types import Event, StreamChunk, ToolCall, UsageMetrics

_OTHER_PARAMETERS = ("callbacks", "available_functions", "from_task", "from_agent", "response_model")
_PROVIDERS = {  # of LangChain's chat models, as litellm names them
    "AzureChatOpenAI": "azure",
    "ChatAnthropic": "anthropic",
    "ChatBedrock": "bedrock",
    "ChatBedrockConverse": "bedrock",
    "ChatCohere": "cohere_chat",
    "ChatDeepSeek": "deepseek",
    "ChatFireworks": "fireworks_ai",
    "ChatGoogleGenerativeAI": "gemini",
    "ChatGroq": "groq",
    "ChatMistralAI": "mistral",
    "ChatOllama": "ollama_chat",
    "ChatOpenAI": "openai",
    "ChatTogether": "together_ai",
    "ChatVertexAI": "vertex_ai",
    "ChatXAI": "xai",
}


class BaseLLM(ABC):
    """A model of your own: derive from it, write :meth:`call`, and give an object of it wherever an LLM is taken.

    ``call`` receives the messages, and the tools' schemas as ``tools`` if it has that parameter. Its answer is one
    chunk. A generator streams: each text that it yields is a chunk. So does an async generator under the name
    ``acall``, and ``acall`` goes before ``call``. A list of tool calls in the shape of OpenAI's chat API calls tools.
    ``supports_function_calling`` returns True for a model that takes tools; to others they are offered in text. ::

        class Echo(BaseLLM):
            def call(self, messages, **_):
                yield from messages[-1]["content"].split()

        Agent(..., llm=Echo(model="echo"))

    Called by hand, ``call`` and ``acall`` are your methods as they are: only agents and :meth:`observe` stream them.

    Args:
        model: its name, for events and logs.
        temperature, stop: for ``call`` to read; the answer is cut at ``stop``.
        parameters: the same, in ``parameters``; those that the class annotates become attributes.
    """

    def __init__(
        self,
        model: str,
        temperature: float | None = None,
        *,
        stop: str | list[str] | None = None,
        **parameters: Any,
    ) -> None:
        for name, declared in _declared(type(self)).items():
            if name in parameters:
                setattr(self, name, parameters.pop(name))
            elif isinstance(declared, FieldInfo):
                setattr(self, name, declared.get_default(call_default_factory=True))
            elif isinstance(declared, ModelPrivateAttr):
                setattr(self, name, declared.get_default())
        self.model = model
        if temperature is not None or not hasattr(self, "temperature"):  # else the class's own default holds
            self.temperature = temperature
        self.stop = [stop] if isinstance(stop, str) else list(stop or ())
        self.parameters = parameters
        self._llm = LLM(model, stop=self.stop or None, source=_CallSource(self))

    @abstractmethod
    def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer ``messages``: a text, an iterator of texts, or a list of tool calls."""

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer as :meth:`call` does, for async code; here in a thread."""
        return await in_thread(partial(self.call, messages, *args, **kwargs), name=f"{type(self).__name__}.call")

    def supports_function_calling(self) -> bool:
        """Whether ``call`` takes ``tools`` and returns tool calls."""
        return False

    @property
    def llm(self) -> LLM:
        """The LLM that answers by :meth:`call`: what agents use."""
        return self._llm

    def observe(
        self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None
    ) -> Observable[StreamChunk]:
        """A cold Observable of the answer's chunks, as that of :class:`LLM`."""
        return self._llm.observe(messages, tools)

    def events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> EventStream[Event]:
        """A cold Observable of all events of the call: its start, chunks, retries and end."""
        return self._llm.events(messages, tools)


BaseLLM.register(LLM)  # isinstance(llm, BaseLLM) is how programs of CrewAI ask for any model
_ACALL = vars(BaseLLM)["acall"]


def _declared(cls: type) -> dict[str, Any]:
    """The fields, with defaults, that the classes between ``cls`` and BaseLLM declare as in pydantic's models."""
    declared: dict[str, Any] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(BaseLLM)]):
        declared |= dict.fromkeys(inspect.get_annotations(base))
        declared |= {
            name: value for name, value in vars(base).items() if isinstance(value, FieldInfo | ModelPrivateAttr)
        }
    return declared


def check_model(given: object) -> object:
    """``given`` as a model, if it is one or a model's name.

    Raises:
        ValueError: it is something else; the message says what to write.
    """
    kind = type(given).__name__
    if isinstance(given, str) and not given.strip():
        raise ValueError('the model\'s name is empty; name one as "provider/model", or "rxflow/demo"')
    if isinstance(given, str):
        return LLM(given)
    if isinstance(given, LLM) and _overrides(given):
        raise ValueError(f"{kind} is an LLM with a call of its own, which agents would not use; derive it from BaseLLM")
    if given is None or isinstance(given, LLM):
        return given
    if isinstance(given, BaseLLM):
        if not hasattr(given, "_llm"):
            raise ValueError(f"{kind}.__init__ must call super().__init__(model=…)")
        return given
    if isinstance(given, type):
        raise ValueError(f"{given.__name__} is a class, not a model; give an object of it, {given.__name__}(…)")
    if callable(getattr(given, "invoke", None)):
        name = getattr(given, "model_name", None) or getattr(given, "model", None)
        provider = _PROVIDERS.get(kind, "provider")
        raise ValueError(f'{kind} is a model of LangChain; write llm=LLM("{provider}/{name or "model"}") instead')
    if callable(getattr(given, "call", None)):
        raise ValueError(f"{kind} has a method call, but is not a model; derive the class from rxflow.BaseLLM")
    raise ValueError(f'llm is an LLM, or a name, "provider/model"; got {given!r}')


def _overrides(llm: LLM) -> bool:
    return any(getattr(type(llm), name) is not getattr(LLM, name) for name in ("call", "acall"))


Model = Annotated[LLM | BaseLLM | str, BeforeValidator(check_model)]
"""The type of a field that takes a model: an :class:`LLM`, a :class:`BaseLLM` or a model's name."""


class _CallSource:
    """The deltas of the answer of a user's ``call`` or ``acall``."""

    def __init__(self, llm: BaseLLM) -> None:
        self._llm = llm
        self._name = f"{type(llm).__name__}.call"

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            reply = _Reply(emit, self._name)
            with _muted():  # the words of other models that it asks are its own, or nobody's
                await reply.read(await self._ask(request))
            reply.end()

        return from_async(answer)

    async def _ask(self, request: Request) -> Any:
        if _method(self._llm, "acall") is not _ACALL:
            try:
                return await _awaited(self._llm.acall(*_messages(request), **_keywords(self._llm.acall, request)))
            except NotImplementedError:  # the way to say that there is only call
                pass
        call = partial(self._llm.call, *_messages(request), **_keywords(self._llm.call, request))
        return await _awaited(await in_thread(call, name=self._name))

    async def calls_functions(self, model: str) -> bool:
        if _method(self._llm, "supports_function_calling") is BaseLLM.supports_function_calling:
            return False
        # In a thread: a model that wraps another asks that, and waits.
        return await in_thread(self._llm.supports_function_calling, name=self._name)

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        return error


@contextmanager
def _muted() -> Generator[None, None, None]:
    """What runs here shows no chunks in the stream around it."""
    leaf = ambient.get()
    if leaf is None:
        yield
        return
    muted = leaf.mute()
    token = ambient.set(muted)
    try:
        yield
    finally:
        ambient.reset(token)
        muted.close()


def _method(llm: BaseLLM, name: str) -> Any:
    return getattr(type(llm), name)


async def _awaited(said: Any) -> Any:
    return await said if inspect.isawaitable(said) else said


def _messages(request: Request) -> tuple[list[dict[str, Any]]]:
    return ([{**message} for message in request.messages],)  # a copy: the method may change it


def _keywords(method: Callable[..., Any], request: Request) -> dict[str, Any]:
    """The parameters of ``method`` that CrewAI defines."""
    parameters = inspect.signature(method).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    given: dict[str, Any] = dict.fromkeys(name for name in _OTHER_PARAMETERS if name in parameters)
    if "tools" in parameters or takes_any:
        given["tools"] = list(request.tools) or None
    return given


class _Reply:
    """Turns what a method answers into deltas."""

    def __init__(self, emit: Callable[[Delta], None], name: str) -> None:
        self._emit = emit
        self._name = name
        self._ending: Ending | None = None
        self._calls_tools = False

    async def read(self, said: Any) -> None:
        """Emit the deltas of an answer, or of each part of a streamed answer."""
        if isinstance(said, AsyncIterator):
            await self._read_async(cast(AsyncIterator[Any], said))
        elif isinstance(said, Iterator):
            await self._read_in_thread(cast(Iterator[Any], said))
        elif isinstance(said, list):
            for index, call in enumerate(cast(list[Any], said)):
                self._add(_tool_call(index, call, self._name))
        else:
            self._add(self._delta_of(said))

    def end(self) -> None:
        """Emit the ending."""
        reason = "tool_calls" if self._calls_tools else "stop"
        self._emit(self._ending or Ending(reason, UsageMetrics(successful_requests=1)))

    async def _read_async(self, parts: AsyncIterator[Any]) -> None:
        try:
            async for part in parts:
                self._add(self._delta_of(part))
        finally:
            if isinstance(parts, AsyncGenerator):  # its own finally runs now, not when it is collected
                await cast(AsyncGenerator[Any, None], parts).aclose()

    async def _read_in_thread(self, parts: Iterator[Any]) -> None:
        """Read each part in a thread, because its code may block. After a disposal, one more part is read at most."""
        loop = asyncio.get_running_loop()
        is_over = threading.Event()

        def read() -> None:
            try:
                for part in parts:
                    if is_over.is_set():
                        break
                    call_soon(loop, partial(self._add, self._delta_of(part)))
            finally:
                if isinstance(parts, Generator):
                    cast(Generator[Any], parts).close()

        try:
            await in_thread(read, name=self._name)
        finally:
            is_over.set()

    def _delta_of(self, part: Any) -> Delta:
        if isinstance(part, ReasoningDelta | RefusalDelta | ToolCallDelta | PartDelta | Ending):
            return part
        if isinstance(part, str | BaseModel | Mapping):
            return as_text(part)
        raise TypeError(f"{self._name} answers with text, tool calls or an iterator of text; it gave {part!r}")

    def _add(self, delta: Delta) -> None:
        if isinstance(delta, Ending):
            self._ending = delta
            return
        self._calls_tools = self._calls_tools or isinstance(delta, ToolCallDelta)
        self._emit(delta)


def _tool_call(index: int, call: Any, name: str) -> ToolCallDelta:
    """One call, as OpenAI's dicts or objects have it, or another LLM's answer."""
    if isinstance(call, ToolCall):
        return ToolCallDelta(index, id=call.id, name=call.name, arguments=call.arguments)
    read = cast(Callable[[Any, str], Any], _item if isinstance(call, Mapping) else _attribute)
    function = read(call, "function")
    if function is None:
        raise TypeError(f"{name} gave a tool call that is not in the shape of OpenAI's chat API: {call!r}")
    read_function = _item if isinstance(function, Mapping) else _attribute
    arguments = read_function(function, "arguments")
    return ToolCallDelta(
        index,
        id=read(call, "id"),
        name=read_function(function, "name"),
        arguments=arguments if isinstance(arguments, str) else as_text(arguments or {}),
    )


def _item(holder: Any, name: str) -> Any:
    return holder.get(name)


def _attribute(holder: Any, name: str) -> Any:
    return getattr(holder, name, None)
