"""``only_method``: the output and the events of some methods of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import METHOD, keep_only

T = TypeVar("T")


def only_method(*methods: str) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some methods of a flow (like ``filter``), with all crews and calls inside them.

    The end and the error of the source always pass. A method is given by its name as ``flow_method`` shows it. The
    methods of a flow that runs inside another one belong to the inner flow. A name that never occurs is not an error,
    since a router may choose another way: the result is empty then. ::

        source                 --{flow}--a1--b1--a2--b2--|
        only_method("b")       --------------b1------b2--|

    Raises:
        ValueError: no method is given, or an empty name.
        TypeError: something else is given.

    Example::

        flow.observe().pipe(ops.only_method("write"), ops.text()).subscribe(show)
    """
    return keep_only(METHOD, methods, "only_method")
