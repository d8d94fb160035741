"""Text that others wrote: the place of JSON in an answer, and what of a text can be sent on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

_OPENING = re.compile(r"[{\[]")
_FENCE = re.compile(r"\A```\w*\s*\n(.*?)\n?\s*```\Z", re.DOTALL)
_DECODER = json.JSONDecoder(parse_int=str)  # only the place of the end is needed; int() refuses 5,000 digits
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# What is left at the place of an error if more text could mend it: nothing, a string, a part of an escape or a number.
_UNFINISHED = re.compile(r'\s*\Z|"(?:[^"\\]|\\.)*\\?\Z|(?<=\\)u[0-9a-fA-F]{0,4}\Z|\.\Z|[eE][+-]?\Z', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonSpan:
    """Where an object or a list stands in a text. ``end`` is None if the text ends before it does."""

    start: int
    end: int | None


def find_json(text: str, start: int = 0) -> Iterator[JsonSpan]:
    """The objects and lists in ``text``, in order, from ``start`` on. What is inside one of them is a part of it.

    A parser finds them, so words with braces, fences, and braces inside strings do no harm. What is broken is skipped
    as far as the parser has read it: a part of broken JSON is not an answer.
    """
    while (opening := _OPENING.search(text, start)) is not None:
        at = opening.start()
        try:
            _, start = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if _is_cut_off(text, error.pos):
                yield JsonSpan(at, None)
                return
            start = max(error.pos, at + 1)
        except RecursionError:  # nested more deeply than any model
            return
        else:
            yield JsonSpan(at, start)


def read_json(model: type[M], text: str) -> M:
    """Read the JSON in an answer as ``model``. Of several values, the last that fits is the answer.

    A value in which ``model`` finds none of its fields is taken only if there is no better one: any object fits a model
    whose fields all have defaults.

    Raises:
        ValidationError: pydantic's, a ValueError: the text holds no JSON that fits.
    """
    candidates = [text[span.start : span.end] for span in find_json(text) if span.end is not None]
    if not candidates:
        return model.model_validate_json(_only_candidate(text))
    misfits: list[tuple[int, ValidationError]] = []
    without_fields: M | None = None
    for candidate in reversed(candidates):
        try:
            value = model.model_validate_json(candidate)
        except ValidationError as error:
            misfits.append((len(candidate), error))
            continue
        if has_fields(value):
            return value
        if without_fields is None:
            without_fields = value
    if without_fields is not None:
        return without_fields
    # The longest is meant as the answer; a "[1]" behind it is not.
    raise max(misfits, key=lambda misfit: misfit[0])[1]


def has_fields(value: object) -> bool:
    """Whether JSON gave ``value`` at least one field; True for what is not a pydantic model."""
    return not isinstance(value, BaseModel) or bool(value.model_fields_set)


def list_problems(error: ValidationError, whole: str) -> str:
    """The problems, field by field, in one line for a model to read; ``whole`` names the value itself."""
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or whole}: {each['msg']}" for each in error.errors())


def _is_cut_off(text: str, place: int) -> bool:
    """Whether an error at ``place`` is only that the text ends there."""
    if _UNFINISHED.match(text, place) is not None:
        return True
    return any(literal.startswith(text[place:]) for literal in _LITERALS if len(text) - place <= len(literal))


def _only_candidate(text: str) -> str:
    """The text to read if no object or list is whole: a number or a string, perhaps in a fence, or broken JSON."""
    opening = _OPENING.search(text)
    if opening is not None:
        return text[opening.start() :].rstrip()
    fence = _FENCE.match(text.strip())
    return fence.group(1) if fence else text.strip()


def encodable(text: str) -> str:
    """``text`` with the replacement character for halves of characters, which only Python's strings can hold."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # By way of UTF-16: there two halves that belong together become one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def in_words(value: object, show: Callable[[object], str] = str) -> str:
    """``str(value)`` or ``repr(value)``; if that raises, a text that names the class."""
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of another's class raises
        return f"<{type(value).__name__} that cannot be shown: its __{show.__name__}__ raised {type(error).__name__}>"


def describe(error: BaseException) -> str:
    """An error in one line: its class and its message."""
    return f"{type(error).__name__}: {in_words(error)}"
