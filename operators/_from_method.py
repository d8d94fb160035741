"""``from_method``: what comes out of some methods of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.labels import METHOD
from rxflow.operators._core.lift import only, through

T = TypeVar("T")


def from_method(*methods: str) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and the events of some flow methods, with all the crews and calls in them; all else is dropped,
    end and error of the source are not.

    A method is given by its name, as ``flow_method`` shows it. The methods of a flow that runs inside are that flow's.
    A name that nothing has is no mistake, as a router may go another way: the result is then empty. ::

        source                 --{flow}--a1--b1--a2--b2--|
        from_method("b")       --------------b1------b2--|

    Raises:
        ValueError: no method is given, or an empty name.
        TypeError: something else is given.

    Example::

        flow.observe().pipe(ops.from_method("write"), ops.text()).subscribe(show)
    """
    return through(only(METHOD.wanted(methods, "from_method")))
