"""Approvals in nested crews: several at once, answered bit by bit, across pauses and processes."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from reactivex import Observable

from rxflow import LLM, Crew, operators as ops
from rxflow._streaming.bridge import from_async
from rxflow.llm.source import Delta, Ending, Request, ToolCallDelta
from rxflow.runs import Run, Runs
from rxflow.tools import tool
from rxflow.types.answers import RunPaused
from rxflow.types.events import FlowPaused, InputRequested, ToolFailed
from tests.flow.trip import USAGE, Knowing
from tests.team import solo

asked: Counter[str] = Counter()
paid: list[float] = []


@pytest.fixture(autouse=True)
def nothing_has_happened() -> None:
    asked.clear()
    paid.clear()


class Bossy(Knowing):
    """The boss hands over to two teams at once; each team pays two amounts at once."""

    def stream(self, request: Request) -> Observable[Delta]:
        who = request.last_user_text.partition("\n")[0]
        is_over = request.messages[-1]["role"] == "tool"
        asked[f"{who}, {'then' if is_over else 'first'}"] += 1

        async def answer(emit: Callable[[Delta], None]) -> None:
            if is_over:
                emit("done")
            else:
                for number, (name, arguments) in enumerate(calls_of(who)):
                    emit(ToolCallDelta(number, f"{who} {number}", name, arguments))
            emit(Ending("stop" if is_over else "tool_calls", USAGE, 0.01))

        return from_async(answer)


def calls_of(who: str) -> Iterator[tuple[str, str]]:
    for number in (1, 2):
        team = re.search(r"\d", who)
        if team is None:
            yield "hand_over", f'{{"team": {number}}}'
        else:
            yield "pay", f'{{"amount": {team[0]}{number}}}'


@tool(needs_approval=True)
def pay(amount: float) -> str:
    """Pay an amount."""
    paid.append(amount)
    return f"paid {amount:g}"


@tool
async def hand_over(team: int) -> str:
    """Let a team pay."""
    return str(await solo(model(), description=f"team {team}", agent={"tools": [pay]}).kickoff_async())


def model() -> LLM:
    return LLM("bossy", source=Bossy(), function_calling=True)


def crew() -> Crew:
    return solo(model(), description="the boss", agent={"tools": [hand_over]})


def pending(run: Run) -> dict[Any, str]:
    """The questions that wait, by the amount that they are about."""
    with pytest.raises(RunPaused) as error:
        run.result(20)
    assert {each.request_id for each in error.value.pending} == {each.request_id for each in run.pending()}
    return {each.arguments["amount"]: each.request_id for each in run.pending()}


def test_all_are_pending_and_are_answered_bit_by_bit(store: str) -> None:
    with Runs(store) as runs:
        run = runs.start(crew())
        waiting = pending(run)
        assert sorted(waiting) == [11, 12, 21, 22]
        (last,) = [event for event in run.events().pipe(ops.to_output()) if isinstance(event, FlowPaused)][-1:]
        assert {each.request_id for each in last.pending} == set(waiting.values())
    with Runs(store) as runs:  # as another process does
        run = runs[run.id]
        run.resume({waiting[11]: "yes"}, crew())
        assert sorted(pending(run)) == [12, 21, 22]
        assert paid == [11]
    with Runs(store) as runs:
        run = runs[run.id]
        changed = {"approved": True, "arguments": {"amount": 5}}
        run.resume({waiting[12]: "no, too much", waiting[21]: changed, waiting[22]: True}, crew())
        assert run.result(20).raw == "done"
        denied = [event.error for event in run.events().pipe(ops.to_output()) if isinstance(event, ToolFailed)]
    assert sorted(paid) == [5, 11, 22]
    assert [str(error) for error in denied] == ["too much"]
    assert set(asked.values()) == {1}, asked
    assert len(asked) == 6


def test_a_live_run_is_answered_while_its_other_questions_wait(store: str) -> None:
    with Runs(store) as runs:
        run = runs.start(crew(), answer_within=20)
        seen: list[str] = []
        for event in run.events().pipe(ops.to_output()):
            if isinstance(event, InputRequested):
                seen.append(event.request_id)
                if len(seen) == 4:
                    for request in runs[run.id].pending():
                        runs[run.id].answer(request.request_id, "yes")
        assert run.result(20).raw == "done"
    assert sorted(paid) == [11, 12, 21, 22]
    assert set(asked.values()) == {1}, asked
