"""The three ways in which an answer on OpenAI's chat wire is read, for tests that hold them against each other."""

import importlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rxflow import LLM

# litellm moves what is in the first two to the others when it is called.
_CALLBACKS = (
    "callbacks",
    "success_callback",
    "input_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_input_callback",
    "_async_failure_callback",
)


async def ignore(*_: object) -> None:
    """A litellm callback."""


SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}
"""A tool, in OpenAI's form."""


@contextmanager
def watched(callback: Any = ignore) -> Generator[None]:
    """A program that has registered a litellm callback: its calls are read by litellm's own wrapper."""
    litellm: Any = importlib.import_module("litellm")
    before = {name: list(getattr(litellm, name)) for name in _CALLBACKS}
    litellm.success_callback.append(callback)
    try:
        yield
    finally:
        for name, value in before.items():
            getattr(litellm, name)[:] = value


@dataclass(frozen=True)
class Way:
    """One way to send a request and to read the answer."""

    name: str
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @contextmanager
    def model(self, url: str, name: str = "openai/gpt-4o", **settings: Any) -> Generator[LLM]:
        """A model whose calls go this way."""
        with self.around():
            given: dict[str, Any] = {"base_url": url, "api_key": "k"} | self.options | settings
            yield LLM(name, **given)


DIRECT = Way("direct")
"""Asked without litellm."""
BEHIND_LITELLM = Way("behind litellm", options={"via": "litellm"})
"""litellm sends the request; the response's own bytes are read."""
BY_WRAPPER = Way("litellm's wrapper", watched)
"""litellm sends the request and reads the answer."""

WAYS = {way.name: way for way in (DIRECT, BEHIND_LITELLM, BY_WRAPPER)}
