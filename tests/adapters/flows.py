"""The runs that every adapter is shown, and what has happened in them."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from rxflow import Crew, Flow, TaskOutput, operators as ops
from rxflow.flow import listen, start
from rxflow.runs import Runs
from rxflow.tools import tool
from rxflow.types.events import Event, InputRequested
from tests.scripted import Scripted, calls, thinking
from tests.team import a_crew, a_task, an_agent, solo


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"calm sea in the {where}"


@tool
def sink(where: str) -> str:
    """Fail."""
    raise OSError(f"no ship in the {where}")


class Plain(Flow[dict[str, Any]]):
    """One agent says one sentence."""

    @start()
    def report(self) -> str:
        return str(solo(Scripted("low tide at noon")).kickoff())


class Parallel(Flow[dict[str, Any]]):
    """Two crews of the same name speak at once."""

    @start()
    async def north(self) -> str:
        return str(await solo(Scripted("calm in the north")).kickoff_async())

    @start()
    async def south(self) -> str:
        return str(await solo(Scripted("storm in the south")).kickoff_async())


class WithTools(Flow[dict[str, Any]]):
    """Two turns of tools, whose ids repeat, then an answer after some reasoning."""

    @start()
    def report(self) -> str:
        model = Scripted(
            calls(("look", {"where": "north"}), ("look", {"where": "south"})),
            calls(("sink", {"where": "west"})),
            [thinking("Hm. "), thinking("So be it."), "all ", "calm"],
        )
        return str(solo(model, agent={"tools": [look, sink]}).kickoff())


class WithSubAgent(Flow[dict[str, Any]]):
    """A tool runs a crew of its own."""

    @start()
    def report(self) -> str:
        @tool
        async def ask_harbour(question: str) -> str:
            """Ask the harbour."""
            helper = an_agent(Scripted("the harbour is open"), role="Harbour")
            return str(await a_crew(a_task(helper), name="harbour").kickoff_async())

        model = Scripted(calls(("ask_harbour", {"question": "open?"})), "it is open")
        return str(solo(model, agent={"tools": [ask_harbour]}).kickoff())


class Inner(Flow[dict[str, Any]]):
    """What the nested flow runs."""

    @start()
    async def tell(self) -> str:
        return str(await solo(Scripted("deep water")).kickoff_async())


class Nested(Flow[dict[str, Any]]):
    """A flow inside a flow."""

    @start()
    async def outer(self) -> str:
        return str(await Inner().kickoff_async())


class Failing(Flow[dict[str, Any]]):
    """The model breaks off in the middle of its answer."""

    @start()
    def report(self) -> str:
        return str(solo(Scripted(["low ", "tide ", ConnectionError("line cut")])).kickoff())


class Retracting(Flow[dict[str, Any]]):
    """A guardrail sends the first answer back."""

    @start()
    def report(self) -> str:
        def judge(output: TaskOutput) -> tuple[bool, Any]:
            return output.raw == "right", "not right"

        return str(solo(Scripted("wrong", "right"), guardrail=judge).kickoff())


class SiblingFails(Flow[dict[str, Any]]):
    """One method fails while the model of another is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()

    @start()
    async def slow(self) -> str:
        async def wait(_: object) -> None:
            self.is_asked.set()
            await asyncio.Event().wait()

        return str(await solo(Scripted("never", before=wait)).kickoff_async())

    @start()
    async def broken(self) -> str:
        await self.is_asked.wait()
        raise LookupError("no chart")


class Routed(Flow[dict[str, Any]]):
    """A method that listens."""

    @start()
    def first(self) -> str:
        return "one"

    @listen(first)
    def second(self, given: str) -> str:
        return f"{given} two"


@tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


class Paying(Flow[dict[str, Any]]):
    """A tool needs the approval of a person."""

    @start()
    def report(self) -> str:
        model = Scripted(calls(("pay", {"amount": 3})), "it is done")
        return str(solo(model, agent={"tools": [pay]}).kickoff())


def paying_crew() -> Crew:
    """A crew whose tool needs the approval of a person."""
    return solo(Scripted(calls(("pay", {"amount": 3})), "it is done"), agent={"tools": [pay]})


HALF_A_PAIR = "calm \ud800"


def contain_itself() -> list[Any]:
    """A list that JSON cannot hold."""
    endless: list[Any] = [1]
    endless.append(endless)
    return endless


class Unencodable(Flow[dict[str, Any]]):
    """A tool and the run give what JSON cannot hold. The inputs say what."""

    @start()
    async def report(self) -> Any:
        given = {"bytes": b"\xff", "surrogate": HALF_A_PAIR, "cycle": contain_itself()}[self.state["what"]]

        @tool
        def fetch() -> Any:
            """Fetch."""
            return given

        await solo(Scripted(calls(("fetch", {})), "done"), agent={"tools": [fetch]}).kickoff_async()
        return given if self.state.get("is_plain") else {"found": given, HALF_A_PAIR: 1}


ALL: tuple[type[Flow[Any]], ...] = (
    Plain,
    Parallel,
    WithTools,
    WithSubAgent,
    Nested,
    Failing,
    Retracting,
    SiblingFails,
    Routed,
    Paying,
)


def events_of(flow: Flow[Any] | Crew, *answers: Any, inputs: dict[str, Any] | None = None) -> list[Event]:
    """All events of a run, whatever ends it. Its questions get ``answers``; without any, nobody answers."""
    seen: list[Event] = []
    left = iter(answers)

    async def answer(asked: InputRequested) -> Any:
        return next(left)

    async def run() -> None:
        ended = asyncio.Event()
        events = flow.events(inputs).pipe(ops.answer_with(answer)) if answers else flow.events(inputs)
        events.subscribe(seen.append, finally_(ended.set), ended.set)
        await ended.wait()

    asyncio.run(run())
    return seen


def finally_(then: Callable[[], None]) -> Callable[[Exception], None]:
    """What to subscribe as ``on_error``, where the error does not matter."""
    return lambda error: then()


def pay_after_resuming(answer: Any) -> tuple[list[Event], list[Event]]:
    """The events of a run like :class:`Paying` before and after it is resumed with an answer; None answers nothing."""
    # The model is not asked twice, so it must be one for both.
    return _resume(answer, Scripted(calls(("pay", {"amount": 3})), "it is done"))


def be_rejected_after_resuming(answer: Any) -> tuple[list[Event], list[Event]]:
    """The same, but a guardrail sends back the first answer after the tool call."""

    def judge(output: TaskOutput) -> tuple[bool, Any]:
        return output.raw == "right", "not right"

    return _resume(answer, Scripted(calls(("pay", {"amount": 3})), "wrong", "right"), guardrail=judge)


def _resume(answer: Any, model: Scripted, **task: Any) -> tuple[list[Event], list[Event]]:
    class Pays(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            return str(solo(model, agent={"tools": [pay]}, **task).kickoff())

    with Runs() as runs:
        run = runs.start(Pays())
        before = list(run.events().pipe(ops.to_output()))
        last = run.look_up().last
        run.resume({} if answer is None else {each.request_id: answer for each in run.pending()}, Pays())
        return before, list(run.events(after=last).pipe(ops.to_output()))


def of_type(events: Iterable[Event], *kinds: type) -> list[Any]:
    """The events of these kinds."""
    return [event for event in events if isinstance(event, kinds)]
