"""Recorded runs as marble diagrams."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from itertools import chain, count, groupby
from typing import Any, NamedTuple

from rxflow.operators._core import AnyPath, read_cassette
from rxflow.types import StreamChunk, StreamChunkType

_LONGEST = 20  # up to this many frames without a signal are drawn one by one


class Tape(NamedTuple):
    """A recording as the arguments of ``marbles.cold(*tape)``, ``hot(*tape)`` and ``to_be(*tape)``."""

    diagram: str
    values: Mapping[str, Any]
    error: Exception | None

    def as_test(self, name: str = "the recorded run") -> str:
        """Return the code of a first test, which plays the recording and expects the same back.

        In the code, text chunks are strings.
        """
        values = "".join(f"        {key!r}: {_written(value)},\n" for key, value in self.values.items())
        error = f", {self.error!r}" if self.error is not None else ""
        called = re.sub(r"\W+", "_", name)
        return (
            f"def test_{called}(marbles: Marbles) -> None:\n"
            f"    values = {{\n{values}    }}\n"
            f"    source = marbles.cold({self.diagram!r}, values{error})\n"
            f"    marbles.expect(source).to_be({self.diagram!r}, values{error})\n"
        )


def cassette(path: AnyPath, *kinds: type[Any]) -> Tape:
    """Read a file that :func:`rxflow.operators.record` wrote, as a diagram, its values and its error. ::

        tape = cassette("support.cassette", StreamChunk)
        marbles.expect(marbles.cold(*tape).pipe(my_operator())).to_say("Hel-lo|")
        marbles.expect(from_cassette("support.cassette").pipe(ops.text())).to_be(*tape)

    Times are in whole milliseconds. If marks are wider than the time between them, as groups often are, the following
    marks are later than in the recording. So the last line above needs a recording in virtual time, with room between
    its chunks.

    Args:
        path: the file.
        kinds: only items of these types are used; by default all items, including events.

    Raises:
        OSError: the file cannot be read.
        CassetteError: the file is not a cassette.
    """
    recorded = read_cassette(path)
    taken = [(at, item) for at, item in recorded.items if not kinds or isinstance(item, kinds)]
    values = dict(zip(_names(), (item for _, item in taken), strict=False))
    marks = [(round(at * 1000), name) for (at, _), name in zip(taken, values, strict=True)]
    marks.append((round(recorded.ended_at * 1000), "|" if recorded.error is None else "#"))
    return Tape(_drawn(marks), values, recorded.error)


def _names() -> Iterator[str]:
    """Return one letter or digit for each item; for long recordings, also letters of other alphabets."""
    return chain(string.ascii_letters, string.digits, filter(str.isalnum, map(chr, count(0x3B1))))


def _drawn(marks: list[tuple[int, str]]) -> str:
    diagram, now = "", 0
    for time, together in groupby(marks, key=lambda mark: mark[0]):
        names = "".join(name for _, name in together)
        gap = max(0, time - now)
        mark = names if len(names) == 1 else f"({names})"
        diagram += ("-" * gap if gap <= _LONGEST else f" {gap}ms ") + mark
        now += gap + len(mark)
    return diagram


def _written(value: Any) -> str:
    if isinstance(value, StreamChunk) and value.chunk_type is StreamChunkType.TEXT:
        return repr(value.content)
    return repr(value)
