"""``tool_arguments``: the arguments of tool calls, read while they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel
from reactivex import Observable

from rxflow.operators._core.calls import read_calls
from rxflow.operators._core.checks import check_model
from rxflow.operators._core.growing_json import GrowingJson, read_object
from rxflow.tools import function_name
from rxflow.types.chunks import StreamChunk

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")


@overload
def tool_arguments(
    model: None = None, *, tool: str | None = None
) -> Callable[[Observable[Any]], Observable[dict[str, Any]]]: ...


@overload
def tool_arguments(model: type[M], *, tool: str | None = None) -> Callable[[Observable[Any]], Observable[M]]: ...


def tool_arguments(
    model: type[BaseModel] | None = None, *, tool: str | None = None
) -> Callable[[Observable[Any]], Observable[Any]]:
    """Read the arguments of tool calls while they are written (like ``scan``), as ever more complete values.

    The values are of ``model``, a pydantic model, or dicts. With ``tool``, only calls of the tool with that name are
    read. Values are made as ``partial_json`` makes them: each is valid, and differs from the one before; the last one
    of a call is its whole arguments. Calls follow one another; to tell apart concurrent calls of several agents, use
    ``by_task`` before. Arguments that do not fit are not an error, since the run reports them to the model: they give
    no value (any more), and ``tool_calls`` shows what is wrong with them. ::

        source              --{write: {"text": "he}--{write: llo"}}--|
        tool_arguments()    --{"text": "he"}---------{"text": "hello"}--|

    A long call is read again only when it has grown by 1/128, as in ``partial_json``, which also says why a chunk
    costs more than the 5 µs of other operators.

    Raises:
        TypeError: ``model`` is not a pydantic model.
        ValueError: ``tool`` is empty.

    Example::

        crew.observe().pipe(ops.tool_arguments(Draft, tool="write_file")).subscribe(show_draft)
    """
    if tool is not None and not tool:
        raise ValueError("tool_arguments(tool=…) is empty; leave it out to read the calls of all tools")
    called = None if tool is None else function_name(tool)
    if model is None:
        return read_calls(lambda: _Arguments(read_object, called))
    check_model(model, "tool_arguments()")
    read = model.model_validate_json
    return read_calls(lambda: _Arguments(read, called))


class _Arguments(Generic[V]):
    """The arguments of the tool calls in one LLM call."""

    def __init__(self, read: Callable[[str], V], tool: str | None) -> None:
        self._read = read
        self._tool = tool
        self._growing: dict[tuple[int, str | None], GrowingJson[V]] = {}

    def feed(self, item: object) -> Sequence[V]:
        delta = item.tool_call if isinstance(item, StreamChunk) else None
        if delta is None or (self._tool is not None and delta.tool_name != self._tool):
            return ()
        key = (delta.index, delta.tool_id)
        growing = self._growing.get(key)
        if growing is not None:
            return growing.feed(delta.arguments)
        ended = self.finish()  # another tool call begins
        growing = self._growing[key] = GrowingJson(self._read)
        return [*ended, *growing.feed(delta.arguments)]

    def finish(self) -> Sequence[V]:
        values: list[V] = []
        for growing in self._growing.values():
            try:
                whole = self._read(growing.text.strip() or "{}")
            except ValueError:  # the run reports it to the model, and tool_calls() shows it
                continue
            values += growing.if_new(whole)
        return values
