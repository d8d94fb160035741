"""The floor: a bare httpx + json loop."""

import json

from common import PROMPT, drive
import httpx


async def read(url: str) -> int:
    texts = []
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{url}/chat/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choices = json.loads(line[6:])["choices"]
                if choices and (text := choices[0]["delta"].get("content")):
                    texts.append(text)
    return len("".join(texts))


drive(read)
