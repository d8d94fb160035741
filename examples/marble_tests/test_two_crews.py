"""A whole flow of two crews, as one line of a diagram: what its users see, and when."""

from typing import Any

from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM


class Report(Flow):
    """Two sync methods with a crew each, the way most programs begin."""

    researcher: LLM
    writer: LLM

    @start()
    def research(self) -> str:
        return str(crew_of("Researcher", self.researcher, "Research {topic}").kickoff({"topic": "tides"}))

    @listen(research)
    def write(self, notes: str) -> str:
        return str(crew_of("Writer", self.writer, "Write about: {notes}").kickoff({"notes": notes}))


def crew_of(role: str, llm: LLM, description: str) -> Crew:
    agent = Agent(role=role, goal="Do it well", backstory="Has done it before", llm=llm)
    return Crew(agents=[agent], tasks=[Task(description=description, expected_output="A text", agent=agent)])


def report(researcher: LLM, writer: LLM) -> Report:
    flow = Report()
    flow.researcher, flow.writer = researcher, writer
    return flow


def test_the_second_crew_speaks_when_the_first_has_ended(marbles: Marbles) -> None:
    researcher = ScriptedLLM("-no--tes-|")
    writer = ScriptedLLM("          -re-port|")
    marbles.expect(report(researcher, writer).observe()).to_say(
        #                 no--tes-
        "                -no--tes--re-port|"
    )
    assert "Write about: notes" in writer.prompts[0]


def test_what_the_first_could_not_finish_the_second_never_begins(marbles: Marbles) -> None:
    researcher = ScriptedLLM("-no--#", error=TimeoutError("the provider went silent"))
    writer = ScriptedLLM()
    marbles.expect(report(researcher, writer).observe()).to_say(
        "                     -no--#",
        error=TimeoutError("the provider went silent"),
    )


def test_leaving_early_cancels_the_call_that_speaks(marbles: Marbles) -> None:
    researcher = ScriptedLLM("-no--tes-|")
    stream: Any = report(researcher, ScriptedLLM()).observe()
    marbles.expect(stream, "  ^--!").to_say("-no-")
    assert researcher.calls[0].cancelled_at == 0.003
