"""How a program is driven: a line on its standard input asks for one reading, a line of JSON answers.

Needs nothing but the standard library, so that it runs in any environment. Programs import it before anything else: it
says to the libraries that there is no telemetry, only the loopback.
"""

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Awaitable, Callable

os.environ.update(
    OPENAI_API_KEY="none",
    OPENAI_AGENTS_DISABLE_TRACING="1",
    LANGSMITH_TRACING="false",
    LANGCHAIN_TRACING_V2="false",
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LITELLM_MODE="PRODUCTION",
)
warnings.simplefilter("ignore")

PROMPT = "Read it all"


def drive(read: Callable[[str], Awaitable[int]]) -> None:
    """``read(url)`` reads a stream to its end, and gives the number of characters of its text."""
    url = sys.argv[1]
    answers = sys.stdout
    sys.stdout = sys.stderr  # some print as they please

    async def main() -> None:
        for _ in sys.stdin:
            begin = time.perf_counter()
            characters = await read(url)
            seconds = time.perf_counter() - begin
            print(json.dumps({"characters": characters, "seconds": seconds}), file=answers, flush=True)

    asyncio.run(main())
