"""The documentation's page: its Python blocks, and a place to run them in as a reader would."""

import ast
import asyncio
import inspect
import io
import re
from collections.abc import Callable, Coroutine
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[3] / "shared" / "spec" / "streaming-flow-execution.md"
FENCE = re.compile(r"^```python\b.*?\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)


def blocks() -> "list[Block]":
    """All Python blocks, in the page's order."""
    return [Block(number, source) for number, source in enumerate(FENCE.findall(PATH.read_text(encoding="utf-8")))]


@dataclass(frozen=True)
class Block:
    """One block, with the import renamed."""

    number: int
    written: str

    @cached_property
    def source(self) -> str:
        return re.sub(r"\bcrewai\b", "rxflow", self.written)

    def given(self, call: str, argument: str) -> list[str]:
        """What the block passes as ``argument`` to each ``call``; an f-string as its ``{template}``."""
        calls = [node for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Call)]
        calls.sort(key=lambda node: node.lineno)
        return [
            _text(keyword.value)
            for node in calls
            if isinstance(node.func, ast.Name) and node.func.id == call
            for keyword in node.keywords
            if keyword.arg == argument
        ]

    @property
    def roles(self) -> list[str]:
        return self.given("Agent", "role")

    @property
    def descriptions(self) -> list[str]:
        return self.given("Task", "description")


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case ast.FormattedValue(value=ast.Name(id=name)):
            return f"{{{name}}}"
        case _:
            raise ValueError(f"no text: {ast.unparse(node)}")


class Terminal(io.StringIO):
    """What a program prints; tells ``watch`` of every piece, as it comes."""

    watch: Callable[[str], None] | None = None

    def write(self, text: str, /) -> int:
        written = super().write(text)
        if self.watch is not None:
            self.watch(text)
        return written

    @property
    def text(self) -> str:
        return self.getvalue()


class Program:
    """A module that blocks run in, one after the other, each with the names of those before it."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}
        self.terminal = Terminal()

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def defined(self, base: type) -> type[Any]:
        """The one class of this kind that the page has defined."""
        (found,) = [
            each
            for each in self.names.values()
            if isinstance(each, type) and base in each.__bases__ and each.__module__ == "page"
        ]
        return found

    def run(self, block: Block) -> str:
        """Run a block and return what it printed."""
        began = len(self.terminal.text)
        with redirect_stdout(self.terminal):
            assert self._evaluate(block) is None, "a block that awaits needs arun()"
        return self.terminal.text[began:]

    async def arun(self, block: Block) -> str:
        """The same for a block that awaits at its top level."""
        began = len(self.terminal.text)
        with redirect_stdout(self.terminal):
            awaiting = self._evaluate(block)
            assert awaiting is not None, "a block that does not await needs run()"
            await awaiting
        return self.terminal.text[began:]

    def begin(self, block: Block) -> "asyncio.Task[str]":
        """The same as a task that can be cancelled."""
        return asyncio.get_running_loop().create_task(self.arun(block))

    def _evaluate(self, block: Block) -> Coroutine[Any, Any, None] | None:
        code = compile(
            block.source,
            f"{PATH.name}, block {block.number}",
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        if code.co_flags & inspect.CO_COROUTINE:
            awaiting: Coroutine[Any, Any, None] = eval(code, self.names)
            return awaiting
        exec(code, self.names)
        return None
