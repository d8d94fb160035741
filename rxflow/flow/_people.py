"""Lets flows ask people: ``self.ask(…)`` asks a question, ``@human_feedback`` asks for feedback on a result."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError, create_model

from rxflow._options import Seconds, to_seconds
from rxflow._streaming import (
    WORDS_SCHEMA,
    Answerer,
    ConsoleProvider,
    Emitter,
    EventStream,
    Question,
    Who,
    adapt_provider,
    answerer_of,
    ask,
    asking,
    current_emitter,
    require_words,
    run_async,
    run_blocking,
)
from rxflow._text import read_json
from rxflow.flow._graph import add_note
from rxflow.types import Event, HumanFeedbackResult, InputReceived

if TYPE_CHECKING:
    from rxflow.flow._flow_run import Record
    from rxflow.flow._state import State
    from rxflow.flow.flow import Flow
    from rxflow.flow.persistence import StateKeeper
    from rxflow.llm import LLM, Model


class AsksPeople:
    """Base class of :class:`Flow`, with the methods that ask people."""

    input_provider: Who | None = None
    """An answerer for the questions of this flow. It is asked before the answerers outside the flow.

    It is a function, an Observable, an Inbox, or an object with ``request_input``.
    """

    _record: Record
    _keeper: StateKeeper | None = None  # None until the first run

    @abstractmethod
    def _read_state(self) -> State:
        """Return the current state of the flow."""

    def ask(
        self, message: str, timeout: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> str | None:
        """Ask a person, and wait for the answer. This blocks the thread; async code uses :meth:`ask_async` instead.

        If the flow has exactly one store, the state is saved first. :func:`rxflow.operators.answer_with` describes who
        answers. If nobody answers, the run pauses, and the code after this call is not executed.

        Args:
            message: the question.
            timeout: in seconds, or a timedelta; None waits forever.
            metadata: more data about the question, for the answerer.

        Returns:
            The answer. It is "" if the person entered nothing. It is None if the time ran out, or if a provider reports
            that there is no input.

        Raises:
            RuntimeError: the calling code does not belong to a run, or this flow has never run.
            TypeError: ``timeout`` is not a time.
            PersistenceError: the state could not be saved.
        """
        return cast("str | None", run_blocking(self._ask(message, timeout, metadata), InputReceived).value)

    async def ask_async(
        self, message: str, timeout: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> str | None:
        """Do the same as :meth:`ask`, but in an async method or tool. The event loop is not blocked."""
        return cast("str | None", (await run_async(self._ask(message, timeout, metadata), InputReceived)).value)

    @property
    def human_feedback_history(self) -> list[HumanFeedbackResult]:
        """The feedback that people gave for ``@human_feedback`` in the current or last run, oldest first."""
        return list(self._record.feedback)

    @property
    def last_human_feedback(self) -> HumanFeedbackResult | None:
        """The last item of :attr:`human_feedback_history`; None if there is none."""
        return self._record.feedback[-1] if self._record.feedback else None

    def _ask(self, message: str, timeout: Seconds | None, metadata: Mapping[str, Any] | None) -> EventStream[Event]:
        if current_emitter() is None:
            raise RuntimeError("ask() must be called in a method of a running flow; no run is active here")
        keeper = self._keeper
        if keeper is None:
            name = type(self).__name__
            raise RuntimeError(f"ask() must be called in a method of a running flow; this {name} has not run")
        question: Question[str | None] = Question(
            kind="input",
            message=message,
            answer=cast(Any, str | None),
            schema={"type": "string"},
            arguments=metadata or {},
            timeout=None if timeout is None else to_seconds("timeout", timeout),
        )

        async def save(emitter: Emitter) -> None:
            await keeper.save_before_a_wait(emitter, self._read_state)

        return EventStream(lambda scope: asking(scope, question, before=save))

    def _provider(self) -> Answerer | None:
        return None if self.input_provider is None else answerer_of(self.input_provider, self)


F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_MODEL = "gpt-5.4-mini"
_NO_MODEL = (
    "@human_feedback asked {model} which label the answer means: name a model that you have a key for "
    '(@human_feedback(…, llm="provider/model")), or answer with one of the labels'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The arguments of a ``@human_feedback`` decorator."""

    message: str
    emit: tuple[str, ...] | None = None
    llm: Model | None = None
    default_outcome: str | None = None
    provider: Who | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackContext:
    """Describes a result that waits for feedback. A provider in CrewAI's form receives this object."""

    flow_id: str
    flow_class: str
    method_name: str
    method_output: Any
    message: str
    emit: list[str] | None
    default_outcome: str | None
    metadata: dict[str, Any]


