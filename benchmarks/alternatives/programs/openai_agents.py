"""The OpenAI Agents SDK: an agent, streamed, its text deltas."""

from common import PROMPT, drive
from agents import Agent, OpenAIChatCompletionsModel, Runner
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent


async def read(url: str) -> int:
    model = OpenAIChatCompletionsModel("gpt-4o", AsyncOpenAI(base_url=url, api_key="none"))
    result = Runner.run_streamed(Agent(name="Reader", instructions="Read", model=model), PROMPT)
    characters = 0
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            characters += len(event.data.delta)
    return characters


drive(read)
