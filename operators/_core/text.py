"""Tools for text that is still arriving. They shape it voice by voice, split it between characters, and search it.

A voice is the answer, or the reasoning, of one LLM call. Each voice has a shaper of its own, so that no word mixes the
texts of two calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Holder
from rxflow.operators._core.calls import CallTracker, OpenCall
from rxflow.operators._core.in_run import add_context, get_span_id, get_text, replace_text, through
from rxflow.types import Cancelled, Failed, Finished, LLMStarted, Retracted

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
# Finds patterns with conditions on the text after a match. A match at the end of the text so far may change when more
# text arrives.
_SEES_THE_END = re.compile(r"\\[bBZzmMXR]|\$|\(\?!")
# Finds patterns for which every further character may change a match. Waiting for one more character does not help.
_FORBIDS_THE_END = re.compile(r"\\B|\(\?!(?:\\[bBZz]|\$)")
_FLAGS = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")


@cache
def load_regex() -> Any:
    """Return the ``regex`` package, imported by the first call. Unlike ``re``, it has graphemes and partial matches."""
    return import_module("regex")


class Shaper(Protocol):
    """Splits the text of one voice into new pieces."""

    def feed(self, text: str) -> Sequence[str]:
        """Add the next text. Return the pieces that are complete."""
        ...

    def flush(self) -> Sequence[str]:
        """Return the text that is still held. Call this when the voice has ended."""
        ...


class Voice(OpenCall):
    """The answer or the reasoning of one call, with a shaper. ``item`` is the last item of the voice so far."""

    __slots__ = ("_half", "shaper")

    def __init__(self, shaper: Shaper, item: object, key: Hashable) -> None:
        super().__init__(item, key)
        self.shaper = shaper
        self._half = ""

    def feed(self, text: str) -> Sequence[str]:
        """Add the next text, with surrogate pairs joined. Return the pieces that are complete."""
        if not text.isascii() or self._half:
            text, self._half = join_surrogates(self._half + text)
        return self.shaper.feed(text)

    def flush(self) -> Sequence[str]:
        """Return the text that is still held. Call this when the voice has ended."""
        if not self._half:
            return self.shaper.flush()
        half, self._half = self._half, ""
        return [*self.shaper.feed(half), *self.shaper.flush()]


def shape_text(make: Callable[[], Shaper]) -> Callable[[Observable[T]], Observable[T]]:
    r"""Create an operator that sends the text of each voice through a shaper of its own.

    Items without text pass unchanged. A voice ends in one of these cases:

    - Its call ends (see :class:`~rxflow.operators._core.calls.CallTracker`).
    - The call emits an item without text, for example a piece of a tool call.
    - The other voice of the call begins, for example the answer after the reasoning.
    - The stream ends.

    The rest of the text is emitted just before the item or terminal that ended the voice. An exception of a shaper ends
    the stream, and disposes the source. ``make`` must not raise. ::

        source     --he--WO--llo\n--RLD--|             (two voices, in lower and in upper case)
        lines()    ----------(hello\n)---(WORLD)|
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return Voices(make, observer).subscribe_to(source, scheduler)

        return Observable(subscribe)

    return through(operator)


