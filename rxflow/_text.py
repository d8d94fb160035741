"""Helpers for JSON, text and HTML.

They find the JSON in a model's answer, convert values to plain JSON, and make text safe to encode and to show.
"""

from __future__ import annotations

import html
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json, to_jsonable_python

M = TypeVar("M", bound=BaseModel)

_OPENING = re.compile(r"[{\[]")
_FENCE = re.compile(r"\A```\w*\s*\n(.*?)\n?\s*```\Z", re.DOTALL)
_QUOTED = re.compile(r'\s*(?:```\w*[ \t\r]*\n\s*)?"')
# Integers stay text, because only the end of the JSON is needed, and int() refuses more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=str)
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# Matches at the position of a parse error if the JSON may be correct but incomplete. In this case, the rest of the text
# is blank, or is the beginning of a string, of an escape, of a fraction or of an exponent.
_UNFINISHED = re.compile(r'\s*\Z|"(?:[^"\\]|\\.)*\\?\Z|(?<=\\)u[0-9a-fA-F]{0,4}\Z|\.\Z|[eE][+-]?\Z', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonSpan:
    """The position of a JSON object or list in a text. ``end`` is None if the text ends inside the object or list."""

    start: int
    end: int | None


def find_json(text: str, start: int = 0) -> Iterator[JsonSpan]:
    """Yield the positions of the JSON objects and lists in ``text``, from ``start`` on.

    Nested objects and lists are not yielded separately. A parser finds the end of each outermost object or list, so
    braces in JSON strings do no harm. After an error in the JSON, the search continues at the error.
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
        except RecursionError:  # no real answer is nested so deeply
            return
        else:
            yield JsonSpan(at, start)


def read_json(model: type[M], text: str) -> M:
    """Read the JSON in an answer, and return an object of ``model``. If several values fit, the last one is used.

    A value with none of the model's fields is used only if no other value fits. Such a value may fit by chance: if all
    fields of the model have defaults, any JSON object fits.

    Raises:
        ValidationError: the text has no JSON that fits. This is pydantic's error, a ValueError.
    """
    if _QUOTED.match(text) is not None:  # perhaps the whole text is one JSON string, and brackets in it begin no JSON
        with suppress(ValidationError):
            return model.model_validate_json(_without_fence(text))
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
    # Raise the error of the longest candidate, which is most likely the answer. A short candidate may be a mere "[1]".
    raise max(misfits, key=lambda misfit: misfit[0])[1]


def has_fields(value: object) -> bool:
    """Return whether ``value`` got a field from the JSON. Return True if ``value`` is not a pydantic model."""
    return not isinstance(value, BaseModel) or bool(value.model_fields_set)


def list_problems(error: ValidationError, whole: str) -> str:
    """Return the problems of all fields in one line. ``whole`` is the name that the line uses for the whole value."""
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or whole}: {each['msg']}" for each in error.errors())


def _is_cut_off(text: str, place: int) -> bool:
    """Return whether the cause of the parse error at ``place`` may be that the text ends too early."""
    if _UNFINISHED.match(text, place) is not None:
        return True
    return any(literal.startswith(text[place:]) for literal in _LITERALS if len(text) - place <= len(literal))


def _only_candidate(text: str) -> str:
    """Return the part of ``text`` that should be parsed. ``text`` has no complete object or list.

    If ``text`` has an opening bracket or brace, this part begins at the first one. Otherwise, it is the whole text
    without its code fence. The text may be a number or a string, for example.
    """
    opening = _OPENING.search(text)
    if opening is not None:
        return text[opening.start() :].rstrip()
    return _without_fence(text)


def _without_fence(text: str) -> str:
    fence = _FENCE.match(text.strip())
    return fence.group(1) if fence else text.strip()


def encodable(text: str) -> str:
    """Return ``text`` with the replacement character in place of each lone surrogate.

    A lone surrogate is half a character. Python's strings can hold it, but UTF-8 cannot.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Decoding UTF-16 also joins each pair of surrogates into one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def in_words(value: object, show: Callable[[object], str] = str) -> str:
    """Return ``show(value)``. ``show`` is ``str`` or ``repr``.

    If ``show`` raises an error, return a text with the names of the value's class and of the error's class.
    """
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 - a __str__ or __repr__ may raise anything
        return f"<{type(value).__name__} that cannot be shown: its __{show.__name__}__ raised {type(error).__name__}>"


def describe(error: BaseException) -> str:
    """Return the name of an error's class, and its message."""
    return f"{type(error).__name__}: {in_words(error)}"


def to_plain_json(value: object, show: Callable[[Any], Any] = in_words) -> Any:
    """Convert ``value`` to an object that has only JSON's types: dict, list, str, int, float, bool and None.

    This never fails. If pydantic cannot convert an object, the object becomes ``show(object)``. Lone surrogates, and
    bytes that are not UTF-8, become replacement characters. NaN and infinity become None. In rare cases, all of
    ``value`` becomes one text. Examples are a list that contains itself, and a lone surrogate in a dict whose keys are
    dates.
    """
    try:
        return through_json(value, show)
    except Exception:  # noqa: BLE001 - pydantic's, or raised by a user's object
        pass
    try:
        text = json.dumps(value, default=lambda each: _in_parts(each, show), ensure_ascii=False)
        return through_json(json.loads(encodable(text)), show)
    except Exception:  # noqa: BLE001 - it contains itself, or has names that are not text; or raised by a user's object
        return encodable(in_words(value))


def write_json(value: object) -> bytes:
    """Return ``value`` as JSON in UTF-8, converted as in :func:`to_plain_json`. This never fails."""
    try:
        return to_json(value, fallback=in_words, inf_nan_mode="null")
    except Exception:  # noqa: BLE001 - pydantic's, or raised by a user's object
        return to_json(to_plain_json(value))


def through_json(value: object, show: Callable[[Any], Any]) -> Any:
    """Convert ``value`` as :func:`to_plain_json` does, but with pydantic alone.

    Raises:
        ValueError: ``value`` contains bytes that are not UTF-8, a lone surrogate, or itself.
    """
    return from_json(to_json(value, fallback=show, inf_nan_mode="null"))


def _in_parts(value: Any, show: Callable[[Any], Any]) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    try:
        return to_jsonable_python(value, fallback=show)
    except Exception:  # noqa: BLE001 - it contains such bytes, or names with surrogates; or raised by a user's object
        pass
    serializer: Any = getattr(value, "__pydantic_serializer__", None)
    if serializer is not None:  # a model or a dataclass of pydantic: its excluded fields must stay excluded
        try:
            return serializer.to_python(value, by_alias=True)
        except Exception:  # noqa: BLE001 - raised by a user's serializer
            return show(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    raise TypeError(f"cannot convert {type(value).__name__} to JSON")


MAX_VALUE_CHARS = 60
"""The default limit of :func:`shorten`, in characters."""

# The byte order mark, and the characters that change the direction of writing. All of them are invisible. A change of
# direction can disguise the content of a line.
_HIDDEN = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF], "")
_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # lone surrogates, which cannot be encoded
    **_HIDDEN,
}
_LINES = {**_VISIBLE, 0x09: "    ", 0x0A: "\n", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_ONE_LINE = {code: " " if shown.isspace() else shown for code, shown in _LINES.items()}


def show_lines(text: str) -> str:
    """Make ``text`` safe to print.

    Line breaks of all kinds become newlines. Tabs become spaces. Other control characters, and lone surrogates, become
    visible characters. Byte order marks, and characters that change the direction of writing, are removed.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_LINES)


def show_line(text: str) -> str:
    """Make ``text`` safe to print, as :func:`show_lines` does, but in one line. Line breaks become spaces."""
    return text.replace("\r\n", " ").replace("\r", " ").translate(_ONE_LINE)


def show_title(text: str) -> str:
    """Return the first line of ``text``, shortened. ``text`` is the name or the description of a task."""
    return shorten(text.strip().partition("\n")[0])


def shorten(text: str, limit: int = MAX_VALUE_CHARS) -> str:
    """Return ``text`` as one line of at most ``limit`` characters. If some text is cut off, the line ends with "…"."""
    line = " ".join(show_line(text[: 8 * limit]).split())
    return line if len(line) <= limit and len(text) <= 8 * limit else line[: limit - 1].rstrip() + "…"


def escape(text: str) -> str:
    """Make ``text`` safe to print and to use in HTML. Line breaks stay."""
    return html.escape(show_lines(text))


def draw_card(title: str, note: str, *parts: str) -> str:
    """Return a box as HTML. ``title`` and ``note`` are plain text, ``parts`` are HTML.

    The box uses the page's colours, so the box is readable on light and dark pages.
    """
    head = f"<b>{escape(title)}</b> <span style='opacity:.7'>{escape(note)}</span>"
    body = "".join(f"<div style='margin-top:.4em'>{part}</div>" for part in parts if part)
    return f"<div style='{_CARD}'>{head}{body}</div>"


def draw_text(text: str) -> str:
    """Return the full ``text`` as HTML. A long text can be scrolled."""
    return f"<div dir='auto' style='{_TEXT}'>{escape(text)}</div>" if text else ""


def draw_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML. ``head`` and ``rows`` hold plain text."""
    top = "".join(f"<th scope='col' style='{_CELL};opacity:.7'>{escape(each)}</th>" for each in head)
    body = "".join(f"<tr>{''.join(map(_draw_cell, row))}</tr>" for row in rows)
    return f"<table style='border-collapse:collapse'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _draw_cell(text: str) -> str:
    return f"<td dir='auto' style='{_CELL}'>{escape(text)}</td>"


def draw_frame(page: str, title: str) -> str:
    """Return an HTML iframe that shows ``page``, which is a complete HTML page.

    The styles in ``page`` do not affect the surrounding page. Scripts in ``page`` do not run.
    """
    height = max((int(each) for each in re.findall(r'<svg[^>]* height="(\d+)"', page)), default=100)
    return (
        f"<iframe title='{escape(title)}' sandbox srcdoc='{html.escape(page)}' "
        f"style='width:100%;height:{height + _FRAME_EXTRA_PX}px;border:0'></iframe>"
    )


def display_html(markup: str) -> bool:
    """Show HTML below the running cell of a notebook, and return True. Outside a notebook, return False."""
    shell = sys.modules.get("IPython")
    running: Any = shell.get_ipython() if shell is not None else None
    if running is None or not hasattr(running, "kernel"):
        return False
    from IPython.display import HTML, display  # pyright: ignore[reportUnknownVariableType]  # it runs, so it is there

    display(HTML(markup))  # type: ignore[no-untyped-call]
    return True


def has_browser() -> bool:
    """Return whether a browser can open a window. Without a display, a text browser would take over the terminal."""
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


_CARD = "border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.5em .8em;max-width:60em;line-height:1.4"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-height:24em;overflow:auto"
_CELL = "text-align:left;vertical-align:top;padding:.1em 1em .1em 0;white-space:pre-wrap;overflow-wrap:anywhere"
_FRAME_EXTRA_PX = 190  # the height of the heading and the legend
