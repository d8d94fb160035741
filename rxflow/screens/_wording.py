"""How screens write figures, values, tool calls and errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rxflow._json_text import in_words
from rxflow._showing import MAX_VALUE_CHARS, shorten
from rxflow.types import UsageMetrics

_PLAINER = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e", '"'),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u2013\u2014", "-"),
        "…": "...",
        "→": "->",
        "←": "<-",
        "·": "-",
        "×": "x",
        "•": "*",
        "≥": ">=",
        "✗": "x",
        "\u00a0": " ",
    }
)


def fit_encoding(text: str, encoding: str) -> str:
    """Replace the characters of ``text`` that ``encoding`` lacks: quotes and dashes by plain ones, others by ``?``."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plainer = unicodedata.normalize("NFKD", text.translate(_PLAINER))
        bare = "".join(character for character in plainer if not unicodedata.combining(character))
        return bare.encode(encoding, "replace").decode(encoding)
    return text


def show_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Write a tool call as Python would: ``name(key='value')``."""
    shown = ", ".join(f"{shorten(str(key))}={show_value(value)}" for key, value in arguments.items())
    return f"{shorten(name)}({shorten(shown, 2 * MAX_VALUE_CHARS)})"


def show_value(value: object) -> str:
    """Write a value in one short line. Only the beginning of a large value is read."""
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, Mapping):
        items = list(cast(Mapping[object, object], value).items())[:5]
        return shorten("{" + ", ".join(f"{show_value(key)}: {show_value(each)}" for key, each in items) + "}")
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return shorten("[" + ", ".join(map(show_value, list(cast(Sequence[object], value[:5])))) + "]")
    return shorten(in_words(value))


def show_error(error: BaseException) -> str:
    """Write an error: its class, its first line, and the line with advice if there is one."""
    first, *others = in_words(error).strip().split("\n")
    advice = [shorten(line, 4 * MAX_VALUE_CHARS) for line in others if line.startswith("→")]
    name = type(error).__name__
    said = first if first.partition(":")[0].rpartition(".")[2] == name else f"{name}: {first}" if first else name
    return " ".join([shorten(said, 4 * MAX_VALUE_CHARS), *advice])


def show_seconds(seconds: float) -> str:
    """Write a duration: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def show_tokens(usage: UsageMetrics) -> str:
    """Write the number of tokens, as ``1,204 tokens``; an estimate begins with ``~``.

    Return "" if the number is unknown.
    """
    total = usage.total_tokens
    if total is None and usage.is_reported:
        total = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    if total is None:
        return ""
    return f"{'~' if usage.is_estimated else ''}{total:,} {'token' if total == 1 else 'tokens'}"


def show_cost(cost: float | None, *, is_whole: bool = True) -> str:
    """Write a cost in US dollars. It begins with ``≥`` if some calls have no known price."""
    if cost is None:
        return "cost not known"
    digits = 2 if cost >= 1 or cost == 0 else 4
    return f"{'' if is_whole else '≥ '}${cost:,.{digits}f}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 tool``, ``3 tools``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def count_retries(number: int) -> str:
    """Write a number of retries: ``1 retry``, ``2 retries``."""
    return f"{number:,} {'retry' if number == 1 else 'retries'}"
