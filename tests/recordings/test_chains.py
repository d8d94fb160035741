"""A tool call of a real provider, and the answer that followed: flow → crew → agent → tool → the next recorded answer.

The further requests are compared with what the recorded clients sent: the provider accepted that.
"""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, create_model

from rxflow import LLM, Crew, Flow
from rxflow.flow import start
from rxflow.tools import BaseTool
from rxflow.types.events import FlowFinished, LLMFinished, ToolFailed, ToolFinished
from tests.recordings.archive import Chain, Recording, require_library
from tests.recordings.conversations import Turns, collect, collect_turns, unseal
from tests.recordings.player import Played, Player, Seen, find_ways, hear, reading
from tests.team import solo

pytestmark = pytest.mark.slow

LIBRARY = require_library(__name__)

BY_ID = LIBRARY.by_id

ROUND_TRIPS = [
    pytest.param(chain, played, id=f"{'+'.join(chain.ids)}-{str(played).removeprefix(chain.ids[0] + '-')}")
    for chain in LIBRARY.chains
    for played in find_ways(BY_ID[chain.ids[0]])
    if all(played.way in [each.way for each in find_ways(BY_ID[later])] for later in chain.ids)
]


class Recorded(Flow):
    """A flow whose crew has an agent with the recorded tools."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        super().__init__()

    @start()
    async def question(self) -> str:
        return str(await self.crew.kickoff_async())


class RecordedTool(BaseTool):
    """Takes what was called with in the recording."""

    def _run(self, **arguments: Any) -> str:
        return f"{self.name} was used with {sorted(arguments)}"


def make_tools(answers: list[Recording]) -> list[BaseTool]:
    """The functions of a chain, with the arguments that were recorded. ``final_result`` is an answer."""
    fields: dict[str, dict[str, Any]] = {name: {} for answer in answers for name in answer.tools}
    for answer in answers:
        for call in answer.expected.tool_calls:
            fields[call.name].update(dict.fromkeys(call.arguments, (Any, None)))
    return [
        RecordedTool(name=name, description="Recorded.", args_schema=make_schema(name, given))
        for name, given in fields.items()
    ]


def make_schema(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    return create_model(f"{name}_arguments", **fields)


@pytest.mark.parametrize(("chain", "played"), ROUND_TRIPS)
def test_an_agent_uses_its_tools_and_sends_back_what_the_provider_wants(
    chain: Chain, played: Played, player: Player
) -> None:
    answers = [BY_ID[each] for each in chain.ids]
    run = uuid4().hex
    llm = player.make_llm_of_chain(played, chain.ids, f"run={run}", "cut=event", max_retries=0)

    async def main() -> Seen:
        return await hear(Recorded(crew_of(llm, answers)).events())

    with reading(played):
        seen = asyncio.run(main())
    asked = player.server.read_requests(run)
    assert len(asked) == len(answers)

    calls = [event for event in seen.events if isinstance(event, LLMFinished)]
    assert [event.text for event in calls] == [answer.expected.text for answer in answers]
    assert [event for event in seen.events if isinstance(event, ToolFailed)] == []
    used = [event.tool_name for event in seen.events if isinstance(event, ToolFinished)]
    assert sorted(used) == sorted(call.name for answer in answers[:-1] for call in answer.expected.tool_calls)
    for turn in range(1, len(answers)):
        compare(chain, answers, turn, collect_turns(asked[turn]), played)
    if answers[-1].expected.tool_calls:
        assert "called tools even in its last turn" in str(seen.error)
    else:
        (finished,) = (event for event in seen.events if isinstance(event, FlowFinished))
        assert finished.result == answers[-1].expected.text


def crew_of(llm: LLM, answers: list[Recording]) -> Crew:
    """Its agent has as many turns as were recorded, so the last request is that of a last turn."""
    return solo(llm, agent={"tools": make_tools(answers), "max_iter": len(answers)})


def compare(chain: Chain, answers: list[Recording], turn: int, sent: Turns, played: Played) -> None:
    """What was sent in one turn, against what was recorded."""
    before = [call for answer in answers[:turn] for call in answer.expected.tool_calls]
    has_id = [call.id is not None for call in before]
    calls = [(call_id if known else None, *rest) for (call_id, *rest), known in zip(sent.calls, has_id, strict=False)]
    assert calls == [(call.id, call.name, call.arguments) for call in before]
    assert len(sent.calls) == len(before)
    recorded = collect([chain.sent_back[at] for at in range(turn)])
    assert missing([unseal(each) for answer in answers[:turn] for each in answer.expected.sealed], sent.sealed) == []
    assert missing(recorded.sealed, sent.sealed) == []
    assert [thought for thought in recorded.thoughts if thought not in "\n".join(sent.thoughts)] == []


def missing(wanted: list[str], sent: list[str]) -> list[str]:
    return [each for each in wanted if each not in sent]
