"""Assignments. An assignment is a task for one agent in one run.

The inputs of the run are filled into the texts of the task and of the agent. The module also contains limits for LLM
calls, and the files that an assignment writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import md5
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, PrivateAttr

from rxflow._options import Configurable
from rxflow.crew._guardrails import Guardrail
from rxflow.crew._tool_use import ImageTool, ToolCache
from rxflow.llm.source import Message, instructions_for
from rxflow.tools import BaseTool
from rxflow.types import OutputFormat, TaskOutput

if TYPE_CHECKING:
    from rxflow.crew.agent import Agent


# One lock for all limits, because an LLM call takes a slot in several limits at once. Runs in other threads may use the
# same limits.
_lock = threading.Lock()


class RateLimit:
    """Allows at most ``calls`` LLM calls in any ``period`` seconds. A slot is the permission to begin one call."""

    def __init__(self, calls: int, *, period: float = 60.0) -> None:
        if calls < 1:
            raise ValueError(f"max_rpm must be at least 1 request a minute: {calls!r}")
        self.calls = calls
        self._period = period
        self._begun: deque[float] = deque(maxlen=min(calls, sys.maxsize))

    async def wait(self) -> None:
        """Wait for a free slot, and take it."""
        await wait_for_all(self)

    def seconds_until_free(self, now: float) -> float:
        """Return the seconds until a slot is free; 0 or less if one is free now."""
        return self._begun[0] + self._period - now if len(self._begun) == self.calls else 0.0

    def take(self, now: float) -> None:
        """Take a slot for a call that begins at the time ``now``."""
        self._begun.append(now)


def limit_of(max_rpm: int | None, known: RateLimit | None) -> RateLimit | None:
    """Return the limit for ``max_rpm``, or None if ``max_rpm`` is None.

    If ``known`` allows exactly ``max_rpm`` calls, return ``known``, because it remembers the calls so far.
    """
    if max_rpm is None:
        return None
    return known if known is not None and known.calls == max_rpm else RateLimit(max_rpm)


async def wait_for_all(*limits: RateLimit) -> None:
    """Take a slot in each of ``limits``, as soon as all of them have a free slot.

    During the wait, no slot is taken. A cancelled wait therefore takes none.
    """
    while (delay := _seconds_until_taken(limits)) > 0:  # noqa: ASYNC110 - a clock has no event to wait for
        await asyncio.sleep(delay)


def _seconds_until_taken(limits: tuple[RateLimit, ...]) -> float:
    with _lock:
        now = asyncio.get_running_loop().time()  # the clock of asyncio.sleep(), which may be virtual in tests
        delay = max((limit.seconds_until_free(now) for limit in limits), default=0.0)
        if delay <= 0:
            for limit in limits:
                limit.take(now)
        return delay


PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")
_MARKDOWN = """Your final answer MUST be formatted in Markdown syntax.
Follow these guidelines:
- Use # for headers
- Use ** for bold text
- Use * for italic text
- Use - or * for bullet points
- Use `code` for inline code
- Use ```language for code blocks"""
# Matches a home folder at the beginning of a path, or a variable at the beginning of any part of the path: "~/a",
# "~me/a", "$HOME/a", "out/${DAY}/a".
_EXPANDED_BY_SHELLS = re.compile(r"\A~[^/\\]*|(?:\A|(?<=[/\\]))\$(?:[A-Za-z_]\w*|\{[^}]*\})")


class Fillable(Configurable):
    """The base class of agents and tasks. ``texts`` names the fields whose texts may have placeholders.

    A run fills in the placeholders without changing the object.
    """

    texts: ClassVar[tuple[str, ...]]
    # By the name of the field: its template, and the text that interpolate_inputs() made of it.
    _filled: Mapping[str, tuple[str, str]] = PrivateAttr(default_factory=dict[str, tuple[str, str]])

    @property
    def key(self) -> str:
        """A hash of the texts, before inputs are filled in. Objects with equal texts have equal keys."""
        return make_key(*map(self._get_template, self.texts))

    def interpolate_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Fill in the placeholders in the fields of this object, for programs that read these fields.

        May be called again with other inputs. A text that was assigned since the last call is a new template. If
        ``inputs`` is empty, the placeholders stay.

        Raises:
            ValueError: a placeholder has no input.
        """
        templates = {name: self._get_template(name) for name in self.texts}
        filled = {name: fill(text, inputs or None, f"{self.kind} {name}") for name, text in templates.items()}
        for name, text in filled.items():
            self._set_filled(name, templates[name], text)

    def _get_template(self, name: str) -> Any:
        """Return the text of a field before inputs were filled in."""
        text = getattr(self, name)
        template, filled = self._filled.get(name, (text, text))
        return template if text == filled else text

    def _set_filled(self, name: str, template: str, text: str) -> None:
        setattr(self, name, text)
        self._filled = {**self._filled, name: (template, text)}


def make_key(*texts: str) -> str:
    """Return a hash of ``texts`` that is the same in every process."""
    return md5("|".join(texts).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """An agent in one run, with the inputs filled into its texts."""

    agent: Agent
    role: str
    goal: str
    backstory: str

    @classmethod
    def of(cls, agent: Agent, inputs: Mapping[str, Any] | None) -> Persona:
        """Return the persona of ``agent``, with ``inputs`` filled in. Raises ValueError if an input is missing."""
        where = f"agent {agent.role!r}:"
        return cls(
            agent=agent,
            role=fill(agent.role, inputs, f"{where} role").strip(),  # folded texts in YAML end with a line break
            goal=fill(agent.goal, inputs, f"{where} goal"),
            backstory=fill(agent.backstory, inputs, f"{where} backstory"),
        )

    def introduce(self, messages: list[Message]) -> list[Message]:
        """Return ``messages`` with the agent's introduction.

        If ``use_system_prompt`` is True, the introduction is a system message before the others. Otherwise, the text of
        the first message begins with the introduction. If the content of the first message is not a text, the
        introduction is an additional user message at the beginning.

        If there is a prompt template, the last message is changed too: the text of the last message is put into the
        template, and the filled template is the new text.
        """
        who = self._apply(
            self.agent.system_template, "System", f"You are {self.role}. {self.backstory}\nYour goal: {self.goal}"
        )
        *earlier, last = messages
        if self.agent.prompt_template is not None and isinstance(last.get("content"), str):
            messages = [
                *earlier,
                {**last, "content": self._apply(self.agent.prompt_template, "Prompt", last["content"])},
            ]
        if self.agent.use_system_prompt:
            return [{"role": "system", "content": who}, *messages]
        first, *others = messages
        if isinstance(first.get("content"), str):
            return [{**first, "content": f"{who}\n\n{first['content']}"}, *others]
        return [{"role": "user", "content": who}, *messages]

    def _apply(self, template: str | None, slot: str, text: str) -> str:
        """Put ``text`` into ``template``, and fill in ``{role}``, ``{goal}`` and ``{backstory}``.

        ``slot`` names where the text is put. For example, "System" stands for ``{{ .System }}`` in the template. If
        there is no template, return ``text`` itself.
        """
        if template is None:
            return text
        own = {"role": self.role, "goal": self.goal, "backstory": self.backstory}
        values = {f"{{{name}}}": value for name, value in own.items()} | {f"{{{{ .{slot} }}}}": text}
        # In one pass, so that a placeholder inside a value is not filled in.
        return re.sub("|".join(map(re.escape, values)), lambda match: values[match.group()], template)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One task for one agent."""

    persona: Persona
    description: str
    expected_output: str
    name: str | None = None
    task_id: str = ""
    index: int = 0
    opening: Sequence[Message] = ()  # a conversation to continue; if empty, the description is the first message
    context: str = ""
    tools: Sequence[BaseTool] = ()
    output_model: type[BaseModel] | None = None
    output_format: OutputFormat = OutputFormat.RAW
    output_file: OutputFile | None = None
    log_file: LogFile | None = None
    callbacks: Sequence[Callable[[TaskOutput], Any]] = ()
    step_callback: Callable[[Any], Any] | None = None
    guardrails: Sequence[Guardrail] = ()
    guardrail_max_retries: int = 3
    human_input: bool = False
    markdown: bool = False
    rates: Sequence[RateLimit] = field(default_factory=tuple)
    caches_tools: bool = True
    tool_cache: ToolCache | None = None  # shared by the tasks of a crew's run; if None, the task has a cache of its own
    keep_start: Callable[[], None] | None = None
    keep_output: Callable[[TaskOutput], None] | None = None
    keep_retries: Callable[[int], None] | None = None

    @property
    def title(self) -> str:
        """The name of the task; the description if the task has no name."""
        return self.name or self.description

    @property
    def offered_tools(self) -> Sequence[BaseTool]:
        """The tools that the model may call."""
        return [*self.tools, ImageTool()] if self.persona.agent.multimodal else self.tools

    def messages(self) -> list[Message]:
        """Return the first messages of the conversation."""
        asked = list(self.opening) or [{"role": "user", "content": self.description}]
        parts = [f"Expected of your answer: {self.expected_output}"] if self.expected_output else []
        if self.markdown:
            parts.append(_MARKDOWN)
        if self.output_model is not None:
            parts.append(instructions_for(self.output_model))
        if self.persona.agent.inject_date:
            parts.append(f"Current date: {datetime.now().astimezone().strftime(self.persona.agent.date_format)}")
        if self.context:
            parts.append(f"What is known so far:\n{self.context}")
        return self.persona.introduce(_with_text(asked, parts))


def _with_text(messages: list[Message], parts: list[str]) -> list[Message]:
    """Append ``parts`` to the last message if it is a text from the user. Otherwise add a message with ``parts``.

    If ``parts`` is empty, no message is added.
    """
    *earlier, last = messages
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*earlier, {**last, "content": "\n\n".join([last["content"], *parts])}]
    return [*messages, {"role": "user", "content": "\n\n".join(parts)}] if parts else messages


def fill(text: str, inputs: Mapping[str, Any] | None, where: str) -> str:
    """Fill in the placeholders of ``text``. If ``inputs`` is None, the text is returned unchanged.

    Raises:
        ValueError: a placeholder has no input. The error message begins with ``where``, and names the input.
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
    """The path of a file for an answer, and the folder in which the path must be.

    The program chooses the folder: the template names it before the first placeholder. Inputs can only choose a path
    inside this folder. Inputs often come from strangers, and the file is written with this program's rights.

    ``folder`` is None if no placeholder was filled in. The path may then be anywhere.
    """

    path: Path
    folder: Path | None
    where: str

    @staticmethod
    def check_template(template: str) -> None:
        """Raise ValueError if ``template`` does not name a file, or needs a shell.

        A template needs a shell if it begins with ``~``, or if a part of the path begins with ``$NAME``. Without a
        shell, Python would create a folder with the name ``~``.
        """
        if template and (not _names_file(template) or "\0" in template):
            raise ValueError(f"output_file {template!r} does not name a file")
        match = _EXPANDED_BY_SHELLS.search(template)
        if match is not None:
            raise ValueError(
                f"output_file {template!r}: {match.group()!r} is not expanded, because only a shell does that; write "
                "the path out, with os.path.expanduser(…) or os.path.expandvars(…) for instance"
            )

    @classmethod
    def of(cls, template: str, inputs: Mapping[str, Any] | None, where: str) -> Self:
        """Return the file for ``template``, with its placeholders filled in.

        Raises:
            ValueError: a placeholder has no input, or the path leads out of the folder, is a folder, does not name a
                file, or begins with something that only a shell expands.
        """
        filled = fill(template, inputs, where)
        names = [match.group(1) for match in PLACEHOLDER.finditer(template)] if inputs is not None else []
        for name in names:
            value = str(inputs[name]) if inputs is not None else ""
            if PurePath(value).is_absolute() or ".." in PurePath(value).parts or "\0" in value:
                raise ValueError(f"{where}: the input {name!r} would lead out of its folder: {value!r}")
        if filled.startswith(("~", "$")):
            cls.check_template(filled)
        # A value can be harmless alone, and still lead out of the folder. For example, the template has a dot, and the
        # value adds another dot. Or the value is empty, and the template continues with a slash.
        if (PurePath(filled).is_absolute() and not PurePath(template).is_absolute()) or _climbs(filled) > _climbs(
            template
        ):
            raise ValueError(f"{where}: the inputs would lead out of its folder: {filled!r}")
        if not _names_file(filled):
            raise ValueError(f"{where}: {filled!r} does not name a file")
        before = template[: next(PLACEHOLDER.finditer(template)).start()] if names else ""
        file = cls(Path(filled), Path(before + "x").parent if names else None, where)
        file.check()
        return file

    def check(self) -> None:
        """Raise ValueError if the path is a folder, or if a symbolic link on the path leads out of ``folder``."""
        if self.path.is_dir():
            raise ValueError(f"{self.where}: {str(self.path)!r} is a folder")
        if self.folder is None:
            return
        target, folder = self.path.resolve(), self.folder.resolve()
        if not target.is_relative_to(folder):
            raise ValueError(
                f"{self.where}: a symbolic link would lead out of its folder: {str(self.path)!r} is {str(target)!r}, "
                f"and not in {str(folder)!r}"
            )

    def write(self, text: str) -> None:
        """Write the file, and create its folders.

        The path is checked again, because links may have changed during the run.
        """
        self.check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text, encoding="utf-8")


def _names_file(path: str) -> bool:
    return os.path.basename(path) not in ("", ".", "..")  # noqa: PTH119 - Path drops a dot at the end


def _climbs(path: str) -> int:
    return PurePath(path).parts.count("..")


_DEFAULT_NAME = "logs.txt"

_writing = threading.Lock()  # held during each change, because tasks that run at the same time share a log file


@dataclass(frozen=True, slots=True)
class LogFile:
    """The log file of a crew's tasks.

    In a ``.txt`` file, each entry is a line, with the values as JSON. A ``.json`` file contains a list, and each entry
    is an object in this list.
    """

    path: Path

    @classmethod
    def of(cls, option: bool | str | None) -> Self | None:
        """Return the file for the option ``output_log_file``; None if the option is not set.

        True means ``logs.txt``. A name that ends neither in ``.json`` nor in ``.txt`` gets the ending ``.txt``.
        """
        if not option:
            return None
        name = _DEFAULT_NAME if option is True else option
        return cls(Path(name if name.endswith((".json", ".txt")) else f"{name}.txt"))

    def write(
        self, status: Literal["started", "completed"], *, name: str | None, task: str, agent: str, **more: str
    ) -> None:
        """Add an entry. Create the file and its folders if they do not exist.

        Raises:
            OSError: the file cannot be written.
            ValueError: an existing ``.json`` file does not contain a list.
        """
        now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
        entry = {"task_name": name, "task": task, "agent": agent, "status": status, **more}
        with _writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.suffix == ".json":
                entries = [*self._read(), {"timestamp": now, **entry}]
                self.path.write_text(json.dumps(entries, indent=4) + "\n", encoding="utf-8")
                return
            with self.path.open("a", encoding="utf-8") as file:
                shown = (f"{key}={json.dumps(value or '', ensure_ascii=False)}" for key, value in entry.items())
                file.write(f"{now}: {', '.join(shown)}\n")

    def _read(self) -> list[Any]:
        """Return the entries in the ``.json`` file. Raises ValueError if the file does not contain a list.

        CrewAI overwrites such a file. rxflow raises instead, so that no content is lost.
        """
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        try:
            entries: object = json.loads(text or "[]")
        except ValueError as error:
            raise ValueError(f"output_log_file {str(self.path)!r} is not JSON ({error}); name another file") from error
        if not isinstance(entries, list):
            raise ValueError(f"output_log_file {str(self.path)!r} does not hold a list of entries; name another file")
        return cast("list[Any]", entries)
