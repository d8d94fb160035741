"""``redact``: what matches a pattern is not shown, wherever chunks are cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.characters import Characters
from rxflow.operators._core.lift import through
from rxflow.operators._core.partial_match import PartialPattern, TextPattern
from rxflow.operators._core.texts import place_of, text_of, with_text
from rxflow.operators._core.voices import Key, Voice, Voices
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Failed, Finished, LLMFailed, LLMFinished, Retracted

T = TypeVar("T")

_Replacement: TypeAlias = str | Callable[[re.Match[str]], str]


def redact(
    pattern: str | TextPattern,
    replacement: str | Callable[[re.Match[str]], str] = "[redacted]",
    *,
    hold_back: int = 512,
) -> Callable[[Observable[T]], Observable[T]]:
    r"""Replace what matches ``pattern``, also where it is spread over several chunks.

    The result is that of ``sub`` on the whole text, with the ``regex`` package, which reads the patterns of ``re`` and
    knows more of Unicode. Only what may still become a match is held back, and the last
    character, which may go on. ``replacement`` is taken as it is, or is a function of the match. Empty matches count
    for nothing.

    Answers, reasoning and the arguments of tool calls are redacted, each call by itself; so is what ``LLMFinished`` and
    ``LLMFailed`` repeat. This is about what is shown: tools get their arguments, and tasks their results, as the model
    gave them, and so do the other events. What is held back stays so while other things come, such as a tool call in
    the midst of the text; it comes when it can be no match any more, or the call ends, or the source does, by error
    too.

    ``hold_back`` bounds what is held, in characters. Where more of it may become a match, all of it is replaced by
    ``"[redacted]"`` (or ``replacement``, where that is text), and nothing more of that text is shown until its call
    ends: what cannot be judged is not let through. So bound the pattern (``\S{1,100}`` rather than ``\S+``), or raise
    ``hold_back`` to the longest match. A pattern with ``\B``, or with an end forbidden (``(?!$)``), can only be judged
    with what follows: with such a one so many characters are always held. What lies farther back than ``hold_back``
    characters is out of sight for lookbehinds. ::

        source               --card 12---34 ok--|
        redact(r"\d{4}")     --car-------d [redacted] o-(k)|

    Example::

        flow.observe().pipe(ops.redact(r"\b\d{3}-\d{2}-\d{4}\b"))

    Raises:
        TypeError: ``pattern`` is no text pattern.
        ValueError: ``pattern`` is no regular expression or matches the empty text; ``hold_back`` is not above 0.
    """
    positive(hold_back, "redact(hold_back)", "characters")
    wanted = PartialPattern(pattern, window=hold_back)

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            voices = _RedactedVoices(wanted, replacement, hold_back, observer)
            voices.subscription.disposable = source.subscribe(
                voices.on_next, voices.on_error, voices.on_completed, scheduler=scheduler
            )
            return voices.subscription

        return Observable(subscribe)

    return through(operator)


class _RedactedVoices(Voices):
    """Voices that end with their call only: what is held must not come out because something else came between."""

    def __init__(
        self, pattern: PartialPattern, replacement: _Replacement, hold_back: int, observer: ObserverBase[Any]
    ) -> None:
        super().__init__(lambda: _Redactor(pattern, replacement, hold_back), observer)
        self._pattern = pattern
        self._replacement = replacement

    def on_next(self, item: object) -> None:
        if isinstance(item, LLMFinished | LLMFailed):
            try:
                item = self._without(item)
            except Exception as error:  # noqa: BLE001 - users' replacement raised: it is the stream's terminal
                self.fail(error)
                return
        super().on_next(item)

    def text_of(self, item: object) -> str | None:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            return item.tool_call.arguments or None
        return text_of(item)

    def with_text(self, item: object, text: str) -> object:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            call = item.tool_call.model_copy(update={"arguments": text})
            return item.model_copy(update={"content": text, "tool_call": call})
        return with_text(item, text)

    def key_of(self, item: object) -> Key:
        if isinstance(item, StreamChunk) and item.tool_call is not None:
            return place_of(item), item.tool_call.index
        return place_of(item), type(item)

    def ended_by(self, item: object) -> list[Key]:
        at_its_place = super().ended_by(item)
        if isinstance(item, Finished | Failed | Retracted):
            return at_its_place
        self._settle(at_its_place)
        return []

    def left_for(self, key: Key, voice: Voice) -> list[Key]:
        self._settle(super().left_for(key, voice))
        return []

    def _settle(self, keys: Sequence[Key]) -> None:
        """Show what is complete, as something else comes now."""
        for key in keys:
            voice = self.voices[key]
            if isinstance(voice.shaper, _Redactor):
                self.give(voice, voice.shaper.settle())

    def _without(self, item: LLMFinished | LLMFailed) -> LLMFinished | LLMFailed:
        if isinstance(item, LLMFailed):
            return replace(item, text=self._redacted(item.text))
        return replace(
            item,
            text=self._redacted(item.text),
            reasoning=self._redacted(item.reasoning),
            tool_calls=tuple(replace(call, arguments=self._redacted(call.arguments)) for call in item.tool_calls),
        )

    def _redacted(self, text: str) -> str:
        return "".join(_replaced(self._pattern, self._replacement, text, 0, len(text))[0])


class _Redactor:
    """Redacts one text. Of what has been decided, ``hold_back`` characters stay in sight for lookbehinds."""

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
        parts, self._decided = _replaced(
            self._pattern, self._replacement, seen, self._decided, self._pattern.open_from(seen, self._decided)
        )
        if len(seen) - self._decided > self._hold_back:
            parts.append(self._replacement if isinstance(self._replacement, str) else "[redacted]")
            self._is_withheld = True
            self._decided = len(seen)
        forgotten = self._decided - self._hold_back
        if forgotten > self._hold_back:
            seen = seen[forgotten:]
            self._decided = self._hold_back
        self._seen = seen
        return self._characters.feed("".join(parts))

    def settle(self) -> Sequence[str]:
        """Show what is complete, up to the last character, unless something of it may still become a match."""
        if self._is_withheld or self._pattern.is_open(self._seen, self._decided):
            return ()
        rest, self._decided = self._seen[self._decided :], len(self._seen)
        return _one(*self._characters.feed(rest), *self._characters.flush())

    def flush(self) -> Sequence[str]:
        parts, _ = _replaced(self._pattern, self._replacement, self._seen, self._decided, len(self._seen))
        return _one(*self._characters.feed("".join(parts)), *self._characters.flush())


def _replaced(
    pattern: PartialPattern, replacement: _Replacement, text: str, start: int, certain: int
) -> tuple[list[str], int]:
    """``text`` from ``start`` on, redacted, up to where it is ``certain``; and up to where that is."""
    parts: list[str] = []
    match = pattern.search(text, start)
    while match is not None and match.start() < certain:
        parts += text[start : match.start()], replacement if isinstance(replacement, str) else replacement(match)
        start = match.end()
        if start > certain:
            certain = pattern.open_from(text, start)
        match = pattern.search(text, start)
    if start < certain:
        parts.append(text[start:certain])
        start = certain
    return parts, start


def _one(*pieces: str) -> Sequence[str]:
    """At most one piece."""
    text = "".join(pieces)
    return (text,) if text else ()
