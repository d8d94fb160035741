"""Draws timelines and recorded runs as marble diagrams, and shows where two timelines differ."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, count, groupby, zip_longest
from typing import Any, NamedTuple

from rxflow.operators._core import AnyPath, read_cassette
from rxflow.testing._diagrams import Completed, Failed, Lifetime, Moment, Ms, Next, Signal, Timeline, tidy
from rxflow.testing._stacks import find_raising_line
from rxflow.types import ReasoningChunk, StreamChunk, StreamChunkType

_MAX_SINGLE_FRAMES = 20  # a gap of up to this many whole milliseconds is drawn as dashes, any other gap as a time
_LIKE_A_TIME = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS = (("h", 3_600_000), ("m", 60_000), ("s", 1000))
_MAX_VALUE_CHARACTERS = 100  # at most this many characters of a value are shown
_ON_BRACKETS = (
    "[…] = the time of the next mark; it is not to scale, because the marks before it are wider than the time between"
)

Same = Callable[[Any, Any], bool]


def equal(expected: Any, actual: Any) -> bool:
    """Return whether two values are equal by ``==``."""
    return bool(expected == actual)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The diagrams of one or more timelines. The lines of ``legend`` explain the names and signs in the diagrams."""

    rows: tuple[str, ...]
    legend: tuple[str, ...]


def draw(timeline: Timeline, values: Mapping[str, Any] | None = None) -> str:
    """Draw a timeline that begins at 0 or later.

    If ``values`` has a name of one letter or digit for an item, this name is drawn. Other items get other names.

    A mark is a drawn signal or group. If a mark is wider than the time until the next mark, the time of the next mark
    is written in brackets: in ``(ab)[1ms]c``, "c" is at 1 ms.
    """
    return draw_together([timeline], values).rows[0]


def draw_together(
    timelines: Sequence[Timeline], values: Mapping[str, Any] | None = None, same: Same = equal
) -> Drawing:
    """Draw several timelines, one in each row. If possible, simultaneous signals are in the same column."""
    names = _Names(values or {}, same, chain.from_iterable(timelines))
    rows = _align([_marks(timeline, names.of) for timeline in timelines])
    legend = [*names.legend()]
    if any("[" in row for row in rows):
        legend.append(_ON_BRACKETS)
    return Drawing(rows, tuple(legend))


def draw_lifetimes(rows: Sequence[Lifetime]) -> tuple[str, ...]:
    """Draw subscriptions, one in each row, all to the same scale."""
    return _align([_marks_of_lifetime(lifetime) for lifetime in rows])


def show_value(value: Any) -> str:
    """Return a short text for messages. If ``value.content`` is a string, the text is the class and the content."""
    content = getattr(value, "content", None)
    text = f"{type(value).__name__} {content!r}" if isinstance(content, str) else repr(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[: _MAX_VALUE_CHARACTERS - 1]}…"


def duration(milliseconds: Ms | Decimal) -> str:
    """Return a duration in the notation of diagrams: 1500 becomes "1.5s"."""
    time = Decimal(str(milliseconds))
    for unit, size in _UNITS:
        if time >= size and (time / size * 1000) % 1 == 0:
            return f"{_plain(time / size)}{unit}"
    return f"{_plain(time)}ms"


@dataclass(frozen=True, slots=True)
class _Mark:
    time: Decimal
    text: str

    @property
    def end(self) -> Decimal:
        return self.time + len(self.text)


