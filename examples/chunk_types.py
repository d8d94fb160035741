"""Text and tool calls in one stream: how to distinguish them, and how to join the arguments of a call.

python examples/chunk_types.py
"""

import json
from collections import defaultdict
from typing import Any

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import start
from rxflow.tools import tool
from rxflow.types.streaming import FlowStreamingOutput, StreamChunkType

MODEL = chosen_model()


@tool
def depth_of(place: str, metres: bool) -> str:
    """How deep the water is at a place."""
    return f"{11 if metres else 36} {'metres' if metres else 'feet'}"


class Soundings(Flow):
    stream = True

    @start()
    def sound(self) -> Any:
        pilot = Agent(role="Pilot", goal="Bring ships in", backstory="You know the bar.", llm=MODEL, tools=[depth_of])
        task = Task(description="Report on the north channel", expected_output="Its depth", agent=pilot)
        return Crew(agents=[pilot], tasks=[task]).kickoff()


streaming: FlowStreamingOutput = Soundings().kickoff()
text = ""
names: dict[str | None, str | None] = {}
arguments: defaultdict[str | None, str] = defaultdict(str)
for chunk in streaming:
    if chunk.chunk_type is StreamChunkType.TEXT:
        text += chunk.content
    elif chunk.tool_call:
        call = chunk.tool_call
        print(f"a piece of a call of {call.tool_name}: {call.arguments!r}")
        names[call.tool_id] = call.tool_name
        arguments[call.tool_id] += call.arguments

for tool_id, name in names.items():
    print(f"\nThe call {tool_id}: {name}(**{json.loads(arguments[tool_id])})")
print(f"\nThe text: {text}")
