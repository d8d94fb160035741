"""``@CrewBase``: a class whose agents and tasks are described in YAML files."""

from __future__ import annotations

import inspect
from collections import UserDict
from collections.abc import Callable, Mapping
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from rxflow.crew import Agent, Task
from rxflow.llm.model import LLM
from rxflow.project.annotations import find_marked

C = TypeVar("C")

Entry = dict[str, Any]


def CrewBase(cls: type[C]) -> type[C]:  # noqa: N802 - the name in CrewAI
    """Turn ``cls`` into a crew class, whose agents and tasks are described in YAML files.

    ``self.agents_config`` and ``self.tasks_config`` have the entries of ``config/agents.yaml`` and
    ``config/tasks.yaml`` in the folder of the class's module. To use another file, set ``agents_config`` or
    ``tasks_config`` in the class to the path of that file, as a string. A mapping of entries can be set instead. A
    subclass with ``@CrewBase`` that does not set a path uses the file in its own folder. If that file does not exist,
    the subclass uses the file of its base. A file is read at its first use.

    Some options of an entry contain the name of a member of the class:

    - ``agent`` and ``context`` refer to methods with ``@agent`` and ``@task``;
    - ``llm``, ``tools`` and the callbacks refer to methods with ``@llm``, ``@tool`` and ``@callback``;
    - ``output_pydantic`` and ``output_json`` refer to pydantic classes with these decorators.

    An ``llm`` may also be a model's name. ``self.agents`` and ``self.tasks`` are the lists of all agents and tasks that
    the methods create. ::

        @CrewBase
        class News:
            @agent
            def reporter(self):
                return Agent(config=self.agents_config["reporter"])

            @task
            def report(self):
                return Task(config=self.tasks_config["report"])

            @crew
            def crew(self):
                return Crew(agents=self.agents, tasks=self.tasks)

        News().crew().kickoff(inputs={"topic": "tea"})

    The objects of the class raise these errors when an entry or a method is used:

    Raises:
        ValueError: an entry names a member that the class does not have.
        TypeError: a method returns an object of the wrong class.
        FileNotFoundError: the file does not exist.
        KeyError: the file does not have the entry.
    """
    folder = _folder_of(cls)
    for name, default, resolve in (
        ("agents_config", "config/agents.yaml", _resolve_agent),
        ("tasks_config", "config/tasks.yaml", _resolve_task),
    ):
        given = inspect.getattr_static(cls, name, default)
        is_inherited = isinstance(given, _ConfigFile)
        folders = (folder, *given.folders) if is_inherited else (folder,)
        setattr(cls, name, _ConfigFile(name, folders, given.path if is_inherited else given, resolve))
    for name, collect in (("agents", _agents_of), ("tasks", _tasks_of)):
        if not hasattr(cls, name):
            collected = cached_property(collect)
            collected.__set_name__(cls, name)
            setattr(cls, name, collected)
    if not hasattr(cls, "get_mcp_tools"):
        setattr(cls, "get_mcp_tools", _get_mcp_tools)  # noqa: B010 - no type checker knows the attribute
    return cls


def _get_mcp_tools(owner: object, *names: str) -> NoReturn:
    raise NotImplementedError(
        f"{type(owner).__name__}.get_mcp_tools() is not supported. It would start MCP servers and use their tools; "
        "give Agent(tools=…) those that rxflow.adapters.mcp.connect(…) gives."
    )


def _folder_of(cls: type) -> Path:
    """Return the folder of the class's module; in a notebook or a REPL, the working directory."""
    try:
        return Path(inspect.getfile(cls)).parent
    except (TypeError, OSError):
        return Path.cwd()


def _tasks_of(owner: object) -> list[Task]:
    return [getattr(owner, name)() for name in find_marked(type(owner), "task")]


def _agents_of(owner: object) -> list[Agent]:
    """Return each agent once. The agents of the tasks come first, in the order of the tasks."""
    agents = [task.agent for task in _tasks_of(owner) if task.agent is not None]
    agents += [getattr(owner, name)() for name in find_marked(type(owner), "agent")]
    return [*{id(agent): agent for agent in agents}.values()]


class _ConfigFile:
    """The descriptor of ``agents_config`` or ``tasks_config``.

    On an object, the attribute has the entries of the file. On the class, the attribute has the path of the file, or
    the mapping of entries that was set instead.
    """

    def __init__(
        self,
        name: str,
        folders: tuple[Path, ...],
        path: str | PathLike[str] | Mapping[str, Any] | None,
        resolve: Callable[[_Names, Entry], Entry],
    ) -> None:
        self.folders = folders
        """The folders to search: the class's own, and then those of the bases from which it inherits the path."""
        self.path = path
        self._name = name
        self._resolve = resolve

    def __get__(self, owner: object, cls: type) -> Any:
        if owner is None:
            return self.path
        entries = self._entries_for(owner)
        vars(owner)[self._name] = entries
        return entries

    def _entries_for(self, owner: object) -> Entries:
        where = f"{type(owner).__name__}.{self._name}"
        if not isinstance(self.path, str | PathLike):
            return Entries(self.path or {}, where, owner, self._resolve)
        files = [folder / self.path for folder in self.folders]
        file = next((each for each in files if each.exists()), files[0])
        try:
            read = _read_yaml(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                error.errno,
                f"{where} is {fspath(self.path)!r}, which is not in the folder of the class's module",
                str(file),
            ) from None
        if not isinstance(read, Mapping):
            raise ValueError(f"{file} must have an entry for each agent or task, name: …; it has {read!r}")
        return Entries(cast(Mapping[str, Any], read), fspath(self.path), owner, self._resolve)


