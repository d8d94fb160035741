"""``record``: a cassette of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxflow.operators._core.cassettes import HEADER, AnyPath, end_of, line_of
from rxflow.operators._core.clock import stopwatch
from rxflow.operators._core.lift import through
from rxflow.types.chunks import StreamChunk

T = TypeVar("T")

_BUFFER = 64 * 1024


def record(path: AnyPath, *, scheduler: SchedulerBase | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Write all that passes to a file, with its times, for :func:`replay`; nothing is changed. ::

        source          --a--b----|
        record(path)    --a--b----|
        the file        {"at": 2, "kind": "StreamChunk", "data": {"content": "a", …}}
                        {"at": 5, "kind": "StreamChunk", "data": {"content": "b", …}}
                        {"at": 10, "kind": "completed"}

    The file is a cassette: lines of JSON, times in seconds. Of a run it has everything, the events too, also where
    chunks alone are selected (``flow.observe()``). It is begun anew with each subscription, and of several at once the
    last to begin has it. It is closed at the end, whatever that is: completion, an error, disposal. A program that dies
    loses at most what has come since the last event, and never more than 64 KiB.

    Objects that JSON does not know are written as they describe themselves. What looks like an API key, or is named
    like one, is written as ``***``, unless a model spells it out over several chunks. Messages, inputs and answers are
    in the file as they are: treat it as you treat those.

    Args:
        path: the file. Its folder must exist.
        scheduler: tells the time; else the subscriber's, else the running loop, else the machine.

    Raises:
        OSError: as the stream's error: the file cannot be written. Then the source is not subscribed, or is disposed.

    Example::

        flow.observe().pipe(ops.record("support.cassette")).subscribe(show)
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            try:
                recorder = _Recorder(Path(path), observer, stopwatch(scheduler, subscribed))
            except OSError as error:
                observer.on_error(error)
                return Disposable()
            recorder.running.disposable = source.subscribe(
                recorder.on_next, recorder.on_error, recorder.on_completed, scheduler=subscribed
            )
            return Disposable(recorder.dispose)

        return Observable(subscribe)

    return through(operator)


class _Recorder:
    """The file of one subscription. The lock: a disposal may come from any thread."""

    def __init__(self, path: Path, observer: ObserverBase[Any], read: Callable[[], float]) -> None:
        self.running = SingleAssignmentDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._read = read
        self._lock = threading.RLock()
        if path.is_file():
            path.unlink()  # a subscription that still writes to it must not write into ours
        self._file = path.open("wb", buffering=_BUFFER)
        self._write(HEADER)

    def on_next(self, item: Any) -> None:
        try:
            self._write(line_of(self._read(), item), flush=not isinstance(item, StreamChunk))
        except OSError as error:
            self.running.dispose()
            self._observer.on_error(error)
            return
        self._emit(item)

    def on_error(self, error: Exception) -> None:
        self._end("failed", error)
        self._observer.on_error(error)

    def on_completed(self) -> None:
        failure = self._end("completed")
        if failure is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(failure)

    def dispose(self) -> None:
        self.running.dispose()
        self._end("disposed")

    def _write(self, line: bytes, *, flush: bool = True) -> None:
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(line)
                if flush:
                    self._file.flush()
            except OSError:
                with suppress(OSError):  # it says again what it has said
                    self._file.close()
                raise

    def _end(self, kind: str, error: Exception | None = None) -> OSError | None:
        """Close the file, if it is open; what fails in that is the result."""
        line = end_of(self._read(), kind, error)
        with self._lock:
            if self._file.closed:
                return None
            try:
                with self._file as file:
                    file.write(line)
            except OSError as failure:
                return failure
        return None
