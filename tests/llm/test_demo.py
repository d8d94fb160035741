"""``LLM("rxflow/demo")``: answers from its prompt, without a key, a network or litellm."""

import json
import subprocess
import sys
import time
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from rxflow import LLM
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import LLMFinished, ToolFinished
from tests.signals import outcome
from tests.team import played, solo

DEMO = LLM("rxflow/demo")


def test_it_answers_readably_out_of_its_prompt() -> None:
    answer = DEMO.call("Write about the migration of the arctic tern.")
    assert "migration of the arctic tern" in answer
    assert answer.endswith(".")
    assert "demo model" in answer


def test_it_says_the_same_again() -> None:
    assert DEMO.call("Tell me about terns") == DEMO.call("Tell me about terns")


@pytest.mark.parametrize("prompt", ["?", " ", "\n\n", "…", "{", "é" * 5000])
def test_it_answers_any_prompt(prompt: str) -> None:
    assert DEMO.call(prompt)


def test_it_answers_word_by_word_with_nothing_lost() -> None:
    seen = outcome(DEMO.events("Tell me about terns"))
    assert len(seen.texts) > 5
    assert all(len(text.split()) == 1 for text in seen.texts)
    assert seen.text == seen.one(LLMFinished).text


def test_it_reports_usage_and_costs_nothing() -> None:
    seen = outcome(DEMO.events("Tell me about terns"))
    finished = seen.one(LLMFinished)
    assert finished.usage.prompt_tokens == 4
    assert finished.usage.completion_tokens == len(seen.texts)
    assert finished.usage.total_tokens == 4 + len(seen.texts)
    assert finished.usage.successful_requests == 1
    assert finished.cost == 0.0
    assert finished.finish_reason == "stop"


def test_it_keeps_its_pace() -> None:
    begin = time.monotonic()
    seen = outcome(LLM("rxflow/demo", pace=0.002).events("Hi"))
    assert time.monotonic() - begin >= 0.002 * len(seen.texts)


def test_a_negative_pace_is_refused_where_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"pace, .* cannot be negative"):
        LLM("rxflow/demo", pace=-1)


def test_it_calls_an_offered_tool_once_and_reports_what_it_said() -> None:
    asked: list[tuple[str, int]] = []

    @tool
    def count(what: str, at_most: int) -> str:
        """Count things."""
        asked.append((what, at_most))
        return "forty-two terns"

    seen = played(solo(DEMO, agent={"tools": [count]}, description="Count the terns"))
    assert len(asked) == 1
    assert seen.one(ToolFinished).result == "forty-two terns"
    assert "forty-two terns" in seen.text
    deltas = [each for each in seen.of(StreamChunk) if each.chunk_type is StreamChunkType.TOOL_CALL]
    assert len(deltas) > 1
    assert {each.tool_call.tool_name for each in deltas if each.tool_call} == {"count"}
    assert json.loads("".join(each.content for each in deltas)) == {"what": asked[0][0], "at_most": asked[0][1]}


def test_it_does_not_call_a_providers_own_tool() -> None:
    own: dict[str, Any] = {"type": "web_search"}
    look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    (call,) = DEMO.call("Hi", [own, look])
    assert call.name == "look"
    assert DEMO.call("Hi", [own]) == DEMO.call("Hi")


class Kind(Enum):
    SEA = "sea"
    LAND = "land"


class Egg(BaseModel):
    weight: float = Field(ge=20)


class Bird(BaseModel):
    name: str
    kind: Kind
    status: Literal["rare", "common"]
    age: int
    flies: bool
    eggs: list[Egg]
    mother: str | None
    note: str = ""


def test_it_gives_structured_answers() -> None:
    bird = DEMO.call("Describe a bird", response_model=Bird)
    assert isinstance(bird, Bird)
    assert bird.name


class Nest(BaseModel):
    name: str
    nests: list["Nest"]


class Trip(BaseModel):
    leg: tuple[int, str]
    legs: tuple[float, ...]
    above: int = Field(gt=5)
    below: int = Field(lt=-5)
    at_most: float = Field(le=0)
    between: float = Field(gt=0, lt=0.5)
    code: str = Field(max_length=3)
    none: list[str] = Field(max_length=0)
    three: list[str] = Field(min_length=3)
    next: "Trip | None"
    parts: list["Trip | Part"]


class Part(BaseModel):
    whole: Trip


@pytest.mark.parametrize("model", [Nest, Trip])
def test_its_structured_answers_fit_the_limits_of_fields(model: type[BaseModel]) -> None:
    assert isinstance(DEMO.call("Write about wind", response_model=model), model)


def test_it_needs_no_litellm() -> None:
    program = (
        "import sys\nfrom rxflow import LLM\nLLM('rxflow/demo').call('Hi')\n"
        "print([name for name in ('litellm', 'openai', 'httpx') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert ran.stdout.strip() == "[]"


def test_it_takes_parameters_that_it_does_not_need() -> None:
    settings: dict[str, Any] = {"temperature": 0.5, "max_tokens": 3, "base_url": "http://nowhere.invalid"}
    assert LLM("rxflow/demo", **settings).call("Hi") == DEMO.call("Hi")
