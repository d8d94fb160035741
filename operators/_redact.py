"""``redact``: replaces matches of a pattern, even across chunk boundaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core import (
    Characters,
    PartialPattern,
    TextPattern,
    Voice,
    Voices,
    check_count,
    get_span_id,
    get_text,
    replace_text,
    through,
)
from rxflow.types import Cancelled, Failed, Finished, LLMCancelled, LLMFailed, LLMFinished, Retracted, StreamChunk

T = TypeVar("T")

_Replacement: TypeAlias = str | Callable[[re.Match[str]], str]
_CallEnd: TypeAlias = LLMFinished | LLMFailed | LLMCancelled


def redact(
    pattern: str | TextPattern,
    replacement: str | Callable[[re.Match[str]], str] = "[redacted]",
    *,
    hold_back: int = 512,
) -> Callable[[Observable[T]], Observable[T]]:
    r"""Replace all matches of ``pattern`` (like ``map`` with ``re.sub``), even across chunk boundaries.

    The result is as if the whole text were searched at once. Empty matches in the text, for example those of ``\b``,
    are ignored. ``replacement`` is a string that is inserted literally, or a function that gets the match and returns a
    string. The ``regex`` package does the matching. It accepts the patterns of ``re`` and supports more of Unicode.

    Answers, reasoning and the arguments of tool calls are redacted, separately in each LLM call. Their copies in
    ``LLMFinished``, ``LLMFailed`` and ``LLMCancelled`` are redacted too. All other events stay unchanged. The redaction
    changes only the items of the stream: tools and tasks still get what the model wrote.

    Text is held back while it may still become a match, even if other items follow, such as a tool call in the middle
    of the text. The held text is emitted when it can no longer become a match, when the call ends, or when the source
    completes or fails. The last character is held too, because an accent or the rest of an emoji may follow.

    ``hold_back`` limits the held text, in characters. If a longer text may still become a match, it is replaced by
    ``"[redacted]"``, or by ``replacement`` if that is a string. The rest of that answer, reasoning or arguments is then
    dropped, because it may belong to the match. To avoid this, limit the pattern (``\S{1,100}`` rather than ``\S+``),
    or raise ``hold_back`` to the length of the longest match. A pattern with ``\B``, or one that forbids the end of the
    text (``(?!$)``), depends on the text that follows. With such a pattern, the last ``hold_back`` characters are
    always held. A lookbehind sees at least the last ``hold_back`` characters before the match. ::

        source               --card 12---34 ok----------|        (two chunks; the last character waits)
        redact(r"\d{4}")     --card------ [redacted] o--(k)|

    Example::

        flow.observe().pipe(ops.redact(r"\b\d{3}-\d{2}-\d{4}\b"))

    Raises:
        TypeError: ``pattern`` is neither a string nor a pattern that was compiled from a string, ``replacement`` is
            neither a string nor a function, or ``hold_back`` is not an integer. If the function returns something other
            than a string, the stream ends with a TypeError.
        ValueError: ``pattern`` is not a regular expression, ``pattern`` matches the text "" (as ``x*`` does), or
            ``hold_back`` is not above 0.
    """
    if not (isinstance(replacement, str) or callable(replacement)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"redact(replacement) takes a string, or a function of the match; got {replacement!r}")
    check_count(hold_back, "redact(hold_back)", 1)
    partial = PartialPattern(pattern, window=hold_back)

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return _RedactedVoices(partial, replacement, hold_back, observer).subscribe_to(source, scheduler)

        return Observable(subscribe)

    return through(operator)


class _RedactedVoices(Voices):
    """Voices that last until their call ends or is retracted.

    Other items, such as a tool call, must not release text that may still become a match.
    """

    def __init__(
        self, pattern: PartialPattern, replacement: _Replacement, hold_back: int, observer: ObserverBase[Any]
    ) -> None:
        super().__init__(lambda: _Redactor(pattern, replacement, hold_back), observer)
        self._pattern = pattern
        self._replacement = replacement

    def on_next(self, item: object) -> None:
        if isinstance(item, LLMFinished | LLMFailed | LLMCancelled):
            try:
                item = self._redact_event(item)
            except Exception as error:  # noqa: BLE001 - an error of the user's replacement is the stream's terminal
                self.fail(error)
                return
        super().on_next(item)

    def get_text(self, item: object) -> str | None:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            return item.tool_call.arguments or None
        return get_text(item)

    def replace_text(self, item: object, text: str) -> object:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            call = item.tool_call.model_copy(update={"arguments": text})
            return item.model_copy(update={"content": text, "tool_call": call})
        return replace_text(item, text)

    def get_key(self, item: object) -> Hashable:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            return get_span_id(item), item.tool_call.index
        return get_span_id(item), type(item)

    def find_interrupted(self, item: object) -> Iterable[Voice]:
        interrupted = super().find_interrupted(item)
        if isinstance(item, Finished | Failed | Cancelled | Retracted):
            return interrupted
        self._settle(interrupted)
        return ()

    def find_superseded(self, voice: Voice) -> Iterable[Voice]:
        self._settle(super().find_superseded(voice))
        return ()

    def _settle(self, voices: Iterable[Voice]) -> None:
        """Emit the held text of each voice, unless a part of that text may still become a match."""
        for voice in voices:
            if isinstance(voice.shaper, _Redactor):
                self.emit_pieces(voice, voice.shaper.settle())

    def _redact_event(self, item: _CallEnd) -> _CallEnd:
        if not isinstance(item, LLMFinished):
            return replace(item, text=self._redact(item.text))
        return replace(
            item,
            text=self._redact(item.text),
            reasoning=self._redact(item.reasoning),
            refusal=self._redact(item.refusal),
            tool_calls=tuple(replace(call, arguments=self._redact(call.arguments)) for call in item.tool_calls),
            message=self._redact_values(item.message),
        )

    def _redact_values(self, value: Any) -> Any:
        """Return a redacted copy of ``value``, a part of the provider's message. The keys of dicts stay unchanged."""
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, Mapping):
            return {key: self._redact_values(each) for key, each in cast("Mapping[str, Any]", value).items()}
        if isinstance(value, list | tuple):
            return [self._redact_values(each) for each in cast("Sequence[Any]", value)]
        return value

    def _redact(self, text: str) -> str:
        return "".join(_replace_matches(self._pattern, self._replacement, text, 0, len(text))[0])


