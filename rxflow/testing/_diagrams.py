"""Marble diagrams: timelines of signals, and a strict parser that points at the column of an error.

Each character is one millisecond, as in RxJS ::

    -            a millisecond in which nothing happens
    a            an item: ``values["a"]`` if there is one, otherwise the text "a"
    |            the completion
    #            an error
    (ab|)        a group: all its signals are at the time of "("; with its parentheses, this group takes 5 ms
    a 59s b      59 seconds pass: write a number with ms, s, m or h between spaces; the spaces take no time
    ^            in the diagram of a hot source: the subscription, which is time 0
    ^  !         in the diagram of a subscription: its start and its end

In a *script*, consecutive characters other than spaces and ``-|#()`` are one item. The item takes one millisecond for
each character: ``he-ll-o|`` emits "he" at 0, "ll" at 3 and "o" at 6 ms, and completes at 7 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NoReturn, TypeAlias

Ms: TypeAlias = int | float
"""A time or a duration in milliseconds; an int if it is whole."""


class MarbleError(Exception):
    """The error that a stream emits at ``#``, unless the test gives another error."""


@dataclass(frozen=True, slots=True)
class Next:
    """The signal with an item."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """The signal that ends a stream with an error.

    Two such signals are equal if their errors have the same type and message.
    """

    error: BaseException

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Failed) and type(other.error) is type(self.error) and str(other.error) == str(self.error)
        )

    def __hash__(self) -> int:
        return hash((type(self.error), str(self.error)))


@dataclass(frozen=True, slots=True)
class Completed:
    """The signal that ends a stream without an error."""


Signal: TypeAlias = Next | Failed | Completed


@dataclass(frozen=True, slots=True)
class Moment:
    """A signal and its time."""

    time: Ms
    signal: Signal


@dataclass(frozen=True, slots=True)
class Timeline:
    """Signals in order, with their times."""

    moments: tuple[Moment, ...] = ()

    @classmethod
    def of(cls, moments: Iterable[tuple[Ms, Signal]]) -> Timeline:
        """Create a timeline from pairs of a time and a signal."""
        return cls(tuple(Moment(time, signal) for time, signal in moments))

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def end(self) -> Ms:
        """The time of the last signal; 0 if there is none."""
        return self.moments[-1].time if self.moments else 0

    @property
    def has_terminal(self) -> bool:
        """Whether the timeline completes or fails."""
        return bool(self.moments) and not isinstance(self.moments[-1].signal, Next)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The start and the end of a subscription, in milliseconds. ``end`` is None if nothing has ended it."""

    start: Ms
    end: Ms | None = None


def tidy(milliseconds: Ms) -> Ms:
    """Round a time to the nanosecond, to remove rounding errors of floats. Return an int if the result is whole."""
    rounded = round(float(milliseconds), 6)
    return int(rounded) if rounded.is_integer() else rounded


_Kind: TypeAlias = Literal["-", "item", "|", "#", "(", ")", "^", "!", "time"]

_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)(?= |$)")
_RUN = re.compile(r"[^-()|#\s]+")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_TERMINALS = ("|", "#")

__tracebackhide__ = True  # pytest's tracebacks show the line with the diagram, and leave out this module


class MarbleSyntaxError(ValueError):
    """A marble diagram cannot be parsed. The message points at the column of the problem, and describes the problem."""

    def __init__(self, diagram: str, column: int, problem: str) -> None:
        shown = "".join(char if char.isprintable() else " " for char in diagram)
        super().__init__(f"column {column} of the diagram {diagram!r}: {problem}\n    {shown}\n    {'^':>{column}}")
        self.diagram = diagram
        self.column = column


def parse(diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None) -> Timeline:
    """Parse the diagram of a cold source or of an expected stream: ``parse("-a-(bc)|", {"a": 1})``."""
    marks = _place_marks(diagram, _frames(diagram))
    for mark in marks:
        if mark.kind == "^":
            _refuse(diagram, mark, "'^' is only allowed in hot and subscription diagrams")
    return _timeline(diagram, marks, Decimal(0), values, error)


def parse_hot(diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None) -> Timeline:
    """Parse the diagram of a hot source. Its times count from ``^`` if there is one, otherwise from the beginning."""
    marks = _place_marks(diagram, _frames(diagram))
    zeros = [mark for mark in marks if mark.kind == "^"]
    if len(zeros) > 1:
        _refuse(diagram, zeros[1], "a hot diagram has one '^' at most")
    return _timeline(diagram, marks, zeros[0].time if zeros else Decimal(0), values, error)


def parse_script(diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None) -> Timeline:
    """Parse a script: ``parse_script("he-ll-o|")``. An item is ``values[text]`` if there is one, otherwise the text."""
    return _timeline(diagram, _place_marks(diagram, _runs(diagram)), Decimal(0), values, error)


def parse_subscription(diagram: str) -> Lifetime:
    """Parse the start and end of a subscription: ``parse_subscription("--^---!")``."""
    start: Decimal | None = None
    end: Decimal | None = None
    for mark in _place_marks(diagram, _frames(diagram)):
        if mark.kind == "^" and start is None:
            start = mark.time
        elif mark.kind == "!" and start is not None:
            end = mark.time
        elif mark.kind == "!":
            _refuse(diagram, mark, "'!' ends a subscription, which must begin with '^'")
        elif mark.kind == "^":
            _refuse(diagram, mark, "a subscription diagram has only one '^'")
        else:
            _refuse(
                diagram,
                mark,
                f"{mark.text!r} is not allowed in a subscription diagram, which consists of '-', '^' and '!'",
            )
    if start is None:
        raise MarbleSyntaxError(diagram, len(diagram) + 1, "a subscription diagram has one '^', for its beginning")
    return Lifetime(_ms(start), None if end is None else _ms(end))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    column: int  # counted from 1
    width: Decimal  # in milliseconds


