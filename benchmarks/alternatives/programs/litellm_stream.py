"""litellm's own stream, by its async API, which is the faster one."""

from common import PROMPT, drive
import litellm


async def read(url: str) -> int:
    stream = await litellm.acompletion(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": PROMPT}],
        api_base=url,
        api_key="none",
        stream=True,
    )
    return sum([len(chunk.choices[0].delta.content or "") async for chunk in stream])


litellm.REPEATED_STREAMING_CHUNK_LIMIT = 10**9
drive(read)
