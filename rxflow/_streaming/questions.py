"""Questions that a run asks people: who answers, how long the run waits, and what happens if nobody answers.

A leaf calls :func:`ask`. This function emits ``InputRequested`` and then asks the answerers of the leaf's scope,
innermost first. The console, if there is one, is asked last. The first answer is validated, and ``InputReceived`` is
emitted. If the time for the answer runs out, the answer is None. If nobody has an answer, the leaf raises
:class:`Unanswered`. Concurrent work then continues to its end, and the outermost stream ends with ``FlowPaused``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isawaitable, signature
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError
from reactivex import Observable, Observer
from reactivex.abc import ObserverBase

from rxflow._loops import LoopScheduler, dispose_safely, fail_future
from rxflow._streaming.bridge import Unanswered, from_coroutine, on_loop
from rxflow._streaming.console import ConsoleProvider, has_console, is_input_replaced
from rxflow._streaming.emitter import Emitter, in_thread, is_async
from rxflow._streaming.scope import UNANSWERED, Answerer, Scope
from rxflow._text import list_problems
from rxflow.types import Event, FlowPaused, HumanFeedbackPending, InputReceived, InputRequested, InputResponse, Origin

T = TypeVar("T")


class ProvidesInput(Protocol):
    """A provider with the interface of CrewAI's input providers, for ``self.ask`` in a flow."""

    @property
    def request_input(self) -> Callable[..., Any]:
        """A method that asks for a text: ``request_input(message, flow, metadata=None)``.

        The method returns a text or an InputResponse. If there is no input, it returns None.
        """
        ...


class ProvidesFeedback(Protocol):
    """A provider with the interface of CrewAI's feedback providers, for ``@human_feedback``."""

    @property
    def request_feedback(self) -> Callable[..., Any]:
        """A method that asks for feedback: ``request_feedback(context, flow)``.

        The method returns a text. If there is no feedback yet, it raises HumanFeedbackPending.
        """
        ...


