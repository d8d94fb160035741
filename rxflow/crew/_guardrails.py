"""Guardrails: functions and criteria that judge an answer. :mod:`rxflow.crew._task_run` applies them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel

from rxflow.types import TaskOutput


class Rejected(Exception):
    """The answer was not accepted. The message is the reason, worded for the model.

    If no attempt is left, the task fails, and the message of its error contains ``outcome``.
    """

    def __init__(self, reason: str, outcome: str = "failed its guardrail") -> None:
        super().__init__(reason)
        self.outcome = outcome


class GuardrailError(ValueError):
    """A task's answer was rejected more often than ``guardrail_max_retries`` allows."""


class Verdict(BaseModel):
    """A model's verdict on an answer."""

    accepted: bool
    reason: str = ""


def _check_guardrail(guardrail: Callable[[TaskOutput], Any] | str) -> Callable[[TaskOutput], Any] | str:
    """Check ``guardrail``, and return it unchanged.

    Raises:
        ValueError: ``guardrail`` is a function that cannot be called with one argument, or whose annotation excludes
            the result ``(accepted, value or reason)``.
    """
    if isinstance(guardrail, str):
        return guardrail
    name = name_of(guardrail)
    try:
        signature = inspect.signature(guardrail)
    except ValueError:  # some builtins have no signature
        return guardrail
    try:
        signature.bind(object())
    except TypeError as error:
        raise ValueError(
            f"the guardrail {name} must take one argument, the TaskOutput; it is {name}{signature}: {error}"
        ) from error
    returned = _return_annotation(guardrail)
    if not _may_be_verdict(returned):
        shown = getattr(returned, "__name__", returned) if isinstance(returned, type) else returned
        raise ValueError(
            f"the guardrail {name} must return (accepted: bool, value or reason), tuple[bool, Any]; "
            f"its annotation says {shown}"
        )
    return guardrail


Guardrail = Annotated[Callable[[TaskOutput], Any] | str, AfterValidator(_check_guardrail)]
"""A function that judges an answer, or the text of a criterion, which the agent's model applies to the answer.

The function is ``fn(TaskOutput) -> (accepted, value or reason)``, sync or async.
"""


def read_verdict(guardrail: Guardrail, verdict: object) -> tuple[bool, Any]:
    """Return ``verdict``, the return value of a guardrail, as a pair ``(accepted, value or reason)``.

    Raises:
        TypeError: ``verdict`` is not a pair, or does not begin with a bool.
    """
    if isinstance(verdict, tuple):
        pair = cast(tuple[Any, ...], verdict)
        if len(pair) == 2 and isinstance(pair[0], bool):
            return pair[0], pair[1]
    raise TypeError(
        f"the guardrail {name_of(guardrail)} must return (accepted: bool, value or reason); it returned {verdict!r}"
    )


def name_of(guardrail: Guardrail) -> str:
    """Return the name of a guardrail for error messages."""
    return getattr(guardrail, "__name__", repr(guardrail))


def _return_annotation(function: Any) -> Any:
    """Return the annotated return type; Any if there is none, or if it cannot be resolved."""
    while isinstance(function, partial):
        function = cast(Any, function).func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return get_type_hints(function).get("return", Any)
    except Exception:  # noqa: BLE001 - evaluating a text that only type checkers read may raise anything
        return Any


def _resolve_alias(annotation: Any) -> Any:
    """Return the type that an alias (``type Name = …``) stands for; Any if it cannot be resolved."""
    alias = get_origin(annotation) or annotation
    try:
        return _resolve_alias(alias.__value__) if hasattr(alias, "__value__") else annotation
    except Exception:  # noqa: BLE001 - Python evaluates the alias only now, and this may raise anything
        return Any


def _may_be_verdict(annotation: Any) -> bool:
    annotation = _resolve_alias(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation is typing.Tuple or isinstance(annotation, TypeVar):  # noqa: UP006
        return True
    if origin in (Union, types.UnionType):
        return any(map(_may_be_verdict, args))
    if origin in (Awaitable, Coroutine):
        return not args or _may_be_verdict(args[-1])
    if origin is tuple:
        return len(args) == 2 and _may_be_bool(_resolve_alias(args[0]))
    return isinstance(annotation, type) and (annotation is object or issubclass(annotation, tuple))


def _may_be_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or get_origin(annotation) is Literal or isinstance(annotation, TypeVar)
