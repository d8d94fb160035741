"""What users' code emits into the run that it belongs to: values of its own, and how far it is."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from rxflow._loops import call_soon, running_loop
from rxflow._streaming.launch import current_emitter
from rxflow.types import Custom, ToolProgress


def emit(value: Any, *, name: str = "custom") -> None:
    """Emit ``value`` as a :class:`~rxflow.types.Custom` event of the method or the tool that calls this.

    From async and sync code, also from threads that have its context. Outside a run this does nothing but warn.

    Raises:
        CancelledError: the run was cancelled.
    """
    _report("emit", Custom, name=name, value=value)


def report_progress(progress: float, total: float | None = None, message: str = "") -> None:
    """Report how far a tool or a method is, as a :class:`~rxflow.types.ToolProgress` event: ``progress`` of ``total``.

    The unit is yours; None means that the total is not known. Otherwise like :func:`emit`.
    """
    _report("report_progress", ToolProgress, progress=progress, total=total, message=message)


def _report(function: str, kind: type[Custom] | type[ToolProgress], **values: Any) -> None:
    leaf = current_emitter()
    if leaf is None:
        warnings.warn(
            f"rxflow.{function}() has no run to report to: call it in a method of a flow, in a tool, or in what they "
            "call, before that has returned",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    event = kind(origin=leaf.origin, **values)
    if running_loop() is leaf.run.loop:
        leaf.on_next(event)
    else:
        call_soon(leaf.run.loop, partial(leaf.on_next, event))