class _Names:
    """Gives each value a name of one character, for the diagrams. Equal values get the same name."""

    def __init__(self, values: Mapping[str, Any], same: Same, moments: Iterable[Moment]) -> None:
        self._same = same
        self._name_signal = [(name, value) for name, value in values.items() if len(name) == 1 and name.isalnum()]
        self._errors: list[Failed] = []
        self._used: list[tuple[str, Any]] = []
        later: list[Any] = []
        for moment in moments:
            if isinstance(moment.signal, Failed) and moment.signal not in self._errors:
                self._errors.append(moment.signal)
            elif isinstance(moment.signal, Next) and not self._takes_its_own(moment.signal.value):
                later.append(moment.signal.value)
        # Invent names only after all values were seen, so that no invented name is already the name of another value.
        taken = {name for name, _ in (*self._name_signal, *self._used)}
        free = (name for name in chain(string.ascii_letters, map(chr, count(0x3B1))) if name not in taken)
        for value in later:
            if self._find(self._used, value) is None:
                self._used.append((next(free), value))

    def of(self, value: Any) -> str:
        return self._find(self._used, value) or "?"

    def legend(self) -> Iterator[str]:
        for name, value in sorted(self._used, key=lambda used: used[0]):
            if _text_of(value) != name:
                yield f"{name} = {show_value(value)}"
        for failed in self._errors:
            raised = find_raising_line(failed.error)
            yield f"# = {failed.error!r}{f', raised at {raised}' if raised is not None else ''}"

    def _takes_its_own(self, value: Any) -> bool:
        if self._find(self._used, value) is not None:
            return True
        name = self._find(self._name_signal, value)
        text = _text_of(value)
        if (
            name is None
            and text is not None
            and len(text) == 1
            and text.isalnum()
            and all(text != taken for taken, _ in (*self._name_signal, *self._used))
        ):
            name = text
        if name is not None:
            self._used.append((name, value))
        return name is not None

    def _find(self, among: Iterable[tuple[str, Any]], value: Any) -> str | None:
        return next((name for name, known in among if self._same(known, value)), None)


def _text_of(value: Any) -> str | None:
    text = value if isinstance(value, str) else getattr(value, "content", None)
    return text if isinstance(text, str) else None


def _marks(timeline: Timeline, name_of: Callable[[Any], str]) -> list[_Mark]:
    def text_of(moment: Moment) -> str:
        if isinstance(moment.signal, Next):
            return name_of(moment.signal.value)
        return "|" if isinstance(moment.signal, Completed) else "#"

    return [
        _mark(time, [text_of(moment) for moment in moments])
        for time, moments in groupby(timeline, key=lambda moment: moment.time)
    ]


def _marks_of_lifetime(lifetime: Lifetime) -> list[_Mark]:
    if lifetime.end is None:
        return [_mark(lifetime.start, ["^"])]
    if lifetime.end == lifetime.start:
        return [_mark(lifetime.start, ["^", "!"])]
    return [_mark(lifetime.start, ["^"]), _mark(lifetime.end, ["!"])]


def _mark(time: Ms, texts: Sequence[str]) -> _Mark:
    if time < 0:
        raise ValueError(f"a diagram begins at 0 ms and cannot show what happens at {time} ms")
    return _Mark(Decimal(str(time)), texts[0] if len(texts) == 1 else f"({''.join(texts)})")


def _align(rows: Sequence[Sequence[_Mark]]) -> tuple[str, ...]:
    """Draw rows to the same scale.

    In every period, all rows get the same width. In a period without marks, this is the width of the drawn time. In a
    period with marks, this is the width of the widest row.
    """
    drawn = [""] * len(rows)
    now = Decimal(0)
    for start, end in _busy(chain.from_iterable(rows)):
        gap = _passing(start - now)
        parts = [" " * len(gap) if _is_over(row, now) else gap for row in rows]
        parts = [f"{part}{_stretch(row, start, end, part)}" for part, row in zip(parts, rows, strict=True)]
        width = max(map(len, parts))
        drawn = [f"{so_far}{part:<{width}}" for so_far, part in zip(drawn, parts, strict=True)]
        now = end
    indent = min((len(row) - len(row.lstrip()) for row in drawn), default=0)
    return tuple(row[indent:].rstrip() for row in drawn)


def _is_over(row: Sequence[_Mark], now: Decimal) -> bool:
    """Return whether the row has ended at or before ``now``."""
    return bool(row) and row[-1].end <= now and row[-1].text.rstrip(")")[-1] in "|#!"


