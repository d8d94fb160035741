"""Server-sent events: from network reads to the JSON of each event, and what all wires that use them share.

The rules are those of the HTML standard, section 9.2.6, for the fields ``data`` and ``event``; llama.cpp's field
``error`` is an error event. OpenAI's own decoder takes 3.4 µs an event, this one 0.5 µs.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, TypeVar, cast

from pydantic_core import from_json

from rxflow._json_text import encodable
from rxflow.llm.source import Delta, Ending, ReasoningDelta, RefusalDelta, ToolCallDelta
from rxflow.types import UsageMetrics

T = TypeVar("T")

_CR = 13  # a number: searching bytes for an int is six times as fast as for bytes, and each read is searched
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_EVENT_BYTES = 4 * 1024 * 1024  # a server that never ends a line must not fill the memory
_MAX_QUOTED_CHARACTERS = 200
REPLACEMENT = "\ufffd"
_FIRST_HALVES = ("\ud800", "\udbff")  # of a character beyond the first 65,536, in UTF-16
_MAX_TEMPLATES = 8  # to learn of one answer: events of some servers differ in more than their text


class OversizedEvent(ValueError):
    """An event is larger than any answer is."""


class MalformedEvent(ValueError):
    """An event of the stream is not what this provider's API sends.

    The error keeps the whole event, and ``str()`` quotes its beginning. The whole is kept because keys are masked in it
    later: a key that the quotation cuts in two could not be found.
    """

    def __init__(self, message: str, event: str = "") -> None:
        super().__init__(message, event)

    def __str__(self) -> str:
        message, event = self.args
        return f"{message}: {event[:_MAX_QUOTED_CHARACTERS]}" if event else str(message)


class ErrorEvent(Exception):
    """An error that the provider sent as an event; ``body`` is its JSON."""

    def __init__(self, body: object) -> None:
        super().__init__(body)
        self.body: Any = body

    def __str__(self) -> str:
        body: object = self.body
        message = cast(dict[str, Any], body).get("message") if isinstance(body, dict) else None
        return str(message or cast(object, body))


class EventSplitter(Protocol):
    """Cuts network reads of any size into the JSON of whole events."""

    def feed(self, block: bytes) -> Iterator[bytes | bytearray]:
        """The events that ``block`` completes. Raises :class:`OversizedEvent`."""
        ...

    def flush(self) -> Iterator[bytes | bytearray]:
        """The event that the end of the body completes, if there is one."""
        ...


class Wire(ABC):
    """Reads one answer, in one provider's format, out of network reads.

    A subclass implements :meth:`read`, which gets each event as a JSON object. What the answer says beside its deltas
    is kept here, for the :class:`~rxflow.llm.source.Ending` of the call.

    Args:
        events: how the body is cut into events; None for server-sent events.
        joins_halves: join the halves of characters from the start, and not only once an event has one.

    Attributes:
        finish_reason: in OpenAI's words; None until the provider says it, and if it never does.
        is_complete: the provider has said that the answer is complete: what follows is at most the usage.
        is_done: nothing follows.
        is_empty: no event has come.
        usage: what the provider reported, None until it does.
        message: fields that have to go back with the assistant's message, see :class:`~rxflow.llm.source.Ending`.
        response_id, response_model: the provider's names of this answer and of the model that gave it.
    """

    def __init__(self, events: EventSplitter | None = None, *, joins_halves: bool = False) -> None:
        self.finish_reason: str | None = None
        self.is_complete = False
        self.is_done = False
        self.is_empty = True
        self.usage: UsageMetrics | None = None
        self.message: dict[str, Any] = {}
        self.response_id = ""
        self.response_model = ""
        self._events = events or EventData()
        self._joiner: SurrogateJoiner | None = SurrogateJoiner() if joins_halves else None
        self._template: TextTemplate | None = None
        self._templates_left = _MAX_TEMPLATES

    def feed(self, block: bytes, batch: list[Delta]) -> None:
        """Add the deltas that ``block`` completes to ``batch``, those before a malformed event too.

        Raises:
            MalformedEvent, OversizedEvent, ErrorEvent: see there.
        """
        self._read_all(self._events.feed(block), batch)

    def flush(self, batch: list[Delta]) -> None:
        """The body has ended: read a last event that has no blank line."""
        self._read_all(self._events.flush(), batch)

    def end(self, usage: UsageMetrics, cost: float | None) -> Ending:
        """The last delta of the answer."""
        return Ending(self.finish_reason, usage, cost, self.message, self.response_id, self.response_model)

    @abstractmethod
    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        """Add the deltas of one event to ``batch``. AttributeError and TypeError report an unknown shape."""

    def find_text(self, event: dict[str, Any]) -> str | None:
        """Return the text of ``event`` if the same event with another text would mean only that text."""
        return None

    def _read_all(self, events: Iterator[bytes | bytearray], batch: list[Delta]) -> None:
        for data in events:
            if self._template is not None and self._joiner is None and (text := self._template.match(data)):
                batch.append(text)
                continue
            event = self._parse(data)
            if event is None:
                self.close_texts(batch)
                self.is_done = self.is_complete = True
                return
            self.is_empty = False
            if event.get("error"):
                raise ErrorEvent(event["error"])
            try:
                self.read(event, batch)
            except (AttributeError, TypeError, KeyError) as cause:
                raise MalformedEvent(f"an event of the stream has an unknown shape ({cause})", str(event)) from cause
            if self.is_done:
                return
            if self._templates_left and self._joiner is None and isinstance(text := self.find_text(event), str):
                self._templates_left -= 1
                self._template = TextTemplate.learn(data, text, self.find_text)

    def _parse(self, data: bytes | bytearray) -> dict[str, Any] | None:
        """One event as JSON; None for ``[DONE]``, which ends the stream."""
        try:
            event: dict[str, Any] = from_json(data)
        except ValueError as error:
            if data.lstrip().startswith(b"[DONE]"):  # not JSON, so every other event is spared this look
                return None
            if b"\\u" not in data:
                raise _not_json(data, error) from error
            # pydantic's parser refuses the halves of surrogate pairs, which are valid JSON.
            event = _parse_with_surrogates(data)
            self._joiner = self._joiner or SurrogateJoiner()
        if type(event) is not dict:
            raise MalformedEvent("an event of the stream is not a JSON object", _quote(data))
        return event

    def join(self, text_name: Hashable, text: str) -> str:
        """``text`` as the next piece of the text called ``text_name``, without half a character at its end.

        Names are "content", "reasoning", "refusal", and for the arguments of a tool call its index.
        """
        return text if self._joiner is None else self._joiner.join(text_name, text)

    def add_text(self, text: Any, batch: list[Delta]) -> None:
        """Add the next piece of the answer's text. TypeError if it is not a string."""
        if type(text) is not str:
            raise TypeError(f"text is not a string: {text!r}")
        text = self.join("content", text)
        if text:
            batch.append(text)

    def close_texts(self, batch: list[Delta]) -> None:
        """``[DONE]`` has come: show and keep what an event with a finish reason would have had shown and kept."""
        self.replace_halves(batch)

    def replace_halves(self, batch: list[Delta]) -> None:
        """The texts have ended: show half a character that still waits as :data:`REPLACEMENT`."""
        if self._joiner is not None:
            batch.extend(map(_replace_half, self._joiner.take_unfinished()))


