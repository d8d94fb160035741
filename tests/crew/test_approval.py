"""Tools that a person has to allow: approved, refused, changed; several at once, and in crews inside of tools."""

from collections.abc import Callable
from itertools import count
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from reactivex import Observable

from rxflow import operators as ops
from rxflow.testing import ScriptedLLM, tool_call
from rxflow.tools import BaseTool, tool
from rxflow.types.answers import Approval, RunPaused
from rxflow.types.events import (
    CrewFinished,
    Event,
    FlowPaused,
    InputReceived,
    InputRequested,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
)
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, solo

Answer = Callable[[InputRequested], Any]


def payment(needs_approval: Any = True) -> tuple[BaseTool, list[float]]:
    """A tool, and what was paid."""
    paid: list[float] = []

    @tool(needs_approval=needs_approval)
    def pay(amount: float) -> str:
        """Pay an amount."""
        paid.append(amount)
        return f"paid {amount:g}"

    return pay, paid


def paying(*amounts: float) -> ScriptedLLM:
    return ScriptedLLM([tool_call("pay", {"amount": amount}) for amount in amounts], "so-be-it|")


def run(model: ScriptedLLM, tool: BaseTool, *answers: Answer) -> Any:
    source: Observable[Event] = solo(model, agent={"tools": [tool]}).events()
    for answer in answers:
        source = source.pipe(ops.answer_with(answer))
    return outcome(source)


TEXTS_FOR_YES = [
    *("yes", "Y", "ok", "Yes!", "OK!", "yes please", "Yes, go ahead", "ok, do it", "Okay.\nThanks!", "Sure, thank you"),
    *("go ahead", "Please do it", "yes yes YES", " true "),
]


@pytest.mark.parametrize("answer", [True, *TEXTS_FOR_YES, {"approved": True}, Approval(approved=True)])
def test_an_approved_tool_is_called(answer: Any) -> None:
    pay, paid = payment()
    seen = run(paying(5), pay, lambda _: answer)
    assert paid == [5]
    assert seen.one(InputReceived).value == Approval(approved=True)
    assert seen.one(ToolFinished).result == "paid 5"


def test_nobody_is_asked_about_a_tool_that_is_used_up() -> None:
    pay, paid = payment()
    pay.max_usage_count = 1
    asked: list[InputRequested] = []

    def allow(request: InputRequested) -> bool:
        asked.append(request)
        return True

    model = ScriptedLLM(tool_call("pay", {"amount": 5}), tool_call("pay", {"amount": 6}), "so-be-it|")
    seen = run(model, pay, allow)
    assert paid == [5]
    assert [dict(each.arguments) for each in asked] == [{"amount": 5}]
    assert seen.one(ToolFailed).stage == "limit"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (False, ""),
        ("no", ""),
        ("no, too expensive", "too expensive"),
        ("Ask me tomorrow", "Ask me tomorrow"),
        ("No!", ""),
        ("NO: yes is what I said yesterday", "yes is what I said yesterday"),
        ("nope, ok?", "ok?"),
        ("yes, but only 3", "yes, but only 3"),
        ("Yes? Why?", "Yes? Why?"),
        ("yes/no", "yes/no"),
        ("approve nothing", "approve nothing"),
        ("yesterday", "yesterday"),
        ("please", "please"),
        ("{only if cheap}", "{only if cheap}"),
        ("", ""),
        ({"approved": False, "reason": "too expensive"}, "too expensive"),
    ],
)
def test_a_refused_tool_is_not_called_and_the_model_is_told_why(answer: Any, reason: str) -> None:
    pay, paid = payment()
    model = paying(5)
    seen = run(model, pay, lambda _: answer)
    assert paid == []
    assert str(seen.one(ToolFailed).error) == reason
    told = model.requests[-1].messages[-1]["content"]
    assert told == f"Error: a person refused pay. {reason}".rstrip()
    assert seen.one(CrewFinished).result.raw == "sobeit"


@pytest.mark.parametrize("answer", ['{"amount": 3}', {"approved": True, "arguments": {"amount": 3}}])
def test_a_person_may_change_the_arguments(answer: Any) -> None:
    pay, paid = payment()
    seen = run(paying(5), pay, lambda _: answer)
    assert paid == [3]
    assert seen.one(ToolFinished).result == "paid 3"


@pytest.mark.parametrize(
    ("answers", "amounts"), [(['{"amount": 3}', "yes"], [3, 5]), (["yes", '{"amount": 3}'], [5, 3])], ids=str
)
def test_a_changed_call_is_not_taken_for_the_same_as_the_models(answers: list[str], amounts: list[float]) -> None:
    """Neither gets the result of the other from the cache."""
    pay, paid = payment()
    model = ScriptedLLM(tool_call("pay", {"amount": 5}), tool_call("pay", {"amount": 5}), "so-be-it|")
    left = iter(answers)
    seen = run(model, pay, lambda _: next(left))
    assert paid == amounts
    assert [each.result for each in seen.of(ToolFinished)] == [f"paid {amount}" for amount in amounts]


def test_the_request_shows_the_call_and_the_schema_of_an_answer() -> None:
    pay, _ = payment()
    request = run(paying(5), pay, lambda _: "yes").one(InputRequested)
    assert (request.kind, request.arguments, request.options) == ("approval", {"amount": 5}, ("yes", "no"))
    assert request.message == "May Writer call pay?"
    assert request.tool_id == "call_1_0"
    changed = request.response_schema["anyOf"][0]["properties"]["arguments"]["anyOf"][0]
    assert changed["properties"]["amount"]["type"] == "number"


