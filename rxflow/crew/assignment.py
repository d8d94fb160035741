"""A task as one agent is to carry it out in one run: everything filled in, nothing shared with other runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from rxflow.crew.guardrails import Guardrail
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.tool_use import ToolCache
from rxflow.llm.request import Message
from rxflow.llm.structured import instructions_for
from rxflow.tools import BaseTool
from rxflow.types.results import OutputFormat, TaskOutput

if TYPE_CHECKING:
    from rxflow.crew.agent import Agent

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")
# A home folder at the beginning, a variable at the beginning of any part: "~/a", "~me/a", "$HOME/a", "out/${DAY}/a".
_EXPANDED_BY_SHELLS = re.compile(r"\A~[^/\\]*|(?:\A|(?<=[/\\]))\$(?:[A-Za-z_]\w*|\{[^}]*\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """Who the agent is in this run: its texts with the inputs filled in."""

    agent: Agent
    role: str
    goal: str
    backstory: str

    @classmethod
    def of(cls, agent: Agent, inputs: Mapping[str, Any] | None) -> Persona:
        """``agent`` with its placeholders filled. Raises ValueError for a missing input."""
        where = f"agent {agent.role!r}:"
        return cls(
            agent=agent,
            role=fill(agent.role, inputs, f"{where} role").strip(),  # YAML's folded texts end with a line break
            goal=fill(agent.goal, inputs, f"{where} goal"),
            backstory=fill(agent.backstory, inputs, f"{where} backstory"),
        )

    def introduce(self, messages: list[Message]) -> list[Message]:
        """``messages`` with who the agent is before them: as a system message, or in the first one."""
        who = f"You are {self.role}. {self.backstory}\nYour goal: {self.goal}"
        if self.agent.use_system_prompt:
            return [{"role": "system", "content": who}, *messages]
        first, *others = messages
        if isinstance(first.get("content"), str):
            return [{**first, "content": f"{who}\n\n{first['content']}"}, *others]
        return [{"role": "user", "content": who}, *messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One task for one agent."""

    persona: Persona
    description: str
    expected_output: str
    name: str | None = None
    task_id: str = ""
    index: int = 0
    opening: Sequence[Message] = ()  # a conversation that the agent goes on with, in place of the description
    context: str = ""
    tools: Sequence[BaseTool] = ()
    output_model: type[BaseModel] | None = None
    output_format: OutputFormat = OutputFormat.RAW
    output_file: OutputFile | None = None
    callbacks: Sequence[Callable[[TaskOutput], Any]] = ()
    step_callback: Callable[[Any], Any] | None = None
    guardrails: Sequence[Guardrail] = ()
    guardrail_max_retries: int = 3
    human_input: bool = False
    markdown: bool = False
    rates: Sequence[RateLimit] = field(default_factory=tuple)
    caches_tools: bool = True
    tool_cache: ToolCache | None = None  # that of the crew's run; None: one of its own
    keep_output: Callable[[TaskOutput], None] | None = None
    keep_retries: Callable[[int], None] | None = None

    @property
    def title(self) -> str:
        """What users see as the task's name."""
        return self.name or self.description

    def messages(self) -> list[Message]:
        """The opening of the conversation."""
        asked = list(self.opening) or [{"role": "user", "content": self.description}]
        parts = [f"Expected of your answer: {self.expected_output}"] if self.expected_output else []
        if self.markdown:
            parts.append("Format your answer in Markdown.")
        if self.output_model is not None:
            parts.append(instructions_for(self.output_model))
        if self.persona.agent.inject_date:
            parts.append(f"Current date: {datetime.now().astimezone().strftime(self.persona.agent.date_format)}")
        if self.context:
            parts.append(f"What is known so far:\n{self.context}")
        return self.persona.introduce(_with_text(asked, parts))


def _with_text(messages: list[Message], parts: list[str]) -> list[Message]:
    """``messages`` with ``parts`` at the end of the last one, or after it where that is not a user's text."""
    *earlier, last = messages
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*earlier, {**last, "content": "\n\n".join([last["content"], *parts])}]
    return [*messages, {"role": "user", "content": "\n\n".join(parts)}] if parts else messages


def fill(text: str, inputs: Mapping[str, Any] | None, where: str) -> str:
    """``text`` with its placeholders filled; with no inputs at all it stays literal.

    Raises:
        ValueError: a placeholder has no input; says which, and ``where``.
    """
    if inputs is None:
        return text

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in inputs:
            raise ValueError(
                f"{where} needs the input {name!r}, which is missing; inputs has {sorted(inputs) or 'nothing'}"
            )
        return str(inputs[name])

    return PLACEHOLDER.sub(value, text)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Where an answer is written: a path, and the folder that it must not leave.

    The program names the folder, what the template says before its first placeholder. Inputs name only what lies in it:
    they often come from strangers, and the file is written with this program's rights.

    ``folder`` is None where nothing was filled in: a path that the program gives as a whole may be anywhere.
    """

    path: Path
    folder: Path | None
    where: str

    @staticmethod
    def check_template(template: str) -> None:
        """Raise ValueError for a path that a shell would expand: as it stands it would make a folder named ``~``."""
        match = _EXPANDED_BY_SHELLS.search(template)
        if match is not None:
            raise ValueError(
                f"output_file {template!r}: {match.group()!r} is not expanded here, as only a shell does that; write "
                "the path out, with os.path.expanduser(…) or os.path.expandvars(…) for instance"
            )

    @classmethod
    def of(cls, template: str, inputs: Mapping[str, Any] | None, where: str) -> Self:
        """``template`` with its placeholders filled. Raises ValueError where that leads out of the folder."""
        filled = fill(template, inputs, where)
        names = [match.group(1) for match in PLACEHOLDER.finditer(template)] if inputs is not None else []
        for name in names:
            value = str(inputs[name]) if inputs is not None else ""
            if PurePath(value).is_absolute() or ".." in PurePath(value).parts or "\0" in value:
                raise ValueError(f"{where}: the input {name!r} would lead out of its folder: {value!r}")
        if filled.startswith(("~", "$")):
            cls.check_template(filled)
        # Harmless values may add up to harm: two dots, or an empty first folder.
        if (PurePath(filled).is_absolute() and not PurePath(template).is_absolute()) or _climbs(filled) > _climbs(
            template
        ):
            raise ValueError(f"{where}: the inputs would lead out of its folder: {filled!r}")
        before = template[: next(PLACEHOLDER.finditer(template)).start()] if names else ""
        file = cls(Path(filled), Path(before + "x").parent if names else None, where)
        file.check()
        return file

    def check(self) -> None:
        """Raise ValueError where a symbolic link leads out of the folder: an input may have chosen it."""
        if self.folder is None:
            return
        target, folder = self.path.resolve(), self.folder.resolve()
        if not target.is_relative_to(folder):
            raise ValueError(
                f"{self.where}: a symbolic link would lead out of its folder: {str(self.path)!r} is {str(target)!r}, "
                f"and not in {str(folder)!r}"
            )

    def write(self, text: str) -> None:
        """Write it, with the folders that it needs. The links may have changed since the run began."""
        self.check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text, encoding="utf-8")


def _climbs(path: str) -> int:
    return PurePath(path).parts.count("..")
