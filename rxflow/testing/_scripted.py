"""``ScriptedLLM``: a model whose answers are written in the test, turn by turn."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow._streaming import from_async
from rxflow.llm import LLM, Delta, Ending, ReasoningDelta, Request, Source, ToolCallDelta
from rxflow.testing._diagrams import Completed, Failed, parse_script
from rxflow.testing.leaks import collect
from rxflow.types import UsageMetrics

_DELTA_CHARACTERS = 8  # one delta of a tool call contains at most this many characters of JSON


@dataclass(frozen=True, slots=True)
class Calling:
    """A tool call of the model, created by :func:`tool_call`."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning text of the model, created by :func:`thinking`."""

    text: str


Said: TypeAlias = str | Calling | Thinking
"""One thing that the model emits: answer text (a string), a tool call or reasoning text."""

Value: TypeAlias = Said | BaseException | Sequence[Said | BaseException]
"""What the model emits for a name in a script, or as a whole turn.

It is one thing, several things at once, or an error that ends the turn.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer with its own usage, cost or finish reason, created by :func:`turn`.

    If ``usage`` or ``cost`` is None, the ScriptedLLM's own ``usage`` or ``cost`` applies. If ``finish_reason`` is None,
    an answer with a tool call ends with the reason "tool_calls", and any other answer with "stop".
    """

    answer: str | Value
    usage: UsageMetrics | None = None
    cost: float | None = None
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.answer if isinstance(self.answer, str) else repr(self.answer)


def tool_call(name: str, arguments: Mapping[str, Any] | str | None = None, *, id: str | None = None) -> Calling:  # noqa: A002
    """Return a call of the tool ``name``. A string as ``arguments`` is sent unchanged, even if it is not JSON."""
    return Calling(name, arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {})), id)


def thinking(text: str) -> Thinking:
    """Return reasoning text, which is not part of the answer."""
    return Thinking(text)


def turn(
    answer: str | Value,
    *,
    usage: UsageMetrics | None = None,
    cost: float | None = None,
    finish_reason: str | None = None,
) -> Turn:
    """Return a turn with its own usage, cost or finish reason."""
    return Turn(answer=answer, usage=usage, cost=cost, finish_reason=finish_reason)


class Speaker:
    """Converts one turn into deltas, and counts the deltas.

    If ``native`` is True, a tool call becomes tool-call deltas. Otherwise, the call becomes fenced text in the answer.
    """

    def __init__(self, turn: int, *, native: bool) -> None:
        self.deltas = 0
        self.reasoning = 0
        self.calls = 0
        self._turn = turn
        self._native = native

    def deltas_of(self, said: Said) -> Iterator[Delta]:
        """Yield the deltas of one thing that the model emits."""
        for delta in self._deltas_of(said):
            self.deltas += 1
            yield delta

    def _deltas_of(self, said: Said) -> Iterator[Delta]:
        if isinstance(said, str):
            yield said
        elif isinstance(said, Thinking):
            self.reasoning += 1
            yield ReasoningDelta(said.text)
        else:
            index, self.calls = self.calls, self.calls + 1
            yield from self._call(said, index) if self._native else _fence(said)

    def _call(self, called: Calling, index: int) -> Iterator[Delta]:
        yield ToolCallDelta(index, called.id or f"call_{self._turn}_{index}", called.name)
        for piece in _pieces(called.arguments):
            yield ToolCallDelta(index, arguments=piece)


def _fence(called: Calling) -> Iterator[Delta]:
    yield "```tool_call\n"
    yield from _pieces(f'{{"name": {json.dumps(called.name)}, "arguments": {called.arguments}}}')
    yield "\n```\n"


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _DELTA_CHARACTERS] for start in range(0, len(text), _DELTA_CHARACTERS))