class _Redactor:
    """Redacts the text of one voice.

    At least the last ``hold_back`` characters before the undecided text are kept, because a lookbehind may need them.
    """

    def __init__(self, pattern: PartialPattern, replacement: _Replacement, hold_back: int) -> None:
        self._pattern = pattern
        self._replacement = replacement
        self._hold_back = hold_back
        self._seen = ""
        self._decided = 0
        self._characters = Characters()
        self._is_withheld = False

    def feed(self, text: str) -> Sequence[str]:
        if self._is_withheld:
            return ()
        seen = self._seen + text
        parts, self._decided = _replace_matches(
            self._pattern, self._replacement, seen, self._decided, self._pattern.find_uncertain(seen, self._decided)
        )
        if len(seen) - self._decided > self._hold_back:
            parts.append(self._replacement if isinstance(self._replacement, str) else "[redacted]")
            self._is_withheld = True
            self._decided = len(seen)
        surplus = self._decided - self._hold_back
        if surplus > self._hold_back:
            seen = seen[surplus:]
            self._decided = self._hold_back
        self._seen = seen
        return self._characters.feed("".join(parts))

    def settle(self) -> Sequence[str]:
        """Return all held text, including the last character; nothing if a part of the text may become a match."""
        if self._is_withheld or self._pattern.is_open(self._seen, self._decided):
            return ()
        rest, self._decided = self._seen[self._decided :], len(self._seen)
        return _join(*self._characters.feed(rest), *self._characters.flush())

    def flush(self) -> Sequence[str]:
        parts, _ = _replace_matches(self._pattern, self._replacement, self._seen, self._decided, len(self._seen))
        return _join(*self._characters.feed("".join(parts)), *self._characters.flush())


def _replace_matches(
    pattern: PartialPattern, replacement: _Replacement, text: str, start: int, certain: int
) -> tuple[list[str], int]:
    """Redact ``text`` from ``start`` up to index ``certain``.

    Return the redacted parts and the index where the redaction stopped. This index is above ``certain`` if a match goes
    beyond ``certain``.
    """
    parts: list[str] = []
    match = pattern.search(text, start)
    while match is not None and match.start() < certain:
        parts += text[start : match.start()], _create_replacement(replacement, match)
        start = match.end()
        if start > certain:
            certain = pattern.find_uncertain(text, start)
        match = pattern.search(text, start)
    if start < certain:
        parts.append(text[start:certain])
        start = certain
    return parts, start


def _create_replacement(replacement: _Replacement, match: re.Match[str]) -> str:
    if isinstance(replacement, str):
        return replacement
    text = replacement(match)
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"redact: the function of the match must return a string; it returned {text!r}")
    return text


def _join(*pieces: str) -> Sequence[str]:
    text = "".join(pieces)
    return (text,) if text else ()