class TextTemplate:
    """An event of which everything but the text is known, so that events like it need no parsing.

    Most servers send thousands of events that differ in their text only. Comparing the bytes around it takes a fifth of
    the time that parsing them takes.
    """

    __slots__ = ("_prefix", "_suffix")

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self._prefix = prefix
        self._suffix = suffix

    @classmethod
    def learn(
        cls, data: bytes | bytearray, text: str, find_text: Callable[[dict[str, Any]], str | None]
    ) -> TextTemplate | None:
        """The template of ``data``, whose text is ``text``. None if the place of the text in it is not certain."""
        prefix, found, suffix = bytes(data).partition(b'"%s"' % text.encode())
        if not found:
            return None
        template = cls(prefix + b'"', b'"' + suffix)
        probe = f"not {text}"
        try:
            is_text = find_text(from_json(template._prefix + probe.encode() + template._suffix)) == probe
        except ValueError:
            return None
        return template if is_text else None

    def match(self, data: bytes | bytearray) -> str | None:
        """The text of ``data``; None if it has to be parsed: another event, an escape, an empty text."""
        prefix, suffix = self._prefix, self._suffix
        if not (data.startswith(prefix) and data.endswith(suffix)):
            return None
        content = data[len(prefix) : -len(suffix)]
        if b'"' in content or b"\\" in content or len(data) <= len(prefix) + len(suffix):
            return None
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None


def check(kind: type[T], what: str, value: object) -> T:
    """``value``, which has to be a ``kind``. TypeError otherwise."""
    if not isinstance(value, kind):
        raise TypeError(f"{what} is not {_JSON_NAMES.get(kind, kind.__name__)}: {value!r}")
    return value


_JSON_NAMES: dict[type, str] = {str: "a string", int: "an integer", list: "a list", dict: "an object"}


def get_object(holder: object, name: str) -> dict[str, Any]:
    """The JSON object called ``name`` in ``holder``; an empty one if there is none."""
    value: object = cast(dict[str, Any], holder).get(name) if isinstance(holder, dict) else None
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def add_up(
    prompt: int | None,
    completion: int | None,
    total: int | None = None,
    *,
    cached_prompt_tokens: int | None = None,
    cache_creation_tokens: int | None = None,
    reasoning_tokens: int | None = None,
) -> UsageMetrics | None:
    """Make a usage of what a provider counted: a total that it leaves out is the sum. None if it counted nothing."""
    if prompt is None and completion is None and total is None:
        return None
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    return UsageMetrics(
        total_tokens=total,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_prompt_tokens=cached_prompt_tokens,
        cache_creation_tokens=cache_creation_tokens,
        reasoning_tokens=reasoning_tokens,
    )


