"""Prices and abilities of models, from LiteLLM's table, read without importing LiteLLM.

The table of LiteLLM 1.110 has 4,900 models in 3.5 MB. Parsing it takes 30 ms and 25 MB, and blocks all other threads
meanwhile. Instead, this module searches the text of the table for the requested entry, in a tenth of the time. If the
program has imported LiteLLM, the imported table is used, because the program may have registered prices of its own
there.
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
# Matches the route in LiteLLM's name of a model. The route follows the provider, and chooses an API: "responses/" in
# "openai/responses/gpt-5".
_ROUTES = re.compile(r"(?:responses|converse|invoke)/")
_TOKEN_THRESHOLD = re.compile(r"_above_(\d+)k_tokens$")

FREE_PROVIDER = "rxflow"
"""The provider in the name ``rxflow/demo``. That model is part of rxflow, and costs nothing."""

Entry: TypeAlias = Mapping[str, Any]
"""The table's entry for one model: prices in US dollars per token, limits, and supported features."""


def find_entry(model: str) -> Entry | None:
    """Return the entry of ``model``; None if the table has none.

    The first look-up of a model may block for some milliseconds.

    In the table, the names of many models lack the provider. If ``model`` has a provider other than ``openai``, an
    entry with such a name is used only if its field ``litellm_provider`` fits that provider.
    """
    registered: Any = getattr(sys.modules.get("litellm"), "model_cost", None)
    if isinstance(registered, dict):
        return _pick(cast(dict[str, Entry], registered), model)
    return _read_entry(model)


@lru_cache(maxsize=256)
def _read_entry(model: str) -> Entry | None:
    try:
        package = find_spec("litellm")  # does not import the package
    except ValueError:  # the program has put an object into sys.modules["litellm"] that is not a real module
        package = None
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder, _TABLE)
        if path.is_file():
            return _pick(_parse_entries(path.read_bytes(), model), model)
    return None


def _parse_entries(table: bytes, model: str) -> Mapping[str, Entry]:
    """Return all entries of ``table`` that :func:`_pick` needs for ``model``. The result may have more entries."""
    if b'": {' not in table[:1000]:  # parse the whole table, because it does not have LiteLLM's usual form
        return cast(dict[str, Entry], from_json(table))
    names, found = _names_of(model), dict[str, Entry]()
    end_of_key = to_json(names[-1])[1:] + b": {"  # the last name is a suffix of all ``names``
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


def _names_of(model: str) -> tuple[str, ...]:
    """Return the names under which the table may have ``model``. The last name is a suffix of each other name."""
    provider, separator, name = model.partition("/")
    if not separator:
        return (model,)
    route = _ROUTES.match(name)
    name = name[route.end() :] if route else name
    return model, f"{provider}/{name}", name


def _pick(table: Mapping[str, Entry], model: str) -> Entry | None:
    *full_names, short_name = _names_of(model)
    for name in full_names:
        if name in table:
            return table[name]
    entry = table.get(short_name)
    return entry if entry is not None and _fits(entry, model) else None


def _fits(entry: Entry, model: str) -> bool:
    """Return whether ``entry`` may be used for ``model``, although the entry's name has no provider.

    If ``model`` has no provider, or the provider ``openai``, any entry may be used. Otherwise, the providers must fit.
    For some providers, the field ``litellm_provider`` has a longer value that begins with the provider's name:
    "bedrock_converse", "cohere_chat", "vertex_ai-language-models".
    """
    provider, separator, _ = model.partition("/")
    # Gateways serve models of many providers under the prefix openai/. So any provider fits.
    return not separator or provider == "openai" or str(entry.get("litellm_provider")).startswith(provider)


def compute_cost(entry: Entry | None, usage: UsageMetrics, service_tier: str | None = None) -> float | None:
    """Return the cost of a call in US dollars; None if the prices or the tokens are not known."""
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
    """Return the price of one token in US dollars; None if ``entry`` has none. ``name`` is the key of the price.

    A long prompt or a service tier may have a price of its own.
    """
    tier = f"_{service_tier}" if service_tier in ("flex", "priority") else ""
    thresholds = (int(found[1]) for key in entry if key.startswith(name) and (found := _TOKEN_THRESHOLD.search(key)))
    passed = sorted((each for each in thresholds if prompt > each * 1000), reverse=True)
    steps = [*(f"_above_{each}k_tokens" for each in passed), ""]
    for suffix in (*(step + tier for step in steps), *steps) if tier else steps:
        rate = entry.get(name + suffix)
        if isinstance(rate, int | float):
            return float(rate)
    return None


def estimate_cost(model: str, usage: UsageMetrics, service_tier: str | None = None) -> float | None:
    """Return the cost of ``usage`` in US dollars; None if it is not known.

    The first look-up of a model may block for some milliseconds.
    """
    provider, _, _ = model.partition("/")
    return 0.0 if provider == FREE_PROVIDER else compute_cost(find_entry(model), usage, service_tier)