class Voices:
    """The voices of one subscription: the answers and the reasoning of its calls.

    Subclasses override single methods, for example to read the text of other items, or to end voices later.
    """

    def __init__(self, make: Callable[[], Shaper], observer: ObserverBase[Any]) -> None:
        self.subscription = Holder()
        self.voices: CallTracker[Voice] = CallTracker()
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._find = self.voices.get
        self._source_error: Exception | None = None

    def subscribe_to(self, source: Observable[Any], scheduler: SchedulerBase | None) -> DisposableBase:
        """Subscribe to ``source``, and shape its text."""
        self.subscription.hold(source.subscribe(self.on_next, self.on_error, self.on_completed, scheduler=scheduler))
        return self.subscription

    def on_next(self, item: object) -> None:
        text = self.get_text(item)
        if text is None:
            if isinstance(item, LLMStarted):
                self.voices.announce(item)
            if not self.voices or self._end(self.find_interrupted(item)):
                self._emit(item)
            return
        key = self.get_key(item)
        voice = self._find(key) or self._begin(key, item)
        if voice is None:
            return
        voice.item = item
        try:
            pieces = voice.feed(text)
        except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
            self.fail(error)
            return
        for piece in pieces:
            self._emit(item if piece == text else self.replace_text(item, piece))

    def on_error(self, error: Exception) -> None:
        self._source_error = error
        if self._end(self.voices):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        if self._end(self.voices):
            self._observer.on_completed()

    def get_text(self, item: object) -> str | None:
        """Return the text to be shaped. Return None for an item without text, which is then passed on unchanged."""
        return get_text(item)

    def replace_text(self, item: object, text: str) -> object:
        """Return an item that equals ``item``, but has the text ``text``."""
        return replace_text(item, text)

    def get_key(self, item: object) -> Hashable:
        """Return the key of the voice to which an item with text belongs."""
        return get_span_id(item), type(item)

    def find_interrupted(self, item: object) -> Iterable[Voice]:
        """Return the voices that end because ``item`` arrives. This is called with items without text."""
        if isinstance(item, Finished | Failed | Cancelled | Retracted):
            return self.voices.find_ended(item)
        return self.voices.find_in_span(item)

    def find_superseded(self, voice: Voice) -> Iterable[Voice]:
        """Return the voices that end because ``voice`` begins."""
        return self.voices.find_superseded(voice)

    def emit_pieces(self, voice: Voice, pieces: Sequence[str]) -> None:
        """Emit pieces of a voice, with the labels of the last item of the voice."""
        for piece in pieces:
            self._emit(self.replace_text(voice.item, piece))

    def fail(self, error: Exception) -> None:
        """End the stream with ``error``, and dispose the source."""
        self.subscription.dispose()
        self.voices.clear()
        add_context(error, self._source_error)
        self._observer.on_error(error)

    def _begin(self, key: Hashable, item: object) -> Voice | None:
        """Open the voice of ``item``. Return None if another voice's shaper failed and so ended the stream."""
        voice = Voice(self._make(), item, key)
        if not self._end(self.find_superseded(voice)):
            return None
        return self.voices.add(voice)

    def _end(self, voices: Iterable[Voice]) -> bool:
        """End ``voices``, and emit the rest of their text. Return False if a shaper failed and so ended the stream."""
        for voice in voices:
            if not self.voices.remove(voice):
                continue  # during emit_pieces(), the observer made the source emit an item that ended this voice
            try:
                pieces = voice.flush()
            except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
                self.fail(error)
                return False
            self.emit_pieces(voice, pieces)
        return True


def join_surrogates(text: str) -> tuple[str, str]:
    r"""Join the surrogate pairs of ``text``.

    Return the joined text and the rest. If the text ends with the first half of a pair, this half is the rest.
    Otherwise the rest is "". ::

        join_surrogates("a\ud83d")          →  "a", "\ud83d"
        join_surrogates("\ud83d\ude00b")    →  "😀b", ""
    """
    if _SURROGATE.search(text) is None:
        return text, ""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return (whole[:-1], whole[-1]) if "\ud800" <= whole[-1] <= "\udbff" else (whole, "")


@cache
def compile_grapheme() -> Any:
    """Compile the pattern for one character as people see it: a grapheme cluster of UAX #29."""
    return load_regex().compile(r"\X")


def find_last_start(text: str) -> int:
    """Return the index at which the last character of ``text`` begins. The next text may extend this character."""
    end = text[-2:]
    if end.isascii():
        return len(text) - (2 if end == "\r\n" else 1) if text else 0
    start = 0
    for match in compile_grapheme().finditer(text):
        start = match.start()
    return start


def find_end_after(text: str, count: int) -> int:
    """Return the index after the first ``count`` code points. ``count`` is at least 1.

    If that index is inside a character, return the index after this character.
    """
    if count >= len(text):
        return len(text)
    if text.isascii():
        return count + (text[count - 1 : count + 1] == "\r\n")
    end = 0
    for match in compile_grapheme().finditer(text):
        end = match.end()
        if end >= count:
            break
    return end