def count(reported: object, name: str) -> int | None:
    """A number of tokens; None if it is not reported. Nonsense counts as not reported: the answer matters more."""
    value: object = cast(dict[str, Any], reported).get(name) if isinstance(reported, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < float("inf") else None


def _replace_half(text_name: Hashable) -> Delta:
    """The delta with the replacement for half a character at the end of the text called ``text_name``."""
    match text_name:
        case "content":
            return REPLACEMENT
        case "reasoning":
            return ReasoningDelta(REPLACEMENT)
        case "refusal":
            return RefusalDelta(REPLACEMENT)
        case _:
            return ToolCallDelta(cast(int | None, text_name), arguments=REPLACEMENT)


def _parse_with_surrogates(data: bytes | bytearray) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_json(data, error) from error


def _not_json(data: bytes | bytearray, error: Exception) -> MalformedEvent:
    return MalformedEvent(f"an event of the stream is not JSON ({error})", _quote(data))


def _quote(data: bytes | bytearray) -> str:
    return repr(data.decode(errors="replace"))


class EventData:
    """Cuts reads of any size into the data of whole events."""

    __slots__ = ("_data", "_has_begun", "_is_after_cr", "_is_error", "_rest")

    def __init__(self) -> None:
        self._is_error = False
        self._rest: bytes | bytearray = b""
        self._data: bytes | bytearray | None = None
        self._has_begun = False
        self._is_after_cr = False

    def feed(self, block: bytes) -> Iterator[bytes | bytearray]:
        """The data of the events that ``block`` completes. Raises :class:`OversizedEvent`."""
        if not self._has_begun:
            block = self._without_mark(block)
        lines = self._lines(block) if _CR in block or self._is_after_cr else block.split(b"\n")
        rest = lines.pop()
        data = self._data
        if lines:
            if self._rest:
                lines[0] = bytes(self._rest) + lines[0]
            self._rest = rest
            for line in lines:
                if line.startswith(b"data:"):
                    data = line[5:] if data is None else _extend(data, b"\n" + line[5:])
                elif not line:
                    if data is not None:
                        if self._is_error:
                            raise ErrorEvent(_error_body(data))
                        if data and not data.isspace():  # without data it only keeps the connection open
                            yield data
                        data = None
                    self._is_error = False
                elif line.startswith((b"event:", b"error:")):
                    if line.startswith(b"error:"):
                        self._is_error = True
                        data = line[6:]
                    else:
                        self._is_error = line[6:].strip() == b"error"
            self._data = data
        else:
            self._rest = _extend(self._rest, rest)
        if (rest or data) and len(self._rest) + len(data or b"") > MAX_EVENT_BYTES:
            raise OversizedEvent(f"an event of the stream has more than {MAX_EVENT_BYTES:,} bytes")

    def _without_mark(self, block: bytes) -> bytes:
        """``block`` without a byte order mark at the beginning of the stream."""
        begun = bytes(self._rest) + block
        if len(begun) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(begun):
            return block  # all of it is held, and looked at again
        self._has_begun = True
        self._rest = b""
        return begun.removeprefix(BYTE_ORDER_MARK)

    def _lines(self, block: bytes) -> list[bytes]:
        """The lines of ``block``, which end in CR, LF or both, and the last one without its end."""
        if self._is_after_cr and block:
            block = block.removeprefix(b"\n")
            self._is_after_cr = False
        lines = block.splitlines()
        if block.endswith(b"\r"):
            self._is_after_cr = True
            lines.append(b"")
        elif not block or block.endswith(b"\n"):
            lines.append(b"")
        return lines

    def flush(self) -> Iterator[bytes | bytearray]:
        """The last event, which may have no blank line."""
        yield from self.feed(b"\n\n")


def _extend(held: bytes | bytearray, more: bytes) -> bytearray:
    """``held + more`` without a copy of ``held`` each time: an event of megabytes comes in thousands of pieces."""
    extended = held if isinstance(held, bytearray) else bytearray(held)
    extended += more
    return extended


def _error_body(data: bytes | bytearray) -> object:
    """The body of an error event: the error inside its JSON, else the JSON, else its text."""
    try:
        said: object = from_json(data)
    except ValueError:
        return data.decode(errors="replace").strip()
    error = cast(dict[str, Any], said).get("error") if isinstance(said, dict) else None
    return error or cast(object, said)


class SurrogateJoiner:
    """Joins the halves of characters, text by text. A half without the other becomes the replacement character.

    Servers that count in UTF-16, for example those in JavaScript and Java, may send the halves of an emoji in two
    events. Neither half can be printed or sent on as JSON. So the first half waits for the second.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str] = {}

    def join(self, text_name: Hashable, text: str) -> str:
        """``text`` as the next piece of the text called ``text_name``, without a first half at its end."""
        if text.isascii() and text_name not in self._waiting:
            return text
        text = self._waiting.pop(text_name, "") + text
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[text_name] = text[-1]
            text = text[:-1]
        return encodable(text)

    def take_unfinished(self) -> list[Hashable]:
        """The names of the texts that end in a first half; they are forgotten."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting)
