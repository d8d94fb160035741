"""``record``: writes the items of a stream to a file, a cassette."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow._streaming import Holder
from rxflow.operators._core import HEADER, AnyPath, check_path, encode_end, encode_item, start_stopwatch, through
from rxflow.types import StreamChunk

T = TypeVar("T")

_BUFFER_BYTES = 64 * 1024


def record(path: AnyPath, *, scheduler: SchedulerBase | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Write each item and its time to a file (like ``do``). :func:`from_cassette` replays the file. ::

        source          --a--b----|
        record(path)    --a--b----|
        the file        {"at": 2, "kind": "StreamChunk", "data": {"content": "a", …}}
                        {"at": 5, "kind": "StreamChunk", "data": {"content": "b", …}}
                        {"at": 10, "kind": "completed"}

    The file is a cassette: lines of JSON, with times in seconds. The stream itself is unchanged. The cassette of a run
    contains all events of the run, even if only chunks are selected (``flow.observe()``). Each subscription replaces
    the file. If several subscriptions run at once, the file contains the items of the latest subscription. The file is
    closed when the stream completes, fails or is disposed. Chunks are buffered, up to 64 KiB. An item that is not a
    chunk is written at once, together with the buffered chunks. So if the program dies, only the latest chunks can be
    missing.

    Values are written as :mod:`rxflow.types.codec` describes. An object that JSON cannot represent is written as the
    name of its class and its ``str``. Two kinds of text are written as ``***``: a text that looks like an API key, and
    a text in JSON under a name such as ``api_key`` or ``password``. But the texts of chunks with fewer than 16
    characters are not searched, and an API key that a model writes across several chunks is not found. Messages, inputs
    and answers are otherwise unchanged, so protect the file as you protect them.

    Args:
        path: the file. Its folder must exist.
        scheduler: the clock. By default, the clock of the subscriber's scheduler is used, otherwise the clock of the
            running loop, otherwise the machine's clock.

    Raises:
        TypeError: ``path`` is not a path.
        OSError: the file cannot be written. The stream ends with this error. If the file cannot be opened, the source
            is not subscribed to. If a later line cannot be written, the source is disposed.

    Example::

        flow.observe().pipe(ops.record("support.cassette")).subscribe(show)
    """

    check_path(path, "record(path)")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            try:
                recorder = _Recorder(Path(path), observer, start_stopwatch(scheduler, subscribed))
            except OSError as error:
                observer.on_error(error)
                return Disposable()
            recorder.running.hold(
                source.subscribe(recorder.on_next, recorder.on_error, recorder.on_completed, scheduler=subscribed)
            )
            return Disposable(recorder.dispose)

        return Observable(subscribe)

    return through(operator)


class _Recorder:
    """Writes the file of one subscription. A lock guards the file, because any thread may dispose the subscription."""

    def __init__(self, path: Path, observer: ObserverBase[Any], read: Callable[[], float]) -> None:
        self.running = Holder()
        self._observer = observer
        self._emit = observer.on_next
        self._read = read
        self._lock = threading.RLock()
        if path.is_file():
            path.unlink()  # so that a subscription that still writes the old file does not write into the new one
        self._file = path.open("wb", buffering=_BUFFER_BYTES)
        self._write(HEADER)

    def on_next(self, item: Any) -> None:
        try:
            self._write(encode_item(self._read(), item), flush=not isinstance(item, StreamChunk))
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
                with suppress(OSError):  # closing raises the same error again
                    self._file.close()
                raise

    def _end(self, kind: str, error: Exception | None = None) -> OSError | None:
        """If the file is open, write the last line and close the file. Return the error if that fails, else None."""
        line = encode_end(self._read(), kind, error)
        with self._lock:
            if self._file.closed:
                return None
            try:
                with self._file as file:
                    file.write(line)
            except OSError as failure:
                return failure
        return None
