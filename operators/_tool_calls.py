"""The operators on tool calls: ``tool_calls``, ``tool_arguments`` and ``tool_call_deltas``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from pydantic import BaseModel
from reactivex import Observable

from rxflow.operators._core import GrowingJson, check_model, get_origin, only, parse, read_calls, read_object, select
from rxflow.tools import BaseTool, function_name, read_arguments
from rxflow.types import CompletedToolCall, StreamChunk, StreamChunkType, ToolCallChunk

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")

_Read: TypeAlias = Callable[[str], dict[str, Any]]


def tool_calls(
    *tools: BaseTool, **models: type[BaseModel]
) -> Callable[[Observable[Any]], Observable[CompletedToolCall]]:
    """Join the deltas of tool calls (like ``buffer``). Each tool call is emitted once, as soon as it is complete.

    A tool call is complete when its arguments are a JSON object and the LLM continues with something else. All tool
    calls of an LLM call are complete when the LLM call finishes. If the tool is in ``tools``, it validates the
    arguments. If ``models`` has a pydantic model under the name of the tool, the model validates the arguments. The
    arguments of all other tools are only parsed as a JSON object. A tool call with invalid arguments is emitted too,
    and its ``error`` is set. The run reports such an error to the LLM, which may try again. If an LLM call fails, its
    incomplete tool calls are dropped. ::

        source           --{a: "{"}--{a: "}"}--{b: "{"}--{b: "}"}--{LLM call finished}--|
        tool_calls()     ----------------------a-------------------b--------------------|

    Raises:
        TypeError: one of ``tools`` is not a tool, or one of ``models`` is not a pydantic model.
        ValueError: two tools, or a tool and a model, have the same name.

    Example::

        def show(call: CompletedToolCall) -> None:
            print(call.tool_name, call.error or call.arguments)

        crew.observe().pipe(ops.tool_calls(search, get_weather=WeatherQuery)).subscribe(show)
    """
    readers = _collect_readers(tools, models)
    return read_calls(lambda: _ToolCalls(readers))


def _collect_readers(tools: Sequence[BaseTool], models: Mapping[str, type[BaseModel]]) -> dict[str, _Read]:
    """Return the functions that parse arguments. Each key is the name by which an LLM calls the tool."""
    readers: dict[str, _Read] = {}
    for tool in tools:
        if not isinstance(tool, BaseTool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"tool_calls() takes tools, and models by the name of their tool (name=Model); got {tool!r}"
            )
        name = function_name(tool.name)
        if name in readers:
            raise ValueError(f"two tools are called {name!r}; give one of them another name")
        readers[name] = tool.read_arguments
    for name, model in models.items():
        check_model(model, f"tool_calls({name}=…)")
        if name in readers:
            raise ValueError(f"{name!r} is given twice, as a tool and as a model; one of them is enough")
        readers[name] = partial(read_arguments, model)
    return readers


class _ToolCalls:
    """The tool calls of one LLM call."""

    def __init__(self, readers: Mapping[str, _Read]) -> None:
        self._readers = readers
        self._open: list[_GrowingCall] = []

    def feed(self, item: object) -> Sequence[CompletedToolCall]:
        delta = item.tool_call if isinstance(item, StreamChunk) else None
        if delta is None:
            return self._take(_GrowingCall.is_whole) if self._open else ()
        if self._open and self._open[-1].continues_with(delta):
            self._open[-1].pieces.append(delta.arguments)
            return ()
        complete = self._take(_GrowingCall.is_whole)
        self._continue(delta, cast(StreamChunk, item))
        return complete

    def finish(self) -> Sequence[CompletedToolCall]:
        return self._take(lambda _: True)

    def _continue(self, delta: ToolCallChunk, chunk: StreamChunk) -> None:
        """Add ``delta`` to the open tool call that it continues. If there is none, begin a tool call.

        The continued tool call need not be the latest one, because some providers interleave tool calls.
        """
        call = next((call for call in self._open if call.continues_with(delta)), None)
        if call is None:
            call = _GrowingCall(delta, chunk)
        else:
            self._open.remove(call)
        call.pieces.append(delta.arguments)
        self._open.append(call)

    def _take(self, wanted: Callable[[_GrowingCall], bool]) -> Sequence[CompletedToolCall]:
        taken = [call for call in self._open if wanted(call)]
        self._open = [call for call in self._open if call not in taken]
        return [call.complete(self._readers) for call in sorted(taken, key=lambda call: call.index)]


class _GrowingCall:
    """One tool call while the model writes it."""

    def __init__(self, delta: ToolCallChunk, chunk: StreamChunk) -> None:
        self.index = delta.index
        self.pieces: list[str] = []
        self._id = delta.tool_id or ""
        self._name = delta.tool_name or ""
        self._chunk = chunk

    def continues_with(self, delta: ToolCallChunk) -> bool:
        return delta.index == self.index and (delta.tool_id or self._id) == self._id

    def is_whole(self) -> bool:
        """Return whether the arguments are a whole JSON object.

        If not, the rest may follow, even after another tool call, because some providers interleave tool calls.
        """
        written = "".join(self.pieces)
        if not written.rstrip().endswith("}"):
            return False
        try:
            parse(written)
        except ValueError:
            return False
        return True

    def complete(self, readers: Mapping[str, _Read]) -> CompletedToolCall:
        written = "".join(self.pieces)
        read = readers.get(self._name, read_object)
        arguments: dict[str, Any] = {}
        error: ValueError | None = None
        try:
            arguments = read(written)
        except ValueError as raised:
            error = raised
        return CompletedToolCall(
            origin=get_origin(self._chunk),
            tool_id=self._id,
            tool_name=self._name,
            written=written,
            arguments=arguments,
            error=error,
        )


@overload
def tool_arguments(
    model: None = None, *, tool: str | None = None
) -> Callable[[Observable[Any]], Observable[dict[str, Any]]]: ...


@overload
def tool_arguments(model: type[M], *, tool: str | None = None) -> Callable[[Observable[Any]], Observable[M]]: ...


def tool_arguments(
    model: type[BaseModel] | None = None, *, tool: str | None = None
) -> Callable[[Observable[Any]], Observable[Any]]:
    """Read the arguments of tool calls while they are being written (like ``scan``), as increasingly complete values.

    Each value is an instance of the pydantic model ``model`` or, without ``model``, a dict. If ``tool`` is given, only
    calls of the tool with that name are read. Each value is valid, and differs from the previous value of the same
    tool call. The last value of a tool call has the whole arguments. A value does not show which tool call it belongs
    to. So if several agents work concurrently, divide the stream with ``by_task``, and apply this operator to each
    lane.

    If the arguments of a tool call do not fit ``model``, no further value is emitted for that tool call. The stream
    continues, because the run reports the error to the LLM. ``tool_calls`` shows the error. ::

        source              --{write: {"text": "he}--{write: llo"}}--|
        tool_arguments()    --{"text": "he"}---------{"text": "hello"}--|

    Each reading parses the arguments from their beginning. So long arguments are read again only when they have grown
    by 1/128. As with ``partial_json``, a chunk takes longer than with other operators.

    Raises:
        TypeError: ``model`` is not a pydantic model, or ``tool`` is not a string.
        ValueError: ``tool`` is empty.

    Example::

        crew.observe().pipe(ops.tool_arguments(Draft, tool="write_file")).subscribe(show_draft)
    """
    if tool is not None and not isinstance(tool, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"tool_arguments(tool=…) is not the name of a tool: {tool!r}")
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
        ended = self.finish()  # a new tool call begins, so emit the last values of the earlier tool calls
        growing = self._growing[key] = GrowingJson(self._read)
        return [*ended, *growing.feed(delta.arguments)]

    def finish(self) -> Sequence[V]:
        values: list[V] = []
        for growing in self._growing.values():
            try:
                whole = self._read(growing.text.strip() or "{}")
            except ValueError:  # the run reports the error to the model, and tool_calls() shows the error
                continue
            values += growing.if_new(whole)
        return values


def tool_call_deltas() -> Callable[[Observable[Any]], Observable[StreamChunk]]:
    """Select the TOOL_CALL chunks (like ``filter``), with all their labels.

    ``chunk.tool_call`` has the next piece of the arguments of a tool call. ``tool_calls()`` joins the pieces. ::

        source                 --he--{a: "{"}--llo--{a: "}"}--|
        tool_call_deltas()     ------{a: "{"}-------{a: "}"}--|

    Example::

        flow.observe().pipe(ops.tool_call_deltas()).subscribe(lambda chunk: print(chunk.content, end=""))
    """
    return select(only(_is_delta))


def _is_delta(item: object) -> bool:
    return isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TOOL_CALL