Who: TypeAlias = Callable[[InputRequested], Any] | Observable[Any] | Answerer | ProvidesInput | ProvidesFeedback
"""Whatever can answer questions; see :func:`rxflow.operators.answer_with`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[T]):
    """A question of a leaf.

    ``answer`` is the type of the answer. ``schema`` is the JSON Schema for the InputRequested event. If ``schema`` is
    None, the event gets the JSON Schema of ``answer``. ``check`` raises ValueError if an answer has the right type, but
    is not acceptable. ``timeout`` is the time for the answer, in seconds; None means no limit.
    """

    kind: str
    message: str
    answer: type[T]
    schema: Mapping[str, Any] | None = None
    check: Callable[[T], object] = field(default=lambda answer: None)
    options: tuple[str, ...] = ()
    tool_id: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float | None = None

    def request(self, emitter: Emitter) -> InputRequested:
        """Return the event that asks the question."""
        return InputRequested(
            origin=emitter.origin,
            request_id=uuid4().hex,
            kind=self.kind,
            message=self.message,
            options=self.options,
            tool_id=self.tool_id,
            arguments=self.arguments,
            response_schema=TypeAdapter(self.answer).json_schema() if self.schema is None else self.schema,
            expires_at=None if self.timeout is None else emitter.run.clock.time() + self.timeout,
        )

    def validate(self, request: InputRequested, answer: object) -> T:
        """Return ``answer``, converted to the required type. Raises ValueError if ``answer`` does not fit."""
        try:
            value = TypeAdapter(self.answer).validate_python(answer)
            self.check(value)
        except ValidationError as error:
            problems = list_problems(error, "answer")
            raise ValueError(f"the answer to {request.message!r} does not fit: {problems}") from error
        return value


async def ask(
    emitter: Emitter, question: Question[T], first: Sequence[Answerer] = (), *, is_needed: bool = True
) -> T | None:
    """Ask a question, and return the answer. If the time for the answer runs out, return None.

    The answerers in ``first`` are asked first, then the answerers of the emitter's scope. If a resumed run has a
    recorded answer to the question, return that answer, and ask nobody. If ``is_needed`` is False, and the run had not
    asked the question before it was resumed, return None.

    Raises:
        ValueError: the answer does not fit the question.
        Unanswered: no answerer has an answer, and the time has not run out.
    """
    emitter.require_open()
    request = question.request(emitter)
    answerers = [*first, *emitter.scope.answerers]
    journal = emitter.run.journal
    asked = None if journal is None else journal.take_question(emitter.scope.step, request)
    if asked is None and not is_needed:
        return None
    if asked is not None and asked.received is not None:
        try:
            value = None if asked.received.value is None else question.validate(request, asked.received.value)
        except ValueError:
            # The journal forgets the answer. Otherwise the run would fail in the same way each time it is resumed.
            emitter.on_next(replace(asked.request, origin=emitter.origin, replayed=True))
            raise
        emitter.on_next(replace(asked.received, origin=emitter.origin, value=value, replayed=True))
        return value
    seconds = question.timeout
    if journal is not None and asked is not None:
        request = asked.request
        answerers.insert(0, journal)
        seconds = None if request.expires_at is None else request.expires_at - emitter.run.clock.time()
    for answerer in answerers:
        answerer.expect(request)
    try:
        if asked is None:  # otherwise the log already has the question
            emitter.on_next(request)
            # People see the question already, so the log must not lose the question, nor the events before it.
            await emitter.run.flush()
        value = await _answer_in_time(question, request, answerers, seconds)
    finally:
        for answerer in answerers:
            answerer.forget(request)
    emitter.on_next(InputReceived(origin=emitter.origin, request_id=request.request_id, value=value))
    await emitter.run.flush()  # without the answer in the log, a resumed run would ask again
    return value


async def _answer_in_time(
    question: Question[T], request: InputRequested, answerers: Sequence[Answerer], seconds: float | None
) -> T | None:
    """Return the answer; None if nobody answers within ``seconds``. If ``seconds`` is None, wait without a limit."""
    if seconds is not None and seconds <= 0:
        return None
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return cast(T, await find_answer(answerers, request, partial(question.validate, request)))
    except TimeoutError:
        if not limit.expired():
            raise
    return None


async def find_answer(
    answerers: Sequence[Answerer], request: InputRequested, check: Callable[[Any], Any] = lambda answer: answer
) -> Any:
    """Ask the answerers one after the other, then the console if there is one.

    Return what ``check`` returns for the first answer.

    Raises:
        ValueError: ``check`` has refused the answer. If a person has typed the answer at the console, this error is not
            raised, and the person is asked again.
        Unanswered: there is no answer.
    """
    for answerer in answerers:
        answer = await _ask_one(answerer, request, check)
        if answer is not UNANSWERED:
            return answer
    if has_console():
        answer = await _ask_one(_AtConsole(ConsoleProvider().answer), request, check)
        if answer is not UNANSWERED:
            return answer
    raise Unanswered((request,))


async def _ask_one(answerer: Answerer, request: InputRequested, check: Callable[[Any], Any]) -> Any:
    shown = request
    while True:
        answer = await answerer.find_answer(shown)
        if answer is UNANSWERED:
            return UNANSWERED
        try:
            return check(answer)
        except ValueError as error:
            if not isinstance(answerer, _AtConsole) or is_input_replaced():
                raise  # do not ask again, because a function would give the same answer
            shown = replace(request, message=f"{error}\n{request.message}")


def answerer_of(given: Who, flow: object = None) -> Answerer:
    """Return an answerer for ``given``.

    ``given`` is a function, an Observable, an :class:`Inbox` or another answerer, or a provider with CrewAI's
    interface. The methods of a provider get ``flow``, the flow that asks.

    Raises:
        TypeError: ``given`` has another type, or is a function that cannot be called with one argument.
    """
    if isinstance(given, Answerer):
        return given
    if isinstance(given, Observable):
        return _Reading(cast(Observable[Any], given))
    if isinstance(given, ConsoleProvider):
        return _AtConsole(given.answer)
    if hasattr(given, "request_input") or hasattr(given, "request_feedback"):
        return _Calling(adapt_provider(given, flow))
    if callable(given):
        _require_parameter(given)
        return _Calling(given)
    raise TypeError(
        f"answer_with needs a function of the request, an Observable of its answer or a provider; got {given!r}"
    )


def _require_parameter(function: Callable[..., Any]) -> None:
    try:
        parameters = signature(function)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    try:
        parameters.bind(None)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"an answerer gets one argument, the request (its message is request.message); {name}{parameters} cannot "
            f"be called so: {error}"
        ) from None


class _Calling(Answerer):
    """Calls a function for the answer.

    An async function is called on the loop, any other function in a thread. If the run is cancelled, the run does not
    wait for the thread.
    """

    def __init__(self, function: Callable[[InputRequested], Any]) -> None:
        self._function = function

    async def find_answer(self, request: InputRequested) -> Any:
        try:
            if is_async(self._function):
                answer: Any = await self._function(request)
            else:
                answer = await in_thread(lambda: self._function(request), name="answer")
            while isawaitable(answer):  # also True for Observables
                answer = await (_read(answer) if isinstance(answer, Observable) else answer)
        except HumanFeedbackPending:
            raise Unanswered((request,)) from None
        if isinstance(answer, InputResponse):
            return answer.text
        return UNANSWERED if answer is None else answer


class _AtConsole(_Calling):
    """Asks a person at the console. If the answer does not fit, :func:`_ask_one` asks the person again."""


class _Reading(Answerer):
    """Takes the first item of an Observable as the answer."""

    def __init__(self, source: Observable[Any]) -> None:
        self._source = source

    async def find_answer(self, request: InputRequested) -> Any:
        return await _read(self._source)


def adapt_provider(provider: Any, flow: object = None, context: object = None) -> Callable[[InputRequested], Any]:
    """Return a function that asks a provider with CrewAI's interface.

    If the provider has no method for a question, the function returns None. The next answerer is then asked. If
    ``request_input`` returns None, the function returns ``InputResponse(None)``. The answer is then None, and no other
    answerer is asked.
    """

    def answer(request: InputRequested) -> Any:
        if request.kind == "input" and hasattr(provider, "request_input"):
            metadata = {"metadata": dict(request.arguments)} if request.arguments else {}
            given = provider.request_input(request.message, flow, **metadata)
            if isawaitable(given) and not isinstance(given, Observable):  # isawaitable() is also True for Observables
                return _as_input(given)
            return InputResponse(given) if given is None else given
        if request.kind == "feedback" and hasattr(provider, "request_feedback"):
            return provider.request_feedback(request if context is None else context, flow)
        return None

    return answer


async def _as_input(given: Awaitable[Any]) -> Any:
    answer = await given
    return InputResponse(answer) if answer is None else answer


async def _read(source: Observable[Any]) -> Any:
    """Return the first item of ``source``; UNANSWERED if ``source`` completes without an item."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any) -> None:
        if not done.done():
            done.set_result(value)

    def fail(error: BaseException) -> None:
        if not done.done():
            fail_future(done, error, "an Observable of an answer")

    observer = Observer(settle, fail, lambda: settle(UNANSWERED))
    subscription = on_loop(source, loop).subscribe(observer, scheduler=LoopScheduler(loop))
    try:
        return await done
    finally:
        dispose_safely(subscription)


def asking(scope: Scope, question: Question[Any], before: Callable[[Emitter], Awaitable[None]] | None = None) -> Any:
    """Return an Observable that asks a question, and emits the events of the question.

    If ``before`` is given, ``before(emitter)`` is awaited before the question is asked.
    """

    async def work(emitter: Emitter) -> None:
        if before is not None:
            await before(emitter)
        await ask(emitter, question)

    return from_coroutine(scope, work)


def end_with_pause(observer: ObserverBase[Event], origin: Origin, error: Unanswered, is_outermost: bool) -> None:
    """Emit FlowPaused for a flow, crew or agent that waits for answers, and end the stream of ``observer``.

    The outermost stream completes. Any other stream ends with ``error``, so that the surrounding flow or crew pauses
    too.
    """
    observer.on_next(FlowPaused(origin=origin, pending=error.pending))
    if is_outermost:
        observer.on_completed()
    else:
        observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type leaves out BaseException
