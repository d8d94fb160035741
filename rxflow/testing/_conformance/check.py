"""``check_operator`` and ``check_source``: conformance suites for your own operators and sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reactivex import Observable

from rxflow.testing._conformance.harness import try_all
from rxflow.testing._conformance.operator_disposal import DISPOSAL
from rxflow.testing._conformance.operator_rules import FIRST, GRAMMAR, SHARING, Declared, OperatorCase
from rxflow.testing._conformance.source_rules import SOURCE, SourceCase
from rxflow.types import StreamChunk

T = TypeVar("T")
U = TypeVar("U")

SOURCE_RULES = tuple(SOURCE)
OPERATOR_RULES = (*FIRST, *SHARING, *GRAMMAR, *DISPOSAL)
TEXTS = ("The ", "quick ", "brown ", "fox. ", "It ", "jumps.")


def check_operator(
    operator: Callable[[Observable[T]], Observable[U]],
    *,
    items: Sequence[T] | None = None,
    key: Callable[[U], object] | None = None,
    whole: Callable[[list[Any]], object] | None = None,
    recovers: bool = False,
    holds_back: bool = False,
    resubscribes: bool = False,
    own_scheduler: bool = False,
    settling: float = 60.0,
) -> None:
    """Check that an operator keeps the rules of reactive streams. ::

        def test_my_operator_conforms() -> None:
            check_operator(my_operator(3), items=["a", "b", "c", "d"])

    Each rule is checked with a source that the suite controls, on a separate loop in virtual time.

    Args:
        operator: the operator to check, as it would be passed to ``pipe``.
        items: the items that the operator's sources emit; by default a few words.
        key: a function that returns the value by which an emitted item is compared; by default the item itself.
        whole: a function that gets the results of ``key`` for all items of one subscription, as a list. Two
            subscriptions count as equal if ``whole`` returns equal values for them. Use ``"".join`` if the operator may
            split the same text at different places. By default, the lists are compared.
        recovers: whether the operator swallows or replaces errors of its source.
        holds_back: whether an error overtakes items that the operator still holds, as in ``reduce``, ``last`` and
            ``buffer``.
        resubscribes: whether one subscription may subscribe the source more than once, as in ``retry`` and ``repeat``.
        own_scheduler: whether the operator chooses the scheduler of its source, as ``subscribe_on`` does.
        settling: how many seconds of virtual time the suite waits for the operator's timers.

    Raises:
        ConformanceError: the operator breaks a rule. Only the first broken rule is reported.
        ValueError: ``items`` is empty.
        RuntimeError: an event loop is running in this thread.
    """
    declared = Declared(
        items=TEXTS if items is None else items,
        key=_itself if key is None else key,
        whole=_itself if whole is None else whole,
        recovers=recovers,
        holds_back=holds_back,
        resubscribes=resubscribes,
        own_scheduler=own_scheduler,
    )
    if not declared.items:
        raise ValueError("items is empty; an operator can only be checked with a source that emits items")
    subject = f"the operator {_name_of(operator)}"
    try_all(OPERATOR_RULES, lambda: OperatorCase(subject, operator, declared, settling=settling))


def check_source(
    factory: Callable[[], Observable[T]],
    *,
    key: Callable[[T], object] | None = None,
    ends: bool = True,
    settling: float = 60.0,
    real_time: bool = False,
) -> None:
    """Check that a source keeps the rules of reactive streams. ::

        def test_my_source_conforms() -> None:
            check_source(lambda: my_source("a", "b"))

    Each rule is checked with Observables from ``factory``, on a separate loop. The loop uses virtual time, unless
    ``real_time`` is True. Each Observable is subscribed at most twice.

    Args:
        factory: a function that creates the source and everything that the source needs.
        key: a function that returns the value by which an item is compared. By default, chunks are compared by type and
            content, and other items are compared as they are.
        ends: whether the source ends by itself. If not, the rules are checked with its first items.
        settling: how many seconds the suite waits for signals that should not come, for example after the end.
        real_time: whether the loop uses real time, for example because the source uses sockets. With real time, choose
            a short ``settling``.

    Raises:
        ConformanceError: the source breaks a rule. Only the first broken rule is reported.
        RuntimeError: an event loop is running in this thread.
    """
    subject = f"the source {_name_of(factory)}"
    try_all(
        SOURCE_RULES,
        lambda: SourceCase(
            subject,
            factory,
            key=_content if key is None else key,
            ends=ends,
            settling=settling,
            real_time=real_time,
        ),
        real_time=real_time,
    )


def _content(item: Any) -> object:
    """Return the type and content of a chunk, because its labels differ between runs. Return other items unchanged."""
    return (item.chunk_type, item.content) if isinstance(item, StreamChunk) else item


def _itself(item: Any) -> object:
    return item


def _name_of(operator: Callable[..., object]) -> str:
    """Return the name that messages use for an operator or a factory.

    An inner function gets the name of the outer function. All operators of RxPY have the same name, so the result for
    each of them is "of RxPY", and messages say "the operator of RxPY".
    """
    name = getattr(operator, "__qualname__", None)
    if name is None:
        return repr(operator)
    if str(operator.__module__).startswith("reactivex."):  # methods of builtin objects have the module None
        return "of RxPY"
    return str(name).partition(".<locals>")[0]