@dataclass(frozen=True, slots=True)
class _Placed:
    kind: _Kind
    text: str
    column: int
    time: Decimal


def _frames(diagram: str) -> Iterator[_Token]:
    """Yield the tokens of a diagram: times such as "59s", and all other characters except spaces."""
    at = 0
    while at < len(diagram):
        char = diagram[at]
        if (time := _time_at(diagram, at)) is not None:
            yield time
            at += len(time.text)
            continue
        if char in "-|#()^!":
            yield _Token(char, char, at + 1, Decimal(1))  # type: ignore[arg-type]  # one of the kinds
        elif char.isalnum():
            yield _Token("item", char, at + 1, Decimal(1))
        elif char != " ":
            raise MarbleSyntaxError(
                diagram,
                at + 1,
                f"{char!r} has no meaning; diagrams have items (letters and digits), '-', '|', '#', groups '(ab)', "
                "'^' and '!', and times such as '59s' between spaces",
            )
        at += 1


def _runs(diagram: str) -> Iterator[_Token]:
    """Yield the tokens of a script: times such as "59s", each of the characters ``-|#()``, and texts.

    A text is a sequence of other characters. It ends at a space or at one of ``-|#()``.
    """
    at = 0
    while at < len(diagram):
        char = diagram[at]
        if (token := _time_at(diagram, at)) is None:
            if char in "-|#()":
                token = _Token(char, char, at + 1, Decimal(1))  # type: ignore[arg-type]  # one of the kinds
            elif (run := _RUN.match(diagram, at)) is not None:
                token = _Token("item", run[0], at + 1, Decimal(len(run[0])))
            elif char != " ":
                raise MarbleSyntaxError(
                    diagram,
                    at + 1,
                    f"{char!r} is not allowed in a script; use a name in values for its text",
                )
        if token is not None:
            yield token
        at += 1 if token is None else len(token.text)


def _time_at(diagram: str, at: int) -> _Token | None:
    """Return the duration that begins at position ``at``; None if there is none.

    A duration must be between spaces, or at the beginning or end of the diagram. Elsewhere, the digits and letters of
    "59s" are items.
    """
    found = _TIME.match(diagram, at) if at == 0 or diagram[at - 1] == " " else None
    return None if found is None else _Token("time", found[0], at + 1, Decimal(found[1]) * _UNITS[found[2]])


def _place_marks(diagram: str, tokens: Iterator[_Token]) -> list[_Placed]:
    """Return the items of a diagram and its signs ``|``, ``#``, ``^`` and ``!``, each with its time.

    All items and signs in a group have the time of the "(". Raises MarbleSyntaxError if a group is wrong, or if
    anything follows after the end.
    """
    marks: list[_Placed] = []
    now = Decimal(0)
    group: _Token | None = None
    size = 0  # the number of marks in the group
    width = Decimal(0)
    ended: str | None = None
    for token in tokens:
        if ended is not None and not (token.kind == ")" and group is not None):
            _refuse(diagram, token, f"nothing may follow after {ended!r}")
        if token.kind == "(":
            if group is not None:
                _refuse(diagram, token, f"the group in column {group.column} is still open; groups cannot be nested")
            group, size, width = token, 0, token.width
        elif token.kind == ")":
            if group is None:
                _refuse(diagram, token, "no group is open here")
            if size == 0:
                _refuse(diagram, token, "a group needs at least one mark")
            group, now = None, now + width + token.width
        elif token.kind in ("-", "time"):
            if group is not None:
                _refuse(diagram, token, f"no time passes in a group, so {token.text!r} is not allowed in it")
            now += token.width
        else:
            marks.append(_Placed(token.kind, token.text, token.column, now))
            if token.kind in _TERMINALS or token.kind == "!":
                ended = token.text
            if group is None:
                now += token.width
            else:
                size, width = size + 1, width + token.width
    if group is not None:
        _refuse(diagram, group, "this group is never closed; it ends with ')'")
    return marks


def _timeline(
    diagram: str, marks: list[_Placed], zero: Decimal, values: Mapping[str, Any] | None, error: BaseException | None
) -> Timeline:
    given = values or {}

    def signal_of(mark: _Placed) -> Signal:
        if mark.kind == "|":
            return Completed()
        if mark.kind == "#":
            return Failed(MarbleError("#") if error is None else error)
        if mark.kind == "!":
            _refuse(diagram, mark, "'!' is only allowed in subscription diagrams")
        return Next(given.get(mark.text, mark.text))

    return Timeline.of((_ms(mark.time - zero), signal_of(mark)) for mark in marks if mark.kind != "^")


def _refuse(diagram: str, at: _Token | _Placed, problem: str) -> NoReturn:
    raise MarbleSyntaxError(diagram, at.column, problem)


def _ms(time: Decimal) -> Ms:
    return int(time) if time == time.to_integral_value() else float(time)
