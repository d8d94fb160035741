"""A flow in a live dashboard: three crews at once, a tool, retries, a branch that is stopped, and a summary.

python examples/progress_dashboard.py
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from _model import EMBEDDED, chosen_model, chosen_pace
from _storyteller import CAPTAIN, COOK, NAVIGATOR, POET, Storyteller
from reactivex import Observable

from rxflow import LLM, Agent, Crew, Flow, Task, TaskOutput, operators as ops
from rxflow.flow import and_, listen, start
from rxflow.screens import terminal
from rxflow.tools import BaseTool, tool

CHOSEN, PACE = chosen_model(), chosen_pace()
MODEL = LLM("demo/storyteller", source=Storyteller(PACE)) if CHOSEN.model == EMBEDDED else CHOSEN


@tool
def tide_table(port: str, day: str) -> str:
    """The tides at a port on a day."""
    time.sleep(20 * PACE)
    return "low water 08:05, 0.6 m; high water 14:20, 3.4 m"


def name_figures(answer: TaskOutput) -> tuple[bool, Any]:
    has_figures = any(map(str.isdigit, answer.raw))
    return has_figures, answer.raw if has_figures else "name figures: how much, for how many?"


def crew(role: str, task: str, tools: Sequence[BaseTool] = (), **options: Any) -> Crew:
    agent = Agent(role=role, goal="A good voyage", backstory="At sea since 1998.", llm=MODEL, tools=list(tools))
    return Crew(agents=[agent], tasks=[Task(description=task, expected_output="Notes", agent=agent, **options)])


class Voyage(Flow):
    @start()
    def plan_route(self) -> Any:
        return crew(NAVIGATOR, "Find the tide and set a course", [tide_table]).kickoff()

    @start()
    def plan_meals(self) -> Any:
        return crew(COOK, "Write the shopping list", guardrail=name_figures).kickoff()

    @start()
    def sing(self) -> Observable[Any]:
        return crew(POET, "Sing a shanty").observe().pipe(ops.limit_tokens(90))

    @listen(and_(plan_route, plan_meals, sing))
    def brief_the_crew(self) -> Any:
        return crew(CAPTAIN, "Brief the crew").kickoff()


logging.getLogger("rxflow").addHandler(logging.NullHandler())  # the screen shows what would be logged
terminal.show(Voyage())