def test_only_calls_that_need_it_are_asked_for() -> None:
    def is_large(amount: float) -> bool:
        return amount > 10

    pay, paid = payment(is_large)
    seen = run(paying(5, 50), pay, lambda _: "no")
    assert paid == [5]
    assert [request.arguments for request in seen.of(InputRequested)] == [{"amount": 50}]


@pytest.mark.parametrize("answer", [{"approved": True, "arguments": {"amount": "much"}}, 42, {"arguments": {}}])
def test_an_answer_that_does_not_fit_ends_the_run_and_calls_nothing(answer: Any) -> None:
    pay, paid = payment()
    model = ScriptedLLM(tool_call("pay", {"amount": 5}))
    seen = run(model, pay, lambda _: answer)
    assert isinstance(seen.error, ValueError)
    assert "the answer to 'May Writer call pay?' does not fit" in str(seen.error)
    assert paid == []


@pytest.mark.parametrize("text", ['{"amount": ', "{'amount': 3}", "{amount: 3}"])
def test_a_mistake_in_the_json_of_an_answer_is_no_refusal(text: str) -> None:
    with pytest.raises(ValueError, match="line 1 column"):
        Approval.model_validate(text)


@pytest.mark.parametrize("answer", [{"amount": "much"}, {"amount": {1, 2}}])
def test_an_answer_that_a_validator_breaks_on_ends_the_run_and_says_so(answer: Any) -> None:
    paid: list[Any] = []

    def double(amount: Any) -> Any:
        return round(amount) * 2

    @tool(needs_approval=True)
    def pay(amount: Annotated[Any, AfterValidator(double)]) -> None:
        """Pay an amount."""
        paid.append(amount)

    model = ScriptedLLM(tool_call("pay", {"amount": 5}))
    seen = run(model, pay, lambda _: {"approved": True, "arguments": answer})
    assert isinstance(seen.error, ValueError)
    assert "the answer to 'May Writer call pay?' does not fit: the arguments of pay are not valid" in str(seen.error)
    assert paid == []


def test_who_decides_whether_to_ask_sees_what_the_tool_gets() -> None:
    seen_by: list[float] = []

    def is_seen(at: float) -> bool:
        seen_by.append(at)
        return False

    numbers = count()

    @tool(needs_approval=is_seen)
    def note(at: Annotated[float, AfterValidator(lambda at: at + next(numbers))]) -> str:
        """Note a time."""
        seen_by.append(at)
        return "noted"

    run(ScriptedLLM(tool_call("note", {"at": 0.5}), "do-ne|"), note)
    assert seen_by[0] == seen_by[1]


def test_several_at_once_are_all_asked_and_all_that_wait_are_pending() -> None:
    pay, paid = payment()
    model = ScriptedLLM([tool_call("pay", {"amount": amount}) for amount in (1, 2, 3)])
    seen = run(model, pay, lambda request: "yes" if request.arguments == {"amount": 2} else None)
    assert paid == [2]
    (paused,) = seen.of(FlowPaused)
    assert [request.arguments["amount"] for request in paused.pending] == [1, 3]
    assert len(seen.of(ToolCancelled)) == 2
    assert seen.error is None


def test_a_tool_in_a_crew_in_a_tool_asks_through_the_same_door() -> None:
    pay, paid = payment()

    @tool
    def hand_over() -> str:
        """Let the others do it."""
        return str(solo(paying(7), agent={"tools": [pay]}).kickoff())

    model = ScriptedLLM(tool_call("hand_over"), "do-ne|")
    seen = run(model, hand_over, lambda _: "yes")
    assert paid == [7]
    assert [event.result.raw for event in seen.of(CrewFinished)] == ["sobeit", "done"]


def test_a_question_deep_inside_pauses_all_around_it() -> None:
    pay, _ = payment()

    @tool
    async def hand_over() -> str:
        """Let the others do it."""
        model = ScriptedLLM(tool_call("pay", {"amount": 7}))
        return str(await solo(model, agent={"tools": [pay]}).kickoff_async())

    model = ScriptedLLM(tool_call("hand_over"))
    crew = solo(model, agent={"tools": [hand_over]})
    with pytest.raises(RunPaused, match="May Writer call pay"):
        crew.kickoff()


def test_a_delegated_task_asks_too() -> None:
    pay, paid = payment()
    worker = an_agent(paying(9), role="Worker", tools=[pay])
    order = tool_call("delegate_work_to_coworker", {"task": "Pay", "context": "", "coworker": "Worker"})
    boss = an_agent(ScriptedLLM(order, "do-ne|"), role="Boss", allow_delegation=True)
    crew = a_crew(a_task(boss))
    crew.agents.append(worker)
    seen = outcome(crew.events().pipe(ops.answer_with(lambda _: "yes")))
    assert paid == [9]
    assert seen.one(CrewFinished).result.raw == "done"


def test_async_tasks_beside_one_that_waits_go_on_to_their_end() -> None:
    pay, _ = payment()
    asks = an_agent(ScriptedLLM(tool_call("pay", {"amount": 1})), role="Asks", tools=[pay])
    works = an_agent(ScriptedLLM("a-----------b|"), role="Works")
    last = a_task(an_agent(ScriptedLLM(), role="Last"))
    seen = outcome(a_crew(a_task(asks, async_execution=True), a_task(works, async_execution=True), last).events())
    assert seen.texts == ["a", "b"]
    assert isinstance(seen.items[-1], FlowPaused)
    assert seen.error is None
