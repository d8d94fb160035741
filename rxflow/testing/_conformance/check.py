"""``check_operator`` and ``check_source``: conformance suites to run on operators and sources of one's own."""

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
    """Try an operator by the rules of reactive streams; :class:`ConformanceError` for the first that it breaks. ::

        def test_my_operator_conforms() -> None:
            check_operator(my_operator(3), items=["a", "b", "c", "d"])

    Each rule is tried on a source that the suite plays, on a loop of its own in virtual time.

    Args:
        operator: what ``pipe`` takes.
        items: what its sources emit; else a few words.
        key: what to compare of two items that must be equal; the items themselves by default.
        whole: what to compare of all items together, such as ``"".join`` if they may be cut in other places.
        recovers: it swallows or replaces errors of its source.
        holds_back: an error overtakes what it still holds, as in ``reduce``, ``last`` and ``buffer``.
        resubscribes: one subscription may subscribe the source more than once, as in ``retry`` and ``repeat``.
        own_scheduler: it chooses the scheduler of its source, as ``subscribe_on`` does.
        settling: seconds of virtual time in which its timers fire.
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
        raise ValueError("items is empty: an operator can only be checked with a source that emits")
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
    """Try a source by the rules of reactive streams; :class:`ConformanceError` for the first that it breaks. ::

        def test_my_source_conforms() -> None:
            check_source(lambda: my_source("a", "b"))

    Each rule is tried on Observables that ``factory`` makes, subscribing to each of them at most twice, on a loop of
    its own, in virtual time.

    Args:
        factory: makes the source; what it needs is made anew with it.
        key: what to compare of two items that must be equal; by default the items themselves, and of a StreamChunk
            its content and type.
        ends: whether it ends by itself; if not, the rules are tried on its beginning.
        settling: seconds to wait for what it might still do after its end.
        real_time: for sources that speak to something outside, over a socket for instance; give a short ``settling``.
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
    """Return what is compared of an item: not the labels of a chunk, which differ from run to run."""
    return (item.chunk_type, item.content) if isinstance(item, StreamChunk) else item


def _itself(item: Any) -> object:
    return item


def _name_of(operator: Callable[..., object]) -> str:
    """Return a name for messages. Most operators are inner functions, and RxPY's all have one name."""
    name = getattr(operator, "__qualname__", None)
    if name is None:
        return repr(operator)
    if operator.__module__.startswith("reactivex."):
        return "of RxPY"
    return str(name).partition(".<locals>")[0]
