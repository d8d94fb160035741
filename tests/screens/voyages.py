"""Flows for screens: programs of tests import them, in a process of their own."""

from __future__ import annotations

from typing import Any

from reactivex import Observable

from rxflow import Flow, TaskOutput, operators as ops
from rxflow.flow import and_, listen, router, start
from rxflow.tools import tool
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.team import solo

HOSTILE = "[bold red]not markup[/] \x1b[2J\x1b]0;title\x07 \u202eesrever \x9b31m [/nonsense] \ud800 end"


@tool
def depth(place: str) -> str:
    """The depth at a place."""
    return f"11 metres at {place}"


@tool
def broken(place: str) -> str:
    """Always fails."""
    raise OSError(f"no echo at {place}")


def name_a_figure(answer: TaskOutput) -> tuple[bool, Any]:
    has_figure = any(map(str.isdigit, answer.raw))
    return has_figure, answer.raw if has_figure else "name a figure"


class Voyage(Flow):
    """Crews at once, a tool that works and one that fails, an answer that is sent back, a branch that is cut off."""

    @start()
    def sound(self) -> Any:
        model = Scripted(calls(("depth", {"place": "the bar"}), ("broken", {"place": "the cape"})), "We can pass.")
        return solo(model, agent={"role": "Pilot", "tools": [depth, broken]}, description="Sound the bar").kickoff()

    @start()
    def cook(self) -> Any:
        model = Scripted("Plenty of soup", "9 litres of soup")
        return solo(model, agent={"role": "Cook"}, description="Plan meals", guardrail=name_a_figure).kickoff()

    @router(cook)
    def decide(self, meals: Any) -> str | None:
        """Without soup there is no voyage."""
        return None if "soup" in str(meals) else "no soup"

    @start()
    def sing(self) -> Observable[Any]:
        crew = solo(Scripted("la " * 100), agent={"role": "Poet"}, description="Sing")
        return crew.observe().pipe(ops.limit_tokens(60))

    @listen(and_(sound, cook, sing))
    def brief(self) -> Any:
        return solo(Scripted("We sail at noon."), agent={"role": "Captain"}, description="Brief the crew").kickoff()

    @listen("no soup")
    def return_home(self) -> str:
        return "home"


class Hostile(Flow):
    """A model, an agent and a tool that try to command the terminal."""

    @start()
    def speak(self) -> Any:
        model = Scripted(calls(("depth", {"place": HOSTILE[:-6]})), [HOSTILE])
        return solo(model, agent={"role": f"Pilot{HOSTILE[:-6]}", "tools": [depth]}, description=HOSTILE).kickoff().raw


class Endless(Flow):
    """A model that says three words, and then nothing more."""

    @start()
    def speak(self) -> Any:
        model = Scripted(["One ", "two ", "three.", Gate()])
        return solo(model, agent={"role": "Speaker"}, description="Count").kickoff()


class Failing(Flow):
    """A method that raises."""

    @start()
    def sink(self) -> str:
        raise OSError("the keel is gone")


class Asking(Flow):
    """Asks the person at the terminal."""

    @start()
    def choose(self) -> str:
        return f"bound for {self.ask('Where to?')}"
