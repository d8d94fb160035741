"""The files that ``rxflow new`` writes into a new project.

In the files, ``{name}`` stands for the name of the folder, and ``{Name}`` for the name of the flow's class.
"""

from collections.abc import Mapping

_FLOW = '''"""{Name}: two crews, one after the other. The embedded model needs neither a key nor a network.

rxflow run flow:{Name} --input topic=tides
"""

from pydantic import BaseModel

from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import listen, start
from rxflow.tools import tool

# A real model: LLM("openai/gpt-4.1-mini"), LLM("anthropic/claude-sonnet-4-5"), LLM("ollama_chat/llama3") …
MODEL = LLM("rxflow/demo", pace=0.05)


@tool
def look_up(subject: str) -> str:
    """Facts about a subject."""
    return f"there are three things to know about {subject}"


class State(BaseModel):
    """What the flow is given, and what its methods find out."""

    topic: str = "lighthouses"
    notes: str = ""


class {Name}(Flow[State]):
    """Researches a topic, and writes about it."""

    @start()
    def research(self) -> str:
        researcher = Agent(role="Researcher", goal="Find facts", backstory="Curious.", llm=MODEL, tools=[look_up])
        task = Task(description="Collect facts about {topic}", expected_output="A list", agent=researcher)
        self.state.notes = str(Crew(agents=[researcher], tasks=[task]).kickoff({"topic": self.state.topic}))
        return self.state.notes

    @listen(research)
    def write(self, notes: str) -> str:
        writer = Agent(role="Writer", goal="Write well", backstory="Never boring.", llm=MODEL)
        task = Task(description="Write about {topic}\\n{notes}", expected_output="A paragraph", agent=writer)
        return str(Crew(agents=[writer], tasks=[task]).kickoff({"topic": self.state.topic, "notes": notes}))
'''

_TEST = '''"""The flow runs offline: pytest, in this folder."""

import flow


def test_the_writer_works_with_what_the_researcher_found() -> None:
    trip = flow.{Name}()
    with trip.stream_chunks({"topic": "tides"}) as streaming:
        speakers = list(dict.fromkeys(chunk.agent_role for chunk in streaming))
    assert speakers == ["Researcher", "Writer"]
    assert "tides" in trip.state.notes
    assert streaming.result
'''

_README = """# {name}

    rxflow run flow:{Name} --input topic=tides
    rxflow plot flow:{Name}
    pytest

Name a real model at the top of `flow.py`.
"""

FILES: Mapping[str, str] = {"flow.py": _FLOW, "test_flow.py": _TEST, "README.md": _README}

TAKEN = frozenset({"Agent", "BaseModel", "Crew", "Flow", "LLM", "MODEL", "State", "Task"})
"""Names that the class of the flow cannot have, because ``flow.py`` uses them for something else."""
