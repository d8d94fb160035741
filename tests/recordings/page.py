"""The tables of docs/providers.md, made from the recordings: `python -m tests.recordings.page` writes them anew.

They count what was recorded. That all of it is read as it is, is what test_answers and test_chains hold; so the page is
true as long as these pass, and test_page holds that it counts what they play.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from tests.recordings.archive import CHECKOUT, NO_RECORDINGS, Library, Recording, find_library
from tests.recordings.player import Way, find_ways

PAGE = CHECKOUT / "docs" / "providers.md"
WIRES = {
    "openai": "OpenAI chat",
    "completions": "text completions",
    "responses": "OpenAI Responses",
    "anthropic": "Anthropic messages",
    "gemini": "Gemini",
    "bedrock": "Bedrock Converse",
    "bedrock_invoke": "Bedrock Invoke",
    "cohere": "Cohere v2",
    "ollama": "Ollama chat",
    "ollama_generate": "Ollama generate",
}
PROVIDERS = {
    "anthropic": "Anthropic",
    "azure": "Azure",
    "azure_ai": "Azure AI",
    "bedrock": "Amazon Bedrock",
    "bedrock-invoke": "Amazon Bedrock",
    "cohere": "Cohere",
    "crusoe": "Crusoe",
    "dashscope": "DashScope",
    "deepseek": "DeepSeek",
    "gemini": "Google Gemini",
    "gpustack": "GPUStack",
    "groq": "Groq",
    "huggingface": "Hugging Face",
    "mistral": "Mistral",
    "ollama": "Ollama",
    "ollama-generate": "Ollama",
    "ollama.com": "Ollama's cloud",
    "openai": "OpenAI and servers like it",
    "openrouter": "OpenRouter",
    "perplexity": "Perplexity",
    "responses-azure": "Azure",
    "responses-openai": "OpenAI",
    "responses-other": "others with this API",
    "self-hosted": "servers of one's own",
    "snowflake": "Snowflake",
    "text-completion": "OpenAI",
    "together_ai": "Together AI",
    "vertex": "Google Vertex AI",
    "writer": "Writer",
    "xai": "xAI",
}
PARTS = {
    "ends": "the answer ends in an error",
    "text": "the text",
    "reasoning": "the reasoning",
    "finish": "the finish reason",
    "usage": "the usage",
    "cached": "the cached tokens",
    "reasoning tok": "the reasoning tokens",
    "tool calls": "the tool calls",
    "parallel": "parallel calls",
    "empty args": "calls without arguments",
    "error class": "the class of an error",
}
COLUMNS: dict[str, Callable[[Recording], bool]] = {
    "text": lambda each: bool(each.expected.text),
    "reasoning": lambda each: bool(each.expected.reasoning),
    "tool calls": lambda each: bool(each.expected.tool_calls),
    "usage": lambda each: each.expected.usage is not None,
    "cached tokens": lambda each: each.expected.usage is not None and each.expected.usage.cached is not None,
    "reasoning tokens": lambda each: each.expected.usage is not None and each.expected.usage.reasoning is not None,
    "server tools": lambda each: "server tool" in each.features,
    "citations": lambda each: "citations" in each.features,
    "errors": lambda each: each.expected.error is not None,
}


def make_feature_table(library: Library) -> str:
    """What was recorded of each provider, and in how many answers each feature is."""
    groups: defaultdict[tuple[str, str, str], list[Recording]] = defaultdict(list)
    for recording in library.recordings:
        groups[recording.dialect, PROVIDERS[recording.provider], find_prefix(recording)].append(recording)
    order = sorted(groups.items(), key=lambda item: (list(WIRES).index(item[0][0]), *item[0]))
    rows = [
        [WIRES[dialect], provider, f"`{prefix}`", find_asked(group), *count_features(group)]
        for (dialect, provider, prefix), group in order
    ]
    head = ["wire", "provider", "model", "asked", "answers", *COLUMNS]
    total = ["**all**", "", "", "", *count_features(library.recordings)]
    return make_table(head, [*rows, total])


def make_loss_table(library: Library) -> str:
    """What litellm's own reader loses, by wire and kind."""
    losses: defaultdict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for recording in library.recordings:
        wrong = tuple(recording.litellm_gets_wrong.get("route", ()))
        if wrong:
            losses[WIRES[recording.dialect], wrong].append(recording.id)
    order = sorted(losses.items(), key=lambda item: (list(WIRES.values()).index(item[0][0]), -len(item[1]), item[0][1]))
    rows = [
        [wire, ", ".join(PARTS[part] for part in wrong), str(len(ids)), f"`{ids[0]}`"] for (wire, wrong), ids in order
    ]
    return make_table(["wire", "what is lost or changed", "answers", "for example"], rows)


def make_chain_table(library: Library) -> str:
    """The conversations, and what goes back in them."""
    counts: Counter[str] = Counter()
    sealed: Counter[str] = Counter()
    for chain in library.chains:
        wire = WIRES[library.by_id[chain.ids[0]].dialect]
        counts[wire] += 1
        sealed[wire] += any(library.by_id[each].expected.sealed for each in chain.ids[:-1])
    rows = [[wire, str(counts[wire]), str(sealed[wire] or "–")] for wire in WIRES.values() if counts[wire]]
    return make_table(["wire", "conversations", "with signatures or encrypted thoughts"], rows)


def find_prefix(recording: Recording) -> str:
    """What a model's name begins with."""
    if recording.dialect == "responses":
        return "openai/responses/"
    if recording.dialect in ("bedrock", "bedrock_invoke"):
        return "/".join(recording.route.model.split("/")[:2]) + "/"
    return recording.route.model.split("/")[0] + "/"


def find_asked(group: Iterable[Recording]) -> str:
    """Who sends the request."""
    ways = {played.way for recording in group for played in find_ways(recording) if not played.is_also}
    return "directly" if Way.DIRECT in ways else "by litellm"


def count_features(group: list[Recording]) -> list[str]:
    """The answers, and those with each feature."""
    return [str(len(group)), *(str(sum(map(test, group)) or "–") for test in COLUMNS.values())]


def make_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fill(page: str, library: Library) -> str:
    """The page with its tables made anew."""
    tables = {"features": make_feature_table, "losses": make_loss_table, "chains": make_chain_table}
    for name, make in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        page, replaced = re.subn(f"{begin}.*?{end}", lambda _: begin + make(library) + end, page, flags=re.DOTALL)  # noqa: B023
        assert replaced == 1, f"{begin!r} is not once in the page"
    return page


def main() -> None:
    library = find_library()
    if library is None:
        sys.exit(NO_RECORDINGS)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), library), encoding="utf-8")


if __name__ == "__main__":
    main()
