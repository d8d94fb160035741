"""JSON that a model is still writing: what it says so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from rxflow._json_text import find_json, has_fields
from rxflow.operators._core.text import join_surrogates

V = TypeVar("V")

_FINENESS = 128  # a text is read again when it has grown by this part of its length


def parse(text: str, *, partial: bool = False) -> Any:
    """Parse JSON; with ``partial``, as far as it goes. Raises ValueError if it is not JSON."""
    # As bytes: pydantic refuses a str with half a surrogate pair as "not a string".
    return from_json(text.encode(errors="surrogatepass"), allow_partial="trailing-strings" if partial else False)


def read_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; an empty text is an empty object. Raises ValueError for anything else."""
    data = parse(text.strip() or "{}")
    if not isinstance(data, dict):
        raise ValueError(f"not a JSON object: {text!r}")
    return cast(dict[str, Any], data)


class GrowingJson(Generic[V]):
    """JSON that arrives piece by piece, with words around it perhaps, read as far as it goes.

    ``read`` makes a value of JSON text, or raises ValidationError if it is not enough for one. Reading takes time for
    the whole text so far, so a long one is not read at every piece: all of it together costs as much as reading the
    final text some hundred times. If a second object follows the first, the values are those of the second.
    """

    def __init__(self, read: Callable[[str], V]) -> None:
        self._read = read
        self._pieces: list[str] = []
        self._length = 0
        self._due = 0
        self._start = 0  # what stands before this is whole, and has been read
        self._seen = b""
        self._accepted = b""
        self._last: V | None = None

    @property
    def text(self) -> str:
        """What has arrived."""
        text = "".join(self._pieces)
        return text if text.isascii() else "".join(join_surrogates(text))

    def feed(self, piece: str) -> Sequence[V]:
        """Take the next piece; return the value so far if it has changed."""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length < self._due:
            return ()
        self._due = self._length + self._length // _FINENESS
        text = self.text
        self._pieces = [text]
        values: list[V] = []
        for data in self._read_spans(text):
            values += self._grown(data)
        return values

    def _read_spans(self, text: str) -> Iterator[Any]:
        """Read each object or list that is new, or longer than before."""
        for span in find_json(text, self._start):
            self._start = span.start if span.end is None else span.end
            try:
                data = _so_far(text[span.start :]) if span.end is None else parse(text[span.start : span.end])
            except ValueError:
                continue
            yield data

    def _grown(self, data: Any) -> Sequence[V]:
        seen = to_json(data)
        if seen == self._seen:
            return ()
        self._seen = seen
        for candidate in _less_and_less(data):
            written = to_json(candidate)
            if written == self._accepted:
                break
            try:
                value = self._read(written.decode())
            except ValidationError:  # what is at the growing edge may not be whole enough
                continue
            if self._last is not None and not has_fields(value):
                break  # an object that follows the answer, in a note for instance
            self._accepted = written
            return self.if_new(value)
        return ()

    def if_new(self, value: V) -> Sequence[V]:
        """Return ``value`` if it differs from the one before."""
        if value == self._last:
            return ()
        self._last = value
        return (value,)


def _so_far(text: str) -> Any:
    """Read the beginning of an object or a list. Raises ValueError if it cannot be read up to here."""
    data = parse(text, partial=True)
    if text[-1].isdigit() and isinstance(_edge_of(data), int | float):
        # More digits may follow, and 1 is not an early form of 12. With an open exponent it is left out.
        data = parse(text + "e", partial=True)
    return data


def _containers(data: Any) -> Iterator[dict[str, Any] | list[Any]]:
    """The objects and lists that are still growing, the outermost first: each is the last thing in the one before."""
    while isinstance(data, dict | list) and data:
        container = cast(dict[str, Any] | list[Any], data)
        yield container
        data = container[next(reversed(container))] if isinstance(container, dict) else container[-1]


def _edge_of(data: Any) -> Any:
    """Return the value that is being written."""
    for container in _containers(data):
        data = container[next(reversed(container))] if isinstance(container, dict) else container[-1]
    return data


def _less_and_less(data: Any) -> Iterator[Any]:
    """Yield ever shorter forms: the whole first, then without its last part, innermost parts first."""
    yield data
    for container in reversed(list(_containers(data))):
        if isinstance(container, dict):
            container.popitem()
        else:
            container.pop()
        yield data