def _busy(marks: Iterable[_Mark]) -> list[tuple[Decimal, Decimal]]:
    """Return the starts and ends of the periods that marks occupy. Periods that touch or overlap are joined."""
    spans: list[tuple[Decimal, Decimal]] = []
    for mark in sorted(marks, key=lambda mark: mark.time):
        if spans and mark.time <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], mark.end))
        else:
            spans.append((mark.time, mark.end))
    return spans


def _stretch(row: Sequence[_Mark], start: Decimal, end: Decimal, before: str) -> str:
    """Draw the marks of a row in a period. ``before`` is the drawing of the time before the period."""
    text = ""
    now = start
    marks = ""  # since time has last passed
    for mark in row:
        if start <= mark.time < end:
            if mark.time > now:
                gap = _passing(mark.time - now)
                text += _separate(marks, before, gap) + gap
                marks, before = "", gap
            marks += f"[{duration(mark.time)}]{mark.text}" if mark.time < now else mark.text
            now = max(now, mark.end)
    gap = "" if _is_over(row, now) else _passing(end - now)
    return text + _separate(marks, before, gap) + gap


def _separate(marks: str, before: str, after: str) -> str:
    """Return ``marks``, with a space inside if it would otherwise read as a time, such as the items "5" and "s"."""
    found = _LIKE_A_TIME.fullmatch(marks)
    if found is None or before[-1:] not in ("", " ") or after[:1] not in ("", " "):
        return marks
    return f"{found[1]} {found[2]}"


def _passing(time: Decimal) -> str:
    """Draw a period in which nothing happens."""
    if time % 1 == 0 and time <= _MAX_SINGLE_FRAMES:
        return "-" * int(time)
    return f" {duration(time)} "


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


_SIGNALS_BEFORE = 20  # how many signals before the first difference are drawn
_SIGNALS_AFTER = 10  # how many signals are drawn from the first difference on


def same(expected: Any, actual: Any) -> bool:
    """Return whether two values are equal. An expected text also equals a chunk or reasoning with that content."""
    if isinstance(expected, str) and isinstance(actual, StreamChunk | ReasoningChunk):
        return actual.content == expected
    return bool(expected == actual)


