"""``BaseLLM``, the base class of a program's own models, and ``Model``, the type of fields that take a model."""

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

from rxflow._copies import copy_value
from rxflow._loops import call_soon
from rxflow._streaming import EventStream, ambient, from_async, in_thread
from rxflow.llm._functions import Offered
from rxflow.llm.model import LLM
from rxflow.llm.source import Delta, Ending, Message, PartDelta, ReasoningDelta, RefusalDelta, Request, ToolCallDelta
from rxflow.tools import as_text
from rxflow.types import Event, StreamChunk, ToolCall, UsageMetrics

_OTHER_PARAMETERS = ("callbacks", "available_functions", "from_task", "from_agent", "response_model")
_PROVIDERS = {  # LangChain's chat models, and litellm's names of their providers
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
    """A model of your own. Derive a class, write :meth:`call`, and pass an instance wherever an LLM is accepted.

    ``call`` receives the messages, and returns the answer:

    - a text, which becomes one chunk;
    - a generator or another iterator of texts, each of which becomes a chunk;
    - to call tools, a list of tool calls in the shape of OpenAI's chat API.

    If the class overrides ``acall``, rxflow uses ``acall`` instead of ``call``. ``acall`` may be an async generator.
    By default, rxflow describes the tools in the prompt. If the model itself accepts tools, override
    ``supports_function_calling`` to return True, and give ``call`` a parameter ``tools`` (or ``**kwargs``) for their
    schemas. ::

        class Echo(BaseLLM):
            def call(self, messages, **_):
                yield from messages[-1]["content"].split()

        Agent(..., llm=Echo(model="echo"))

    If your program calls ``call`` or ``acall`` itself, it gets what your method returns. Agents, :meth:`observe` and
    :meth:`events` stream the answer.

    Args:
        model: the model's name, for events and logs.
        temperature, stop: values that ``call`` may read. rxflow also cuts the answer off at ``stop``.
        parameters: further keyword arguments. An argument sets an attribute if the class declares a field with the
            argument's name. All other arguments are kept in the attribute ``parameters``.
    """

    def __init__(
        self,
        model: str,
        temperature: float | None = None,
        *,
        stop: str | list[str] | None = None,
        **parameters: Any,
    ) -> None:
        own = {"model": model, "temperature": temperature, "stop": stop}
        for name, declared in _list_fields(type(self)).items():
            if name in parameters:
                setattr(self, name, parameters.pop(name))
            elif isinstance(declared, FieldInfo):
                if declared.is_required() and type(self).__init__ is not BaseLLM.__init__:
                    continue  # the subclass may set the field after this call
                if declared.is_required() and own.get(name) is None:
                    kind = type(self).__name__
                    raise TypeError(f"{kind} needs a value for the field {name!r}; write {kind}(…, {name}=…)")
                setattr(self, name, declared.get_default(call_default_factory=True))
            elif isinstance(declared, ModelPrivateAttr):
                setattr(self, name, declared.get_default())
        self.model = model
        if temperature is not None or not hasattr(self, "temperature"):  # otherwise the class's own default applies
            self.temperature = temperature
        if stop is None:
            declared_stop = getattr(self, "stop", None)  # the class's own default; or a method of this name
            stop = cast("str | list[str]", declared_stop) if isinstance(declared_stop, str | list | tuple) else None
        self.stop = [stop] if isinstance(stop, str) else list(stop or ())
        self.parameters = parameters
        self._llm = LLM(model, stop=self.stop or None, source=_CallSource(self))

    @abstractmethod
    def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer ``messages``. Return a text, an iterator of texts, or a list of tool calls."""

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer as :meth:`call` does, for async code. This default runs :meth:`call` in a thread."""
        return await in_thread(partial(self.call, messages, *args, **kwargs), name=f"{type(self).__name__}.call")

    def supports_function_calling(self) -> bool:
        """Return whether ``call`` accepts ``tools`` and returns tool calls. This default returns False."""
        return False

    @property
    def llm(self) -> LLM:
        """The LLM through which agents use this model. Its answers come from :meth:`call` or :meth:`acall`."""
        return self._llm

    def observe(
        self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None
    ) -> Observable[StreamChunk]:
        """Return a cold Observable of the answer's chunks, as :meth:`LLM.observe` does."""
        return self._llm.observe(messages, tools)

    def events(self, messages: str | Sequence[Message], tools: Sequence[Offered] | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events of the call, from its start to its end."""
        return self._llm.events(messages, tools)


BaseLLM.register(LLM)  # programs written for CrewAI use isinstance(llm, BaseLLM) to recognize any model
_ACALL = vars(BaseLLM)["acall"]


def _list_fields(cls: type) -> dict[str, Any]:
    """Return the fields that ``cls`` and its bases declare, by name. BaseLLM and its own bases are left out.

    Fields are declared as in pydantic's models. The value for a field is its ``Field(…)`` or ``PrivateAttr(…)``. If the
    field has neither, the value is None.
    """
    declared: dict[str, Any] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(BaseLLM)]):
        declared |= dict.fromkeys(inspect.get_annotations(base))
        declared |= {
            name: value for name, value in vars(base).items() if isinstance(value, FieldInfo | ModelPrivateAttr)
        }
    return declared


def check_model(given: object) -> object:
    """Return ``given`` if it is a model or None. If it is a model's name, return an LLM.

    Raises:
        ValueError: ``given`` is something else, or a model that agents cannot use. The message explains what to write.
    """
    kind = type(given).__name__
    if isinstance(given, str) and not given.strip():
        raise ValueError('the model\'s name is empty; name one as "provider/model", or "rxflow/demo"')
    if isinstance(given, str):
        return LLM(given)
    if isinstance(given, LLM) and _overrides(given):
        raise ValueError(f"{kind} derives from LLM and overrides call, which agents would not use; derive from BaseLLM")
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
    raise ValueError(f'llm must be an LLM or a name, "provider/model"; got {given!r}')


def _overrides(llm: LLM) -> bool:
    return any(getattr(type(llm), name) is not getattr(LLM, name) for name in ("call", "acall"))


Model = Annotated[LLM | BaseLLM | str, BeforeValidator(check_model)]
"""The type of a field that takes a model: an :class:`LLM`, a :class:`BaseLLM` or a model's name."""


class _CallSource:
    """Streams the answer of a user's ``call`` or ``acall`` as deltas."""

    def __init__(self, llm: BaseLLM) -> None:
        self._llm = llm
        self._name = f"{type(llm).__name__}.call"
        self._async_name = f"{type(llm).__name__}.acall"

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            with _mute_chunks():  # if the method asks other models, their chunks must not become part of this answer
                name, said = await self._ask(request)
                reply = _Reply(emit, name)
                await reply.read(said)
            reply.end()

        return from_async(answer)

    async def _ask(self, request: Request) -> tuple[str, Any]:
        """Return the name of the method that was called, and what it returned."""
        if _method(self._llm, "acall") is not _ACALL:
            try:
                said = await _resolve(self._llm.acall(*_messages(request), **_keywords(self._llm.acall, request)))
                return self._async_name, said
            except NotImplementedError:  # some classes define ``acall`` only to raise this error
                pass
        call = partial(self._llm.call, *_messages(request), **_keywords(self._llm.call, request))
        return self._name, await _resolve(await in_thread(call, name=self._name))

    async def calls_functions(self, model: str) -> bool:
        if _method(self._llm, "supports_function_calling") is BaseLLM.supports_function_calling:
            return False
        # Run the method in a thread, because it may block: a model that wraps another model may ask that model.
        return await in_thread(self._llm.supports_function_calling, name=self._name)

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        return error


@contextmanager
def _mute_chunks() -> Generator[None, None, None]:
    """If the code in the ``with`` block calls other models, drop the chunks and the reasoning of these models.

    All other events of these models stay in the surrounding run's stream.
    """
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


async def _resolve(said: Any) -> Any:
    while inspect.isawaitable(said):
        said = await said
    return said


def _messages(request: Request) -> tuple[list[dict[str, Any]]]:
    return (copy_value([{**message} for message in request.messages]),)  # copies, because the method may change them


def _keywords(method: Callable[..., Any], request: Request) -> dict[str, Any]:
    """Return the keyword arguments for ``method``: ``tools``, and None for CrewAI's other parameters.

    Parameters that ``method`` does not have are left out.
    """
    parameters = inspect.signature(method).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    given: dict[str, Any] = dict.fromkeys(name for name in _OTHER_PARAMETERS if name in parameters)
    if "tools" in parameters or takes_any:
        given["tools"] = list(request.tools) or None
    return given


class _Reply:
    """Turns the return value of a user's ``call`` or ``acall`` into deltas."""

    def __init__(self, emit: Callable[[Delta], None], name: str) -> None:
        self._emit = emit
        self._name = name
        self._ending: Ending | None = None
        self._calls_tools = False

    async def read(self, said: Any) -> None:
        """Emit all deltas in ``said`` except the :class:`Ending`. ``said`` is what ``call`` or ``acall`` returned."""
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
        """Emit the :class:`Ending` that the method returned. If there was none, emit a new one."""
        reason = "tool_calls" if self._calls_tools else "stop"
        self._emit(self._ending or Ending(reason, UsageMetrics(successful_requests=1)))

    async def _read_async(self, parts: AsyncIterator[Any]) -> None:
        try:
            async for part in parts:
                self._add(self._delta_of(part))
        finally:
            # run the ``finally`` of a generator now, not when it is garbage-collected
            if isinstance(parts, AsyncGenerator):
                await cast(AsyncGenerator[Any, None], parts).aclose()

    async def _read_in_thread(self, parts: Iterator[Any]) -> None:
        """Read the parts in a worker thread, because the iterator's code may block.

        After a disposal, at most one more part is read.
        """
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
        raise TypeError(f"{self._name} must return text, tool calls or an iterator of text; it returned {part!r}")

    def _add(self, delta: Delta) -> None:
        if isinstance(delta, Ending):
            self._ending = delta
            return
        self._calls_tools = self._calls_tools or isinstance(delta, ToolCallDelta)
        self._emit(delta)


def _tool_call(index: int, call: Any, name: str) -> ToolCallDelta:
    """Return the delta for the tool call ``call``.

    ``call`` is a dictionary or an object in the shape of OpenAI's chat API, or a :class:`ToolCall` from another LLM's
    answer. ``name`` is the name of the user's method, for errors.
    """
    if isinstance(call, ToolCall):
        return ToolCallDelta(index, id=call.id, name=call.name, arguments=call.arguments)
    read = cast(Callable[[Any, str], Any], _item if isinstance(call, Mapping) else _attribute)
    function = read(call, "function")
    if function is None:
        raise TypeError(f"{name} returned a tool call that is not in the shape of OpenAI's chat API: {call!r}")
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
