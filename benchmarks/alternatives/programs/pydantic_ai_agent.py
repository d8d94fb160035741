"""pydantic-ai: an agent, streamed, its text delta by delta."""

from common import PROMPT, drive
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def read(url: str) -> int:
    agent = Agent(OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=url, api_key="none")))
    async with agent.run_stream(PROMPT) as result:
        return sum([len(text) async for text in result.stream_text(delta=True, debounce_by=None)])


drive(read)