def human_feedback(
    message: str,
    emit: Sequence[str] | None = None,
    llm: Model | None = DEFAULT_MODEL,
    default_outcome: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    provider: Who | None = None,
    learn: bool = False,
) -> Callable[[F], F]:
    """Mark a method. A person gives feedback on the method's result before other methods receive it.

    Without ``emit``, the result of a ``@start`` or ``@listen`` method is a :class:`HumanFeedbackResult`, which contains
    the feedback and the value that the method returned. The listeners of the method get this result.

    With ``emit``, the method is a router. The person's text selects one of the labels in ``emit``, and the listeners of
    this label get the HumanFeedbackResult. The listeners of the method itself get the value that the method returned.
    If the method is the last one of the flow, this value is also the flow's result. The label is selected as follows:

    - A text that equals a label selects this label. Upper and lower case do not matter.
    - An empty text selects ``default_outcome``. If there is no default, an empty text is refused, like any answer that
      does not fit its question. A console asks again, and an Inbox keeps the question open.
    - For any other text, ``llm`` selects the label. If the answer of ``llm`` does not name exactly one label,
      ``default_outcome`` is used. If there is no default, the method fails. The model "rxflow/demo" names no label.

    ``provider`` is asked before all other answerers. It is a function, an Observable, an Inbox, or an object with
    ``request_feedback``.

    Raises:
        TypeError: ``message`` is not a text, for example because the parentheses are missing. Or a label in ``emit`` is
            not a string.
        ValueError: ``emit`` is given without ``llm``, is empty, or contains an empty label. Or ``default_outcome`` is
            not one of the labels in ``emit``. Or ``metadata`` has the key "output". Or ``learn`` is True: rxflow has no
            memory.
    """
    _require_message(message)
    if learn:
        raise ValueError("learn=True is not supported: rxflow has no memory; keep what people say in the flow's state")
    labels = None if emit is None else (emit,) if isinstance(emit, str) else tuple(emit)
    if labels is not None and not all(isinstance(label, str) for label in cast("tuple[object, ...]", labels)):
        raise TypeError(f"emit must name labels, which are strings; got {emit!r}")
    if labels is not None and not (labels and all(labels)):
        raise ValueError(f"emit must name at least one label, and no empty one; got {emit!r}")
    if labels is not None and not llm:
        raise ValueError("llm is required when emit is specified: it maps a person's text to a label")
    if default_outcome is not None and labels is None:
        raise ValueError("default_outcome requires emit to be specified")
    if default_outcome is not None and default_outcome not in (labels or ()):
        raise ValueError(f"default_outcome {default_outcome!r} must be one of the emit options: {list(labels or ())}")
    if "output" in (metadata or {}):
        raise ValueError("metadata cannot have the key 'output', under which the result is shown; give it another name")
    feedback = Feedback(
        message=message,
        emit=labels,
        llm=llm,
        default_outcome=default_outcome,
        provider=provider,
        metadata=metadata or {},
    )
    routes: dict[str, Any] = {} if labels is None else {"is_router": True, "emit": labels}
    return lambda method: add_note(method, "human_feedback", None, feedback=feedback, **routes)


def _require_message(message: object) -> None:
    if callable(message):  # without this error, nobody would be asked, and the method would never run
        name = getattr(message, "__name__", message)
        raise TypeError(
            f'@human_feedback got the method {name!r} as its message; write @human_feedback("Is this good?")'
        )
    if not isinstance(message, str):
        raise TypeError(f"@human_feedback: message is not a string: {message!r}")


async def ask_for_feedback(
    emitter: Emitter, flow: Flow[Any], method: str, feedback: Feedback, output: Any
) -> HumanFeedbackResult:
    """Show the result of ``method`` to a person, and return their feedback.

    Raises:
        ValueError: there is no default, and the answer is empty, or the model's answer does not name exactly one of the
            labels.
        Unanswered: nobody answered.
    """
    labels = feedback.emit or ()
    must_select = bool(labels) and feedback.default_outcome is None

    def check(words: str) -> None:
        if must_select:
            require_words(feedback.message, labels, words)

    question = Question(
        kind="feedback",
        message=feedback.message,
        answer=str,
        schema=WORDS_SCHEMA if must_select else None,
        check=check,
        options=labels,
        arguments={"output": output, **feedback.metadata},
    )
    answerers = _find_provider(flow, method, feedback, output)
    words = (await ask(emitter, question, first=answerers) or "").strip()
    return HumanFeedbackResult(
        output=output,
        feedback=words,
        outcome=None if feedback.emit is None else await _choose(emitter, feedback, feedback.emit, words),
        method_name=method,
        metadata=dict(feedback.metadata),
    )


