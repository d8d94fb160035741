"""``Agent(multimodal=True)``: the model asks to see an image, and sees it."""

from typing import Any

import pytest

from rxflow import LLM
from rxflow.tools import tool
from rxflow.types.events import ToolFailed
from tests.loopback import Loopback, Reply, ToolCall as Call
from tests.scripted import Scripted, calls
from tests.team import a_crew, a_task, an_agent, played, solo

TOOL = "add_image_to_content"
LAKE = "https://lakes.example/ohrid.jpg"


def asks(**arguments: Any) -> Any:
    return calls((TOOL, arguments))


def test_the_image_comes_after_the_answers_of_all_tools_of_the_turn() -> None:
    @tool
    def depth_of(lake: str) -> str:
        """Look up a depth."""
        return f"{lake}: 288 metres"

    both = calls((TOOL, {"image_url": LAKE, "action": "How clear is it?"}), ("depth_of", {"lake": "Ohrid"}))
    model = Scripted(both, "Clear.")
    assert solo(model, agent={"multimodal": True, "tools": [depth_of]}).kickoff().raw == "Clear."
    assert [message["role"] for message in model.conversations[1]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert model.conversations[1][-1]["content"] == [
        {"type": "text", "text": "How clear is it?"},
        {"type": "image_url", "image_url": {"url": LAKE}},
    ]


def test_a_provider_is_sent_it(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(tool_calls=[Call(TOOL, {"image_url": LAKE}, id="one")]), Reply(text="A lake."))
    assert an_agent(llm, multimodal=True).kickoff("Look").raw == "A lake."
    assert provider.requests[1].messages[-1]["content"] == [
        {"type": "text", "text": "Here is the image."},
        {"type": "image_url", "image_url": {"url": LAKE}},
    ]


def test_a_coworker_may_see_images_too() -> None:
    asking = calls(("ask_question_to_coworker", {"question": "?", "context": "", "coworker": "Diver"}))
    diver = Scripted(asks(image_url=LAKE), "A lake.")
    writer = an_agent(Scripted(asking, "Done"), allow_delegation=True)
    crew = a_crew(a_task(writer))
    crew.agents.append(an_agent(diver, "Diver", multimodal=True))
    crew.kickoff()
    assert diver.conversations[1][-1]["content"][-1] == {"type": "image_url", "image_url": {"url": LAKE}}


@pytest.mark.parametrize("address", ["/etc/passwd", "file:///etc/passwd", "lake.jpg", "data:text/plain,x", ""])
def test_what_is_not_the_address_of_an_image_is_told_to_the_model(address: str) -> None:
    model = Scripted(asks(image_url=address), "I cannot see it.")
    told = played(solo(model, agent={"multimodal": True}))
    assert len(told.of(ToolFailed)) == 1
    assert model.conversations[1][-1]["role"] == "tool"
    assert "must be an address" in model.conversations[1][-1]["content"]


@pytest.mark.parametrize("multimodal", [True, False])
def test_only_who_may_see_images_is_offered_the_tool(multimodal: bool) -> None:
    model = Scripted("Done")
    solo(model, agent={"multimodal": multimodal}).kickoff()
    offered = [schema["function"]["name"] for schema in model.requests[0].tools]
    assert offered == ([TOOL] if multimodal else [])