def _read_yaml(file: Path) -> Any:
    import yaml  # imported here, because most programs have their agents in code

    try:
        with file.open(encoding="utf-8") as text:
            read = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error
    return {} if read is None else read


class Entries(UserDict[str, Entry]):
    """The entries of one file, by name.

    An entry may contain names of members. These members are looked up when the entry is first used.
    """

    def __init__(
        self, read: Mapping[str, Any], where: str, owner: object, resolve: Callable[[_Names, Entry], Entry]
    ) -> None:
        super().__init__(read)
        self._where = where
        self._owner = owner
        self._resolve = resolve
        self._resolved: set[str] = set()

    def __getitem__(self, name: str) -> Entry:
        entry: Any = super().__getitem__(name)
        if name not in self._resolved:
            if not isinstance(entry, Mapping):
                raise ValueError(f"{self._where}: the entry {name!r} must be a mapping of options; it is {entry!r}")
            options = {**cast(Mapping[str, Any], entry)}
            self[name] = self._resolve(_Names(self._owner, f"{self._where}: {name}"), options)
            self._resolved.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Entry:
        raise KeyError(f"{self._where} has no entry {name!r}; it has {sorted(self.data) or 'none'}")


class _Names:
    """Resolves the names in one entry."""

    def __init__(self, owner: object, where: str) -> None:
        self._owner = owner
        self._where = where

    def find(self, option: str, role: str, name: str) -> Any:
        """Return the member ``name`` of the class. Raises ValueError if no such member has the decorator ``role``.

        ``option`` is the option that contains the name. It is only used in the error's message.
        """
        known = find_marked(type(self._owner), role)
        if name not in known:
            raise ValueError(
                f"{self._where}: {option} names {name!r}, which {type(self._owner).__name__} does not have under "
                f"@{role}; it has {sorted(known) or 'none'}"
            )
        return getattr(self._owner, name)

    def replace(self, entry: Entry, option: str, role: str) -> None:
        """If ``option`` contains a string, replace it by what the method with this name creates.

        Raises ValueError if there is no such method.
        """
        value = entry.get(option)
        if isinstance(value, str):
            entry[option] = self.find(option, role, value)()

    def replace_all(self, entry: Entry, option: str, role: str) -> None:
        """Replace each method's name in ``option`` by what the method creates.

        The value in YAML may be a list or a single name. The new value is a list.
        """
        value = entry.get(option)
        if isinstance(value, str | list):
            listed = [value] if isinstance(value, str) else cast(list[Any], value)
            entry[option] = [self.find(option, role, each)() if isinstance(each, str) else each for each in listed]

    def replace_model(self, entry: Entry, option: str) -> None:
        """If ``option`` contains the name of an ``@llm`` method, replace the name by what the method creates.

        Any other name is the name of a model, and stays.
        """
        value = entry.get(option)
        if isinstance(value, str) and value in find_marked(type(self._owner), "llm"):
            entry[option] = getattr(self._owner, value)()

    def replace_callback(self, entry: Entry, option: str) -> None:
        """If ``option`` contains the name of a ``@callback`` method, replace the name by the callback.

        If the method has parameters, the callback is the method itself. Otherwise it is what the method returns.
        """
        value = entry.get(option)
        if isinstance(value, str):
            method = self.find(option, "callback", value)
            entry[option] = method if inspect.signature(method).parameters else method()


def _resolve_agent(names: _Names, entry: Entry) -> Entry:
    names.replace_model(entry, "llm")
    names.replace_model(entry, "function_calling_llm")
    if isinstance(entry.get("function_calling_llm"), str):
        entry["function_calling_llm"] = LLM(entry["function_calling_llm"])
    names.replace_all(entry, "tools", "tool")
    names.replace(entry, "cache_handler", "cache_handler")
    names.replace_callback(entry, "step_callback")
    return entry


def _resolve_task(names: _Names, entry: Entry) -> Entry:
    names.replace(entry, "agent", "agent")
    names.replace_all(entry, "context", "task")
    names.replace_all(entry, "tools", "tool")
    for option in ("output_pydantic", "output_json"):
        if isinstance(entry.get(option), str):
            entry[option] = names.find(option, option, entry[option])
    names.replace_callback(entry, "callback")
    return entry
