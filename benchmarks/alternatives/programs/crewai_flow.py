"""CrewAI: a flow of one method, whose crew has one task, streamed."""

from common import PROMPT, drive
from crewai import LLM, Agent, Crew, Task
from crewai.flow.flow import Flow, start


class Reading(Flow):
    stream = True

    @start()
    def read(self) -> str:
        llm = LLM(model="openai/gpt-4o", base_url=self.url, api_key="none", stream=True)
        reader = Agent(role="Reader", goal="Read", backstory="Reads", llm=llm)
        task = Task(description=PROMPT, expected_output="All of it", agent=reader)
        return str(Crew(agents=[reader], tasks=[task], stream=False).kickoff())


async def read(url: str) -> int:
    Reading.url = url
    return sum([len(chunk.content) async for chunk in await Reading().kickoff_async()])


drive(read)
