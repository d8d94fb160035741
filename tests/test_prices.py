"""The table of prices is searched as text; what is found there is what a parser finds."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rxflow import _prices as prices
from rxflow.types import UsageMetrics

TABLE: dict[str, Any] = {
    "gpt-4o": {"litellm_provider": "openai", "input_cost_per_token": 1.5, "nested": {"gpt-4o": "}"}},
    "azure/gpt-4o": {"input_cost_per_token": 2},
    'odd "name" é': {"input_cost_per_token": 3},
    "openai/twice": {"input_cost_per_token": 4},
    "claude-5": {"litellm_provider": "anthropic", "input_cost_per_token": 5},
    "us.claude-5": {"litellm_provider": "bedrock_converse", "input_cost_per_token": 6},
    "gemini-3": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 7},
    "gemini/gemini-3": {"litellm_provider": "gemini", "input_cost_per_token": 8},
    "groq/responses/odd": {"litellm_provider": "groq", "input_cost_per_token": 9},
}


@pytest.mark.parametrize("indent", [4, 1, None])
@pytest.mark.parametrize(
    ("model", "price"),
    [
        *[("openai/gpt-4o", 1.5), ("azure/gpt-4o", 2), ('x/odd "name" é', None), ("openai/twice", 4)],
        *[("openai/4o", None), ("anthropic/claude-5", 5), ("claude-5", 5), ("groq/claude-5", None)],
        *[("bedrock/us.claude-5", 6), ("bedrock/converse/us.claude-5", 6), ("bedrock/invoke/us.claude-5", 6)],
        *[("anthropic/us.claude-5", None), ("vertex_ai/gemini-3", 7), ("gemini/gemini-3", 8), ("gemini-3", 7)],
        *[("openai/responses/gpt-4o", 1.5), ("azure/responses/gpt-4o", 2), ("groq/responses/odd", 9)],
    ],
)
def test_an_entry_is_found_however_the_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, model: str, price: float | None
) -> None:
    use_table(tmp_path, monkeypatch, json.dumps(TABLE, indent=indent, ensure_ascii=False))

    entry = prices.find_entry(model)

    assert (entry and entry["input_cost_per_token"]) == price


def test_a_table_without_white_space_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(tmp_path, monkeypatch, json.dumps(TABLE, separators=(",", ":")))

    assert prices.find_entry("openai/gpt-4o") == TABLE["gpt-4o"]


def test_of_two_entries_the_last_one_counts_as_for_a_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(tmp_path, monkeypatch, '{"a/b": {"input_cost_per_token": 1},\n"a/b": {"input_cost_per_token": 2}}')

    assert prices.find_entry("a/b") == {"input_cost_per_token": 2}


def test_litellms_own_table_is_read_as_a_parser_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_litellm(monkeypatch)
    package = find_spec("litellm")
    assert package is not None
    assert package.submodule_search_locations
    (folder,) = package.submodule_search_locations
    table = json.loads(next(Path(folder).glob("model_prices_and_context_window_backup.json")).read_bytes())

    for name in list(table)[::100]:
        if "/" in name:
            assert prices.find_entry(name) == table[name], name
        elif table[name].get("litellm_provider") == "openai":
            assert prices.find_entry(f"openai/{name}") == table.get(f"openai/{name}", table[name]), name


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/claude-sonnet-4-5",
        "claude-sonnet-4-5",
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "cohere_chat/command-a-03-2025",
        "cohere/command-a-03-2025",
        "vertex_ai/gemini-2.5-flash",
        "vertex_ai/claude-sonnet-4-5",
        "gemini/gemini-2.5-flash",
        "openai/responses/gpt-5-codex",
        "azure/responses/gpt-5-codex",
        "text-completion-openai/gpt-3.5-turbo-instruct",
        "openai/gpt-4o",
    ],
)
def test_an_estimate_has_the_price_of_a_finished_call(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    litellm: Any = importlib.import_module("litellm")
    wanted = sum(litellm.cost_per_token(model=model.replace("/responses/", "/"), prompt_tokens=10, completion_tokens=5))
    forget_litellm(monkeypatch)
    usage = UsageMetrics(prompt_tokens=10, completion_tokens=5, total_tokens=15)

    assert prices.estimate_cost(model, usage) == pytest.approx(wanted)


def use_table(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the program have a LiteLLM with this table."""
    package = folder / "litellm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model_prices_and_context_window_backup.json").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)  # pyright: ignore[reportUnknownMemberType]
    forget_litellm(monkeypatch)


def forget_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be known but the file."""
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    monkeypatch.setattr(prices, "_read_entry", prices._read_entry.__wrapped__)  # pyright: ignore[reportPrivateUsage]
