"""Prices and abilities of models, from the table that LiteLLM ships, read without importing LiteLLM.

The table has 4,500 models in 3 MB. To parse it takes 30 ms and 25 MB, and holds up every other thread meanwhile; so
the entry that is asked for is looked up in its text, which takes a tenth of that.
A program that has imported LiteLLM may have registered prices of its own there, which then hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, cast

from pydantic_core import from_json, to_json

from rxflow.types import UsageMetrics

_TABLE = "model_prices_and_context_window_backup.json"
_MAX_ENTRY_BYTES = 64 * 1024
_ABOVE = re.compile(r"_above_(\d+)k_tokens$")

FREE_PROVIDER = "rxflow"
"""The provider of the embedded model."""

Entry: TypeAlias = Mapping[str, Any]
"""The table's entry for one model: prices in US dollars a token, limits, and what it supports."""


def find_entry(model: str) -> Entry | None:
    """The entry of ``model``, None if the table does not have it. Blocks for some ms the first time.

    Models of OpenAI stand there without a prefix, all others with it.
    """
    registered: Any = getattr(sys.modules.get("litellm"), "model_cost", None)
    if isinstance(registered, dict):
        return _pick(cast(dict[str, Entry], registered), model)
    return _read_entry(model)


@lru_cache(maxsize=256)
def _read_entry(model: str) -> Entry | None:
    try:
        package = find_spec("litellm")  # which does not import it
    except ValueError:  # a stand-in of the program's own, which is not a module
        package = None
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder, _TABLE)
        if path.is_file():
            return _pick(_parse_entries(path.read_bytes(), model), model)
    return None


def _parse_entries(table: bytes, model: str) -> Mapping[str, Entry]:
    """Of the table, at least the entries that :func:`_pick` asks for."""
    if b'": {' not in table[:1000]:  # not as LiteLLM writes it
        return cast(dict[str, Entry], from_json(table))
    names, found = _names_of(model), dict[str, Entry]()
    end_of_key = to_json(names[-1])[1:] + b": {"  # of both names
    at = table.find(end_of_key)
    while at >= 0:
        begin = table.rindex(b'"', 0, at)
        text = table[begin : begin + _MAX_ENTRY_BYTES].decode(errors="ignore")
        name, end = _decoder.raw_decode(text)
        if name in names:
            found[name], _ = _decoder.raw_decode(text, end + 2)
        at = table.find(end_of_key, at + 1)
    return found


_decoder = json.JSONDecoder()


def _names_of(model: str) -> tuple[str, str]:
    return model, model.removeprefix("openai/")


def _pick(table: Mapping[str, Entry], model: str) -> Entry | None:
    for name in _names_of(model):
        entry = table.get(name)
        if entry is not None and ("/" in model or entry.get("litellm_provider") == "openai"):
            return entry
    return None


def compute_cost(entry: Entry | None, usage: UsageMetrics, service_tier: str | None = None) -> float | None:
    """What a call has cost in US dollars; None if the prices or the tokens are not known."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if entry is None or prompt is None or completion is None:
        return None
    per_input = _rate(entry, "input_cost_per_token", prompt, service_tier)
    per_output = _rate(entry, "output_cost_per_token", prompt, service_tier)
    if per_input is None or per_output is None:
        return None
    cost, rest = completion * per_output, prompt
    special = {
        "cache_read_input_token_cost": usage.cached_prompt_tokens,
        "cache_creation_input_token_cost": usage.cache_creation_tokens,
    }
    for name, tokens in special.items():
        rate = _rate(entry, name, prompt, service_tier)
        if tokens and rate is not None:
            cost += tokens * rate
            rest -= tokens
    return cost + max(rest, 0) * per_input


def _rate(entry: Entry, name: str, prompt: int, service_tier: str | None) -> float | None:
    """Dollars per token. Long prompts and service tiers have prices of their own."""
    tier = f"_{service_tier}" if service_tier in ("flex", "priority") else ""
    thresholds = (int(found[1]) for key in entry if key.startswith(name) and (found := _ABOVE.search(key)))
    passed = sorted((each for each in thresholds if prompt > each * 1000), reverse=True)
    steps = [*(f"_above_{each}k_tokens" for each in passed), ""]
    for suffix in (*(step + tier for step in steps), *steps) if tier else steps:
        rate = entry.get(name + suffix)
        if isinstance(rate, int | float):
            return float(rate)
    return None


def estimate_cost(model: str, usage: UsageMetrics) -> float | None:
    """What an estimated ``usage`` of ``model`` costs. Blocks for some ms at the first stopped call of a model."""
    provider, _, _ = model.partition("/")
    return 0.0 if provider == FREE_PROVIDER else compute_cost(find_entry(model), usage)
