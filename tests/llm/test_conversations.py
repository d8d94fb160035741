"""What the model said goes back to its provider: its thoughts with its tool calls, and the names of its tools."""

import json
from typing import Any

import pytest

from rxflow import LLM
from rxflow.tools import BaseTool, tool
from rxflow.types.events import LLMFinished
from tests.llm.ways import WAYS, Way
from tests.llm.wire import delta
from tests.loopback import Loopback, Reply, ToolCall
from tests.loopback.dialects import DIALECTS, Dialect
from tests.recordings.conversations import collect_turns
from tests.signals import outcome
from tests.team import solo

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "I look."}]}
SAID = {"type": "text", "text": "Looking."}
CALL = {
    "index": 0,
    "id": "call12345",
    "type": "function",
    "function": {"name": "search", "arguments": '{"query": "a"}'},
}
IN_PARTS = Reply(
    raw=[delta(content=[THOUGHT]), delta(content=[SAID]), delta(tool_calls=[CALL]), delta("tool_calls")],
    content_type="text/event-stream",
)

TAKE_THOUGHTS = ("openai-chat", "openai-responses", "anthropic-messages", "bedrock-converse")
"""Mistral refuses ``reasoning_content``, Gemini takes signatures back and no thoughts, Ollama neither."""


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


class NumberedTool(BaseTool):
    """A tool whose name begins with a digit, which OpenAI's API accepts."""

    def _run(self, query: str) -> str:
        return f"found {query}"


def asked_again(provider: Loopback, llm: LLM, first: Reply, *tools: Any) -> dict[str, Any]:
    """The request in which an agent's first turn went back."""
    provider.script(first, Reply(text="Done."))
    assert solo(llm, agent={"tools": list(tools)}).kickoff().raw == "Done."
    return provider.requests[-1].body


def parts_sent(asked: dict[str, Any]) -> object:
    (message,) = (each for each in asked["messages"] if each["role"] == "assistant")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["search"]
    return message["content"]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_content_in_parts_goes_back_in_parts(provider: Loopback, way: Way) -> None:
    with way.model(provider.url) as llm:
        assert parts_sent(asked_again(provider, llm, IN_PARTS, search)) == [THOUGHT, SAID]


def test_so_it_does_to_mistral(provider: Loopback) -> None:
    llm = LLM("mistral/magistral-medium-latest", base_url=provider.url, api_key="k")
    assert parts_sent(asked_again(provider, llm, IN_PARTS, search)) == [THOUGHT, SAID]


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if str(each) in TAKE_THOUGHTS], ids=str)
def test_thoughts_go_back_with_the_calls_that_they_led_to(provider: Loopback, dialect: Dialect) -> None:
    reply = Reply(reasoning=["Let me ", "look."], text="Looking.", tool_calls=[ToolCall("search", {"query": "a"})])
    turns = collect_turns(asked_again(provider, dialect.make_llm(provider.url), reply, search))
    assert [(name, arguments) for _, name, arguments in turns.calls] == [("search", {"query": "a"})]
    assert "Let me look." in "".join(turns.thoughts)


@pytest.mark.parametrize("name", ["2nd_search", "_search", "-search"])
@pytest.mark.parametrize("dialect", [each for each in DIALECTS if each.has_tools], ids=str)
def test_a_tool_keeps_its_name_on_every_wire(provider: Loopback, dialect: Dialect, name: str) -> None:
    numbered = NumberedTool(name=name, description="Search.")
    sent = f"a{name}" if "bedrock" in str(dialect) else name
    reply = Reply(tool_calls=[ToolCall(sent, {"query": "a"})])
    asked = asked_again(provider, dialect.make_llm(provider.url), reply, numbered)
    assert "found a" in json.dumps(asked)
    assert [called for _, called, _ in collect_turns(asked).calls] == [sent]


def test_what_strict_providers_refuse_is_in_no_message(provider: Loopback, llm: LLM) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look up!", "arguments": '{"query": "a'}}
    provider.script(Reply(raw=[delta(tool_calls=[call]), delta("tool_calls")], content_type="text/event-stream"))
    finished = outcome(llm.events("Hi")).one(LLMFinished)
    assert (finished.tool_calls[0].name, finished.tool_calls[0].arguments) == ("look up!", '{"query": "a')
    (function,) = (each["function"] for each in finished.message["tool_calls"])
    assert function["name"] == "look_up_"
    assert json.loads(function["arguments"]) == {"invalid_arguments": '{"query": "a'}