class Characters:
    """Passes text on in pieces that end between two characters, never inside one.

    The last character is held, because an accent or the rest of an emoji may follow.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> Sequence[str]:
        """Add ``text`` to the held character. Return all but the last character."""
        text = self._held + text
        cut = find_last_start(text)
        self._held = text[cut:]
        return (text[:cut],) if cut else ()

    def flush(self) -> Sequence[str]:
        """Return the held character, if there is one."""
        held, self._held = self._held, ""
        return (held,) if held else ()


class TextPattern(Protocol):
    """A compiled pattern of ``re`` or ``regex``."""

    @property
    def pattern(self) -> str:
        """The pattern as text."""
        ...

    @property
    def flags(self) -> int:
        """The flags of the pattern."""
        ...


class PartialPattern:
    """Searches for a pattern in text that is still arriving, and finds where a match is not yet certain.

    The ``regex`` package does all matching, because ``re`` has no partial matches. The packages cannot be mixed: they
    disagree about letters, so a match could be certain for one package and unknown to the other.

    A second pattern, the twin, consists of the given pattern in an atomic group, and of something that never matches.
    So the twin has only partial matches. A partial match begins at the first index at which the given pattern needs
    more text. All matches that begin before that index are certain. The atomic group keeps ``regex`` from looking for
    other ways to match.

    A condition such as ``$`` depends on the next character. If the pattern has such a condition, the twin requires one
    more character after the pattern. The twin is then searched for twice: in the whole text, and in the text without
    its last character. The smaller index counts. For ``\\B`` and similar conditions, even that is not enough. If the
    pattern has one of these, no match that begins in the last ``window`` characters is certain.

    Raises:
        TypeError: ``pattern`` is not a string, and was not compiled from a string.
        ValueError: ``pattern`` does not compile, or matches the empty text.
    """

    def __init__(self, pattern: str | TextPattern, *, window: int) -> None:
        given, flags = _read_pattern(pattern)
        try:
            self._pattern: Any = load_regex().compile(given, flags)
            # If a verbose pattern ends with a comment, the line break ends the comment.
            end = "\n" if self._pattern.flags & load_regex().VERBOSE else ""
            self._sees_the_end = _SEES_THE_END.search(given) is not None
            one_more = "(?s:.)" if self._sees_the_end else ""
            self._twin: Any = load_regex().compile(f"(?>{given}{end}){one_more}(?!)", flags)
        except load_regex().error as error:
            raise ValueError(f"{given!r} is not a regular expression: {error}") from error
        if self._pattern.match("") is not None:
            raise ValueError(f"{given!r} matches the empty text, so it would match everywhere")
        self._window = window if _FORBIDS_THE_END.search(given) is not None else 0

    def search(self, text: str, start: int) -> re.Match[str] | None:
        """Search from the index ``start``. Return the first match that is not empty; None if there is none."""
        match = self._pattern.search(text, start)
        while match is not None and match.end() == match.start():
            match = self._pattern.search(text, match.end() + 1) if match.end() < len(text) else None
        return cast("re.Match[str] | None", match)

    def find_uncertain(self, text: str, start: int) -> int:
        """Return the index at which the first uncertain match begins. Look only at ``start`` and later indexes.

        A match is uncertain if later text may create, change or prevent it. If all matches are certain, return
        ``len(text)``.
        """
        found = self._twin.search(text, start, partial=True)
        index = len(text) if found is None else found.start()
        if self._sees_the_end and len(text) > start:
            found = self._twin.search(text, start, len(text) - 1, partial=True)
            index = min(index, found.start())
        if self._window:
            index = min(index, max(start, len(text) - self._window))
        return index

    def is_open(self, text: str, start: int) -> bool:
        """Return whether an unfinished match may begin at ``start`` or later. An unfinished match needs more text."""
        found = self._twin.search(text, start, partial=True)
        return found is not None and found.start() < len(text)


def _read_pattern(pattern: str | TextPattern) -> tuple[str, int]:
    """Return the text of a pattern, and the flags of the pattern as flags of ``regex``."""
    if isinstance(pattern, str):
        return pattern, 0
    kind = cast(object, type(pattern))
    text: object = pattern.pattern if kind in (re.Pattern, load_regex().Pattern) else None
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a string, or one that was compiled from a string; got {pattern!r}")
    if kind is re.Pattern:
        return text, sum(getattr(load_regex(), name) for name in _FLAGS if pattern.flags & getattr(re, name))
    return text, pattern.flags
