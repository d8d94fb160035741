"""The embedded model, ``LLM("rxflow/demo")``, for first runs, examples and documentation.

It needs no API key, no network and no download, and it has no intelligence. It builds readable answers from the words
of the prompt. If tools are offered, it calls the first one once. It counts words as tokens. It can pause between words,
so that a user can watch the stream.

If it is asked which label a person's text means, it selects none. Otherwise it would select the first label, which is
usually "approved".
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from reactivex import Observable

from rxflow._streaming import from_async
from rxflow.llm.source import LABEL_MODEL_NAME, Delta, Ending, Request, Source, ToolCallDelta, UsageMetrics

PROVIDER = "rxflow"


class DemoSource(Source):
    """Builds answers from the prompt, with a pause of ``pace`` seconds after each delta."""

    def __init__(self, pace: float = 0.0) -> None:
        if pace < 0:
            raise ValueError(f"pace, the seconds between two words, cannot be negative: {pace!r}")
        self._pace = pace

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            asked = sum(_count_words(str(message.get("content") or "")) for message in request.messages)
            said = 0
            calling = request.may_call_tools and bool(request.functions) and not _has_tool_result(request)
            for delta in _tool_call(request) if calling else _pieces(_answer(request)):
                emit(delta)
                said += 1
                await asyncio.sleep(self._pace)
            usage = UsageMetrics(
                prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said, successful_requests=1
            )
            emit(Ending("tool_calls" if calling else "stop", usage, cost=0.0))

        return from_async(answer)


def _count_words(text: str) -> int:
    return len(text.split())


def _has_tool_result(request: Request) -> bool:
    return any(message.get("role") == "tool" for message in request.messages)


def _pieces(text: str) -> Iterator[Delta]:
    """Yield the words one by one, each with the white space before it."""
    yield from re.findall(r"\s*\S+|\s+$", text)


def _tool_call(request: Request) -> Iterator[Delta]:
    """Yield a call of the first function, with arguments made from the function's schema and the prompt's topic."""
    function = request.functions[0]
    arguments = json.dumps(_example(function.get("parameters") or {}, _topic(request)))
    yield ToolCallDelta(0, id="call_demo_1", name=function["name"])
    for start in range(0, len(arguments), 8):
        yield ToolCallDelta(0, arguments=arguments[start : start + 8])


def _answer(request: Request) -> str:
    schema = _response_schema(request)
    if schema is not None and schema.get("title") == LABEL_MODEL_NAME:
        return "rxflow/demo cannot judge"
    if schema is not None:
        return json.dumps(_example(schema, _topic(request)))
    topic, given = _topic(request), _task(request).partition("\n")[2]
    parts = [f"My notes on “{topic}”."]
    reported = [str(message.get("content")) for message in request.messages if message.get("role") == "tool"]
    if reported:
        parts.append(f"The tool reports: {_shorten(reported[-1].strip(), 200).rstrip('.')}.")
    if given.strip():
        parts.append(f"Of what I was given, this matters most: {_telling_sentence(given)}")
    keywords = _keywords(topic)
    if len(keywords) > 1:
        parts.append(f"The words to hold on to are {_join_words(keywords)}.")
    parts.append("That is all the demo model can say: it knows nothing but its prompt.")
    return " ".join(parts)


def _task(request: Request) -> str:
    """Return the first paragraph of the last user message. The paragraphs after it describe how to answer."""
    return request.last_user_text.strip().partition("\n\n")[0]


def _topic(request: Request) -> str:
    """Return the topic of the first line: "offshore wind" for "Collect figures on offshore wind."."""
    first_line = _task(request).partition("\n")[0]
    about = re.search(r"\b(?:about|on|into)\s+([^.:;!?]+)", first_line)
    topic = about[1] if about else first_line
    return _shorten(topic.strip(), 80).rstrip(".:;!? ") or "nothing in particular"


def _telling_sentence(text: str) -> str:
    """Return the sentence with the most digits, shortened to about 200 characters. The first one wins a tie."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return _shorten(max(sentences, key=lambda sentence: len(re.findall(r"\d", sentence))), 200)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"


def _keywords(text: str) -> list[str]:
    """Return the three longest words of ``text``, in the order of the text. Ignore words of up to three letters."""
    words = dict.fromkeys(re.findall(r"[^\W\d_]{4,}", text))
    longest = sorted(words, key=len, reverse=True)[:3]
    return [word for word in words if word in longest]


def _join_words(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _response_schema(request: Request) -> dict[str, Any] | None:
    response_format = request.parameters.get("response_format") or request.hints.get("response_format")
    if not isinstance(response_format, dict):
        return None
    schema: dict[str, Any] | None = cast(dict[str, Any], response_format).get("json_schema", {}).get("schema")
    return schema


def _example(
    schema: dict[str, Any], text: str, root: dict[str, Any] | None = None, opened: frozenset[str] = frozenset()
) -> Any:
    """Return a value that fits ``schema``, a JSON schema as pydantic writes it.

    ``pattern``, ``format``, ``minLength``, ``multipleOf``, ``minProperties`` and ``uniqueItems`` are ignored. A string
    in the value is ``text``, unless the schema has an enum or a constant for it. ``root`` is the whole schema, with the
    definitions. ``opened`` are the definitions that the value is a part of.

    Raises:
        RecursionError: the schema is part of itself, so that no value ends.
    """
    root = root or schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in opened:
            raise RecursionError(f"each {name} contains another {name}")
        return _example(root["$defs"][name], text, root, opened | {name})
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return _first_example(schema[word], text, root, opened)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    match schema.get("type", "string"):
        case "object":
            properties: dict[str, Any] = schema.get("properties", {})
            required = schema.get("required", [])
            return {name: _example(properties[name], text, root, opened) for name in properties if name in required}
        case "array":
            return _list(schema, text, root, opened)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return text[: schema.get("maxLength")]


def _first_example(schemas: list[dict[str, Any]], text: str, root: dict[str, Any], opened: frozenset[str]) -> Any:
    """Return a value that fits the first of ``schemas`` with a value that ends."""
    for schema in schemas[:-1]:
        with suppress(RecursionError):
            return _example(schema, text, root, opened)
    return _example(schemas[-1], text, root, opened)


def _list(schema: dict[str, Any], text: str, root: dict[str, Any], opened: frozenset[str]) -> list[Any]:
    if "prefixItems" in schema:  # a tuple
        return [_example(each, text, root, opened) for each in schema["prefixItems"]]
    least = schema.get("minItems", 0)
    try:
        item = _example(schema.get("items", {}), text, root, opened)
    except RecursionError:
        if least:
            raise
        return []
    return [item] * min(max(1, least), schema.get("maxItems", max(1, least)))


def _number(schema: dict[str, Any]) -> float:
    """Return a number within the limits of ``schema``: its minimum if it has one, or else 1 if that fits."""
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    candidates = (least, 1, most, above + 1, below - 1, (max(least, above) + min(most, below)) / 2)
    fitting = (each for each in candidates if math.isfinite(each) and least <= each <= most and above < each < below)
    return next(fitting, 1)