def difference(expected: Timeline, actual: Timeline, values: Mapping[str, Any] | None = None) -> str | None:
    """Return a text that shows two timelines around their first difference. Return None if the timelines are equal."""
    at = 0
    for wanted, came in zip_longest(expected, actual):
        if not _agree(wanted, came):
            break
        at += 1
    else:
        return None
    first, last = max(0, at - _SIGNALS_BEFORE), at + _SIGNALS_AFTER
    parts = [expected.moments[first:last], actual.moments[first:last]]
    start = min(moment.time for moment in (*parts[0], *parts[1])) if first else 0
    drawing = draw_together(
        [Timeline.of((tidy(each.time - start), each.signal) for each in part) for part in parts], values, same
    )
    rows = [
        f"{row} …" if len(whole) > last else row for row, whole in zip(drawing.rows, (expected, actual), strict=True)
    ]
    lines = [
        *([f"  from {duration(start)} on:"] if first else []),
        f"  expected  {rows[0]}",
        f"  actual    {rows[1]}",
        *(f"  {line}" for line in drawing.legend),
        f"  first difference: {_describe_difference(wanted, came)}",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _agree(expected: Moment | None, actual: Moment | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return expected.time == actual.time and _same_signal(expected.signal, actual.signal)


def _same_signal(expected: Signal, actual: Signal) -> bool:
    if isinstance(expected, Next) and isinstance(actual, Next):
        return same(expected.value, actual.value)
    return expected == actual


def _describe_difference(expected: Moment | None, actual: Moment | None) -> str:
    if expected is None or actual is None:
        if actual is not None:
            return f"{_name_signal(actual.signal)} came at {duration(actual.time)}, where nothing more was expected"
        assert expected is not None
        return f"expected {_name_signal(expected.signal)} at {duration(expected.time)}, but nothing more came"
    wanted, came = _name_signal(expected.signal), _name_signal(actual.signal)
    due, at = duration(expected.time), duration(actual.time)
    if expected.time == actual.time:
        return f"at {due} expected {wanted}, but {came} came"
    if _same_signal(expected.signal, actual.signal):
        return f"expected {wanted} at {due}; it came at {at}"
    return f"expected {wanted} at {due}, but {came} came at {at}"


def _name_signal(signal: Signal) -> str:
    if isinstance(signal, Next):
        return show_value(signal.value)
    if isinstance(signal, Completed):
        return "the completion"
    return f"the error {show_value(signal.error)}"


class Tape(NamedTuple):
    """A recording as a tuple of arguments, for ``marbles.cold(*tape)``, ``hot(*tape)`` and ``to_be(*tape)``."""

    diagram: str
    values: Mapping[str, Any]
    error: Exception | None

    def as_test(self, name: str = "the recorded run") -> str:
        """Return the code of a test that plays the recording and expects the recorded signals.

        The test is a starting point: there are no operators yet, so the test expects what its source plays.
        Text chunks are written as strings.
        """
        values = "".join(f"        {key!r}: {_write_value(value)},\n" for key, value in self.values.items())
        error = f", {self.error!r}" if self.error is not None else ""
        called = re.sub(r"\W+", "_", name)
        return (
            f"def test_{called}(marbles: Marbles) -> None:\n"
            f"    values = {{\n{values}    }}\n"
            f"    source = marbles.cold({self.diagram!r}, values{error})\n"
            f"    marbles.expect(source).to_be({self.diagram!r}, values{error})\n"
        )


def cassette(path: AnyPath, *kinds: type[Any]) -> Tape:
    """Read a file that :func:`rxflow.operators.record` wrote. Return the diagram, the values and the error. ::

        tape = cassette("support.cassette", StreamChunk)
        marbles.expect(marbles.cold(*tape).pipe(my_operator())).to_say("Hel-lo|")
        marbles.expect(from_cassette("support.cassette").pipe(ops.text())).to_be(*tape)

    Times are rounded to milliseconds. In the diagram, each character takes one millisecond: an item takes 1 ms, and
    the group ``(ab)`` takes 4 ms. If items were recorded closer together than this, the second item is later in
    the diagram than in the recording.

    The last line of the example compares the recorded times with the times of the diagram. These times are equal only
    if the run was recorded in virtual time, with enough time between the chunks.

    Args:
        path: the file.
        kinds: only items of these types are used; by default all items, including events.

    Raises:
        OSError: the file cannot be read.
        CassetteError: the file is not a cassette, or one of its lines is broken.
    """
    recorded = read_cassette(path)
    taken = [(at, item) for at, item in recorded.items if not kinds or isinstance(item, kinds)]
    values = dict(zip(_names(), (item for _, item in taken), strict=False))
    marks = [(round(at * 1000), name) for (at, _), name in zip(taken, values, strict=True)]
    marks.append((round(recorded.ended_at * 1000), "|" if recorded.error is None else "#"))
    return Tape(_draw_marks(marks), values, recorded.error)


def _names() -> Iterator[str]:
    """Return an iterator of names: ASCII letters and digits first, then characters of other alphabets."""
    return chain(string.ascii_letters, string.digits, filter(str.isalnum, map(chr, count(0x3B1))))


def _draw_marks(marks: list[tuple[int, str]]) -> str:
    diagram, now = "", 0
    for time, together in groupby(marks, key=lambda mark: mark[0]):
        names = "".join(name for _, name in together)
        gap = max(0, time - now)
        mark = names if len(names) == 1 else f"({names})"
        diagram += ("-" * gap if gap <= _MAX_SINGLE_FRAMES else f" {gap}ms ") + mark
        now += gap + len(mark)
    return diagram


def _write_value(value: Any) -> str:
    if isinstance(value, StreamChunk) and value.chunk_type is StreamChunkType.TEXT:
        return repr(value.content)
    return repr(value)
