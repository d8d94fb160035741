"""A person approves, changes or refuses a payment, and then approves a letter.

In a terminal, you are asked. Elsewhere, a function answers in place of a person.

python examples/approval.py
"""

import sys
from typing import Any

from _model import chosen_model
from reactivex import Observable

from rxflow import Agent, Crew, Flow, Task, operators as ops
from rxflow.flow import HumanFeedbackResult, human_feedback, listen, start
from rxflow.tools import tool
from rxflow.types.events import Event, FlowFinished, InputReceived, InputRequested, ToolFinished

MODEL = chosen_model()


@tool(needs_approval=True)
def pay(amount: float, purpose: str) -> str:
    """Pay an amount in euros."""
    return f"{amount:g} euros paid for {purpose}"


class Order(Flow):
    @start()
    def order(self) -> str:
        clerk = Agent(role="Clerk", goal="Pay what is due", backstory="Counts twice", llm=MODEL, tools=[pay])
        task = Task(description="Pay the harbour dues", expected_output="A receipt", agent=clerk)
        return str(Crew(agents=[clerk], tasks=[task]).kickoff())

    @listen(order)
    @human_feedback("Shall this letter go out?", emit=["approved", "held"], llm=MODEL, default_outcome="held")
    def write(self, receipt: str) -> str:
        return f"Dear harbour master, {receipt}"

    @listen("approved")
    def send(self, review: HumanFeedbackResult) -> str:
        name = self.ask("Who signs?", timeout=300)
        return f"{review.output} Yours, {name or 'the clerk'}"


def made_up(request: InputRequested) -> Any:
    """Answer the questions if the program has no terminal."""
    return {"approval": '{"amount": 12, "purpose": "the berth"}', "feedback": "approved"}.get(request.kind, "Ada")


events: Observable[Event] = Order().events()
if not sys.stdin.isatty():
    events = events.pipe(ops.answer_with(made_up))

for event in events.pipe(ops.to_output()):
    match event:
        case InputRequested(kind=kind, message=message):
            print(f"[{kind}] {message}")
        case InputReceived(value=value):
            print(f"  -> {value}")
        case ToolFinished(result=result):
            print(f"the tool: {result}")
        case FlowFinished(result=result):
            print(f"\n{result}")
        case _:
            pass