@dataclass(frozen=True, slots=True)
class Moment:
    """What the model emits at one time. ``at`` is this time, in seconds after the subscription."""

    at: float
    said: tuple[Said | BaseException, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One parsed turn.

    ``ends_at`` is the time of the completion, in seconds after the subscription; None for a script without ``|``.
    ``shown`` is the turn as text, for error messages.
    """

    shown: str
    moments: tuple[Moment, ...]
    ends_at: float | None
    usage: UsageMetrics | None
    cost: float | None
    finish_reason: str | None


def line_of(
    given: str | Turn | Value,
    values: Mapping[str, Value],
    error: BaseException | None,
    usage: UsageMetrics | None,
    cost: float | None,
) -> Line:
    """Parse one turn. ``usage`` and ``cost`` are the defaults for a turn that does not set them.

    Raises:
        ValueError: a script cannot be parsed.
        TypeError: a value cannot be emitted by a model, or the value for ``#`` is not an exception.
    """
    turn = given if isinstance(given, Turn) else Turn(answer=given)
    answer = turn.answer
    if isinstance(answer, str):
        moments, ends_at = _read(answer, values, error)
    else:
        moments, ends_at = (Moment(0.0, _things(answer)),), 0.0
    return Line(
        shown=str(turn) if isinstance(answer, str) else repr(answer),
        moments=moments,
        ends_at=ends_at,
        usage=usage if turn.usage is None else turn.usage,
        cost=cost if turn.cost is None else turn.cost,
        finish_reason=turn.finish_reason,
    )


def _read(
    script: str, values: Mapping[str, Value], error: BaseException | None
) -> tuple[tuple[Moment, ...], float | None]:
    breaks_off = values.get("#", error)
    if breaks_off is not None and not isinstance(breaks_off, BaseException):
        raise TypeError(f"'#' in a script stands for an exception; values has {breaks_off!r} for it")
    moments: list[Moment] = []
    for each in parse_script(script, values, breaks_off):
        at = each.time / 1000
        if isinstance(each.signal, Completed):
            return tuple(moments), at
        value = each.signal.error if isinstance(each.signal, Failed) else each.signal.value
        moments.append(Moment(at, _things(value)))
    return tuple(moments), None


def _things(value: object) -> tuple[Said | BaseException, ...]:
    several = cast(Iterable[object], value) if isinstance(value, list | tuple) else (value,)
    said: list[Said | BaseException] = []
    for each in several:
        if not isinstance(each, str | Calling | Thinking | BaseException):
            raise TypeError(
                f"a model emits text, tool_call(…), thinking(…), an exception, or a list of these; got {each!r}"
            )
        said.append(each)
    return tuple(said)


class UnscriptedRequest(AssertionError):
    """The model got more requests than its script has turns."""


@dataclass(slots=True, eq=False)
class Call:
    """One request and its outcome. Times are in seconds of the loop's clock.

    ``ended_at`` is the time at which the answer ended; None if it has not ended. ``error`` is the error that ended the
    answer, if any. ``cancelled_at`` is the time at which the call was cancelled; None if it was not cancelled.
    """

    request: Request
    subscribed_at: float
    ended_at: float | None = None
    cancelled_at: float | None = None
    error: BaseException | None = None


class ScriptedLLM(LLM):
    """An :class:`~rxflow.LLM` that answers the first request with the first turn, the second with the second, … ::

        llm = ScriptedLLM("he-ll-o|")                      # "he" at 0 ms, "ll" at 3, "o" at 6, the end at 7
        llm = ScriptedLLM(tool_call("look", {"where": "north"}), "so-be-it|")
        llm = ScriptedLLM("a--b--#", values={"a": "Good ", "b": thinking("Hm.")}, error=TimeoutError("no more"))

    A string is a script. Each character except a space takes one millisecond, in the real or virtual time of the loop.
    ``-`` lets time pass, ``|`` ends the answer, and ``#`` raises ``error``. Consecutive other characters are one
    name. The model emits what ``values`` has for the name, or otherwise the name itself as text. A script without ``|``
    or ``#`` stays open until the call is cancelled. :mod:`rxflow.testing._diagrams` describes groups and longer
    durations.

    A turn can also be a value, which is emitted at once: ``tool_call(…)``, ``thinking(…)``, an exception, or a list of
    several things. A string in a list is text, not a script.

    With the pytest plugin, a test fails if turns are left over. A test also fails if the model gets more requests than
    it has turns, even if the tested code catches the :class:`UnscriptedRequest`. A test that causes this error on
    purpose must clear the list ``unscripted``. A model without turns expects no request.

    Args:
        turns: the turns, in order. Each is a script, a value, or a :func:`turn` with its own usage.
        values: what the model emits for the names in scripts.
        error: the error that ``#`` raises; by default a :class:`~rxflow.testing._diagrams.MarbleError`.
        usage: the usage that each turn reports; by default one completion token for each delta, and one prompt token
            for each word of the prompt.
        cost: the cost that each turn reports, in US dollars.
        function_calling: False for a model without native tools. rxflow then describes the tools in text, and the model
            calls them in text.
        repeat: whether to begin again after the last turn. If so, turns are never left over.
        max_retries: the maximum number of repetitions of a call that fails before its first delta. Each repetition
            takes a turn.
        parameters: other parameters of an :class:`~rxflow.LLM`.
    """

    def __init__(
        self,
        *turns: str | Turn | Value,
        values: Mapping[str, Value] | None = None,
        error: BaseException | None = None,
        usage: UsageMetrics | None = None,
        cost: float | None = 0.0,
        function_calling: bool = True,
        repeat: bool = False,
        model: str = "scripted",
        max_retries: int = 0,
        **parameters: Any,
    ) -> None:
        if repeat and not turns:
            raise TypeError('repeat=True needs a turn to repeat, for example ScriptedLLM("he-llo|", repeat=True)')
        self._lines = [line_of(each, values or {}, error, usage, cost) for each in turns]
        self._repeat = repeat
        self.calls: list[Call] = []
        self.unscripted: list[UnscriptedRequest] = []
        super().__init__(
            model,
            source=_Played(self._next_line, self.calls, native=function_calling),
            function_calling=function_calling,
            max_retries=max_retries,
            **parameters,
        )
        collect(self, after="test")

    @property
    def requests(self) -> list[Request]:
        """The requests that got a turn, in order."""
        return [call.request for call in self.calls]

    @property
    def prompts(self) -> list[str]:
        """The last user text of each request that got a turn."""
        return [call.request.last_user_text for call in self.calls]

    def assert_used_up(self) -> None:
        """Raise AssertionError if turns are left over, or if there were more requests than turns."""
        complaint = self.complaint()
        if complaint is not None:
            raise AssertionError(complaint)

    def complaint(self) -> str | None:
        """Describe the first request that had no turn, or else the turns that are left over.

        Return None if nothing is wrong.
        """
        if self.unscripted:
            return str(self.unscripted[0])
        unused = [] if self._repeat else self._lines[len(self.calls) :]
        if not unused:
            return None
        first = len(self._lines) - len(unused) + 1
        shown = "\n".join(f"    turn {number}: {line.shown}" for number, line in enumerate(unused, first))
        return f"{self!r} was asked {len(self.calls)}×; these turns of its script are left over:\n{shown}"

    def __repr__(self) -> str:
        return f"ScriptedLLM({self.model!r})"

    def _next_line(self, number: int, request: Request) -> Line:
        if self._repeat:
            return self._lines[(number - 1) % len(self._lines)]
        if number <= len(self._lines):
            return self._lines[number - 1]
        error = UnscriptedRequest(
            f"request {number} to {self!r} has no turn: the script has {len(self._lines)} turn(s). "
            f"It was asked: {request.last_user_text!r}"
        )
        self.unscripted.append(error)  # recorded, because the tested code may catch the error
        raise error


NextLine: TypeAlias = Callable[[int, Request], Line]


class _Played(Source):
    """The source of a ScriptedLLM. Each subscription takes the next turn."""

    def __init__(self, next_line: NextLine, calls: list[Call], *, native: bool) -> None:
        self._next_line = next_line
        self._calls = calls
        self._native = native
        self._numbers = itertools.count(1)

    def stream(self, request: Request) -> Observable[Delta]:
        def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
            number = next(self._numbers)
            line = self._next_line(number, request)
            loop = asyncio.get_running_loop()
            call = Call(request, loop.time())
            self._calls.append(call)
            speaker = Speaker(number, native=self._native)

            async def answer(emit: Callable[[Delta], None]) -> None:
                try:
                    await _play(line, call.subscribed_at, speaker, emit)
                    emit(_ending(line, speaker, request))
                except asyncio.CancelledError:
                    _note_cancellation(call, loop)  # cancelled without a disposal, for example because the loop ends
                    raise
                except BaseException as error:
                    _note_end(call, loop, error)
                    raise
                _note_end(call, loop)

            answering = from_async(answer).subscribe(observer, scheduler=scheduler)

            def dispose() -> None:
                _note_cancellation(call, loop)
                answering.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    async def calls_functions(self, model: str) -> bool:
        return self._native

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None if isinstance(error, UnscriptedRequest) else 0.0


async def _play(line: Line, begin: float, speaker: Speaker, emit: Callable[[Delta], None]) -> None:
    """Emit the deltas of a turn at their times. If the turn ends with an error, raise it."""
    for moment in line.moments:
        await _until(begin + moment.at)
        for said in moment.said:
            if isinstance(said, BaseException):
                raise said
            for delta in speaker.deltas_of(said):
                emit(delta)
    if line.ends_at is None:
        await asyncio.get_running_loop().create_future()  # the turn has no end, so wait until the call is cancelled
    else:
        await _until(begin + line.ends_at)


async def _until(time: float) -> None:
    """Wait until the loop's clock shows ``time``. ``asyncio.sleep()`` would add a rounding error."""
    loop = asyncio.get_running_loop()
    if time <= loop.time():
        return
    come = loop.create_future()
    timer = loop.call_at(time, _come, come)
    try:
        await come
    finally:
        timer.cancel()


def _come(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _note_end(call: Call, loop: asyncio.AbstractEventLoop, error: BaseException | None = None) -> None:
    if call.cancelled_at is None:  # otherwise a subscriber disposed of the call when it got the last item
        call.ended_at, call.error = loop.time(), error


def _note_cancellation(call: Call, loop: asyncio.AbstractEventLoop) -> None:
    if call.ended_at is None and call.cancelled_at is None:
        call.cancelled_at = loop.time()


def _ending(line: Line, speaker: Speaker, request: Request) -> Ending:
    prompt = _words(request.messages)
    counted = UsageMetrics(
        prompt_tokens=prompt,
        completion_tokens=speaker.deltas,
        reasoning_tokens=speaker.reasoning,
        total_tokens=prompt + speaker.deltas,
        successful_requests=1,
    )
    reason = line.finish_reason or ("tool_calls" if speaker.calls else "stop")
    return Ending(reason, line.usage or counted, line.cost)


def _words(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(str(message.get("content") or "").split()) for message in messages)
