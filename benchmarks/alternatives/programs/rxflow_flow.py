"""rxflow: a flow of one method, whose crew has one task, streamed."""

from common import PROMPT, drive
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import start


class Reading(Flow):
    stream = True

    @start()
    def read(self) -> str:
        llm = LLM("openai/gpt-4o", base_url=self.url, api_key="none")
        reader = Agent(role="Reader", goal="Read", backstory="Reads", llm=llm)
        task = Task(description=PROMPT, expected_output="All of it", agent=reader)
        return str(Crew(agents=[reader], tasks=[task]).kickoff())


async def read(url: str) -> int:
    Reading.url = url
    return sum([len(chunk.content) async for chunk in await Reading().kickoff_async()])


drive(read)