def _find_provider(flow: Flow[Any], method: str, feedback: Feedback, output: Any) -> Sequence[Answerer]:
    """Return a list with an answerer for the ``provider`` of ``@human_feedback``; empty if there is no provider."""
    provider = feedback.provider
    if provider is None:
        return ()
    if hasattr(provider, "request_feedback") and not _is_console(provider):
        context = FeedbackContext(
            flow_id=flow.flow_id,
            flow_class=f"{type(flow).__module__}.{type(flow).__name__}",
            method_name=method,
            method_output=output,
            message=feedback.message,
            emit=None if feedback.emit is None else list(feedback.emit),
            default_outcome=feedback.default_outcome,
            metadata=dict(feedback.metadata),
        )
        provider = adapt_provider(provider, flow, context)
    return [answerer_of(provider)]


def _is_console(provider: Who) -> bool:
    """Return whether ``provider`` asks as the console does, which asks again if the answer does not fit."""
    return getattr(type(provider), "request_feedback", None) is ConsoleProvider.request_feedback


async def _choose(emitter: Emitter, feedback: Feedback, labels: Sequence[str], words: str) -> str:
    """Return the label that the person's text means."""
    if not words and feedback.default_outcome is not None:
        return feedback.default_outcome
    for label in labels:
        if words.casefold() == label.casefold():
            return label
    from rxflow.llm.source import LABEL_MODEL_NAME

    choice: Any = Literal[tuple(labels)]
    outcome = create_model(LABEL_MODEL_NAME, outcome=(choice, Field(description="what the feedback means")))
    said = await _ask_model(emitter, _model_of(feedback.llm), outcome, labels, words)
    try:
        return str(read_json(outcome, said).outcome)  # type: ignore[attr-defined]
    except ValidationError:
        named = _find_labels(labels, said)
    if len(named) == 1:
        return named.pop()
    if feedback.default_outcome is not None:
        return feedback.default_outcome
    raise ValueError(f"the feedback {words!r} means none of {list(labels)} to the model, which answered {said[:200]!r}")


def _find_labels(labels: Sequence[str], said: str) -> set[str]:
    """Return the labels that ``said`` contains as whole words. A label inside a longer one does not count.

    In a script without upper and lower case, such as Chinese, words need not be separated.
    """
    text = said.casefold()
    known = {label.casefold(): label for label in labels}
    longest_first = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    found = [each for each in re.finditer(longest_first, text) if not _continues(text, each.start(), each.end())]
    return {known[each.group()] for each in found}


def _continues(text: str, start: int, end: int) -> bool:
    """Return whether the word at ``start`` or the word before ``end`` continues outside of this range."""
    outside = (text[start - 1 : start], text[end : end + 1])
    return any(each == "-" or each.isdigit() or each.lower() != each.upper() for each in outside)


async def _ask_model(emitter: Emitter, llm: LLM, outcome: type[BaseModel], labels: Sequence[str], words: str) -> str:
    from rxflow.llm._litellm.advice import add_advice
    from rxflow.llm.source import response_format_for

    request = llm.request(
        f"A person was asked for feedback and wrote:\n\n{words}\n\nWhich of these does it mean: {', '.join(labels)}? "
        'Reply with JSON: {"outcome": "one of these"}',
        hints={"response_format": response_format_for(outcome)},
    )
    try:
        return await llm.ask_aside(emitter, request)
    except Exception as error:
        if type(error).__name__ in ("AuthenticationError", "BadRequestError", "NotFoundError"):
            add_advice(error, _NO_MODEL.format(model=llm.model))
        raise


def _model_of(llm: Model | None) -> LLM:
    from rxflow.llm import LLM, BaseLLM  # imported here, because most flows never need it

    if isinstance(llm, LLM):
        return llm
    return llm.llm if isinstance(llm, BaseLLM) else LLM(llm or DEFAULT_MODEL)
