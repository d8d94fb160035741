"""Several crews in one stream: two methods run at once, and a third waits for both and uses their results.

python examples/multi_step_flow.py
"""

from _model import chosen_model

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import and_, listen, start

MODEL = chosen_model()


def ask(role: str, description: str) -> str:
    """Run a crew of one agent with one task, and return its answer."""
    agent = Agent(role=role, goal="Help plan a garden", backstory="You garden for a living.", llm=MODEL)
    title = description.partition("\n")[0]
    task = Task(name=title, description=description, expected_output="A few sentences", agent=agent)
    return str(Crew(agents=[agent], tasks=[task]).kickoff())


class Garden(Flow):
    stream = True

    @start()
    def look_at_soil(self) -> None:
        self.state["soil"] = ask("Geologist", "Report on the soil of a slope")

    @start()
    def look_at_light(self) -> None:
        self.state["light"] = ask("Gardener", "Report on the light under birches")

    @listen(and_(look_at_soil, look_at_light))
    def choose_plants(self) -> str:
        return ask("Nursery", f"Decide on plants\n{self.state['soil']} {self.state['light']}")


flow = Garden()
streaming = flow.kickoff()
shown = ""
for chunk in streaming:
    # The first two methods run at once, so their chunks alternate: print a line at each change of method.
    if chunk.flow_method != shown:
        shown = chunk.flow_method
        print(f"\n[{shown}] {chunk.agent_role}:", end="")
    print(f" {chunk.content.strip()}", end="", flush=True)

print(f"\n\nMethods that completed: {len(flow.method_outputs)}")
print(f"The plan: {streaming.result}")
