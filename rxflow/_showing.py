"""Makes text of models and users safe to show, without control codes in a terminal or markup in a page."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

MAX_VALUE_CHARS = 60
"""How many characters of an argument or result are shown."""

# Characters that override the direction of writing can disguise what a line says.
_HIDDEN = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF], "")
_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # a lone surrogate, which cannot be encoded
    **_HIDDEN,
}
_LINES = {**_VISIBLE, 0x09: "    ", 0x0A: "\n", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_ONE_LINE = {code: " " if shown.isspace() else shown for code, shown in _LINES.items()}


def show_lines(text: str) -> str:
    """Make ``text`` safe to print. Line breaks stay; other control characters become visible or blank."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_LINES)


def show_line(text: str) -> str:
    """Make ``text`` safe to print, in one line."""
    return text.replace("\r\n", " ").replace("\r", " ").translate(_ONE_LINE)


def show_title(text: str) -> str:
    """Return the first line of a task's description, shortened."""
    return shorten(text.strip().partition("\n")[0])


def shorten(text: str, limit: int = MAX_VALUE_CHARS) -> str:
    """Return ``text`` in one line of at most ``limit`` characters."""
    line = " ".join(show_line(text[: 8 * limit]).split())
    return line if len(line) <= limit and len(text) <= 8 * limit else line[: limit - 1].rstrip() + "…"


def escape(text: str) -> str:
    """Return ``text`` as HTML, with its line breaks."""
    return html.escape(show_lines(text))


def draw_card(title: str, note: str, *parts: str) -> str:
    """Return a box with a title and HTML parts.

    It uses the page's colours, so it is readable on light and dark pages.
    """
    head = f"<b>{escape(title)}</b> <span style='opacity:.7'>{escape(note)}</span>"
    body = "".join(f"<div style='margin-top:.4em'>{part}</div>" for part in parts if part)
    return f"<div style='{_CARD}'>{head}{body}</div>"


def draw_text(text: str) -> str:
    """Return a complete text as HTML. A long text scrolls."""
    return f"<div dir='auto' style='{_TEXT}'>{escape(text)}</div>" if text else ""


def draw_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts as HTML."""
    top = "".join(f"<th scope='col' style='{_CELL};opacity:.7'>{escape(each)}</th>" for each in head)
    body = "".join(f"<tr>{''.join(map(_draw_cell, row))}</tr>" for row in rows)
    return f"<table style='border-collapse:collapse'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _draw_cell(text: str) -> str:
    return f"<td dir='auto' style='{_CELL}'>{escape(text)}</td>"


def draw_frame(page: str, title: str) -> str:
    """Embed a whole page in another one. Its styles do not affect the outer page, and its scripts do not run."""
    height = max((int(each) for each in re.findall(r'<svg[^>]* height="(\d+)"', page)), default=100)
    return (
        f"<iframe title='{escape(title)}' sandbox srcdoc='{html.escape(page)}' "
        f"style='width:100%;height:{height + _FRAME_EXTRA_PX}px;border:0'></iframe>"
    )


def display_html(markup: str) -> bool:
    """Show HTML below the running cell of a notebook. Return False outside a notebook."""
    shell = sys.modules.get("IPython")
    running: Any = shell.get_ipython() if shell is not None else None
    if running is None or not hasattr(running, "kernel"):
        return False
    from IPython.display import HTML, display  # pyright: ignore[reportUnknownVariableType]  # it runs, so it is there

    display(HTML(markup))  # type: ignore[no-untyped-call]
    return True


_CARD = "border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.5em .8em;max-width:60em;line-height:1.4"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-height:24em;overflow:auto"
_CELL = "text-align:left;vertical-align:top;padding:.1em 1em .1em 0;white-space:pre-wrap;overflow-wrap:anywhere"
_FRAME_EXTRA_PX = 190  # for the heading and the legend
