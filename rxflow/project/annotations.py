"""The decorators of a crew class: they mark what a method makes, which is made once for each object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

from rxflow._streaming import await_blocking
from rxflow.crew import Agent, Crew, Task

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_ROLE = "__rxflow_role__"
_MADE = "_rxflow_made"
_being_made: ContextVar[tuple[tuple[int, str], ...]] = ContextVar("rxflow_being_made", default=())


def agent(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes an agent; a task's entry in YAML names it."""
    return _made_once(method, "agent", partial(_require, Agent))


def task(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes a task, whose name is the method's unless it has one."""

    def name_it(where: str, owner: object, made: object) -> None:
        made = _require(Task, where, owner, made)
        if made.name is None:
            made.name = getattr(method, "__name__", None)

    return _made_once(method, "task", name_it)


def crew(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes the crew; its name is the class's unless it has one, and it gets the class's kickoff hooks."""

    def complete(where: str, owner: object, made: object) -> None:
        made = _require(Crew, where, owner, made)
        if "name" not in made.model_fields_set:
            made.name = type(owner).__name__
        made.before_kickoff_callbacks += [getattr(owner, name) for name in marked(type(owner), "before_kickoff")]
        made.after_kickoff_callbacks += [getattr(owner, name) for name in marked(type(owner), "after_kickoff")]

    return _made_once(method, "crew", complete)


def llm(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes a model; an agent's entry in YAML names it."""
    return _made_once(method, "llm")


def tool(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes a tool; entries in YAML name it. (Functions become tools by ``rxflow.tool``.)"""
    return _made_once(method, "tool")


def cache_handler(method: Callable[P, R]) -> Callable[P, R]:
    """The method makes CrewAI's handler of cached tool results, which changes nothing here."""
    return _made_once(method, "cache_handler")


def callback(method: F) -> F:
    """The method is a callback, or makes one if it has no parameter; entries in YAML name it."""
    return _mark(method, "callback")


def before_kickoff(method: F) -> F:
    """``method(inputs) -> inputs`` runs before the crew does."""
    return _mark(method, "before_kickoff")


def after_kickoff(method: F) -> F:
    """``method(output) -> output`` runs after the crew has."""
    return _mark(method, "after_kickoff")


def output_pydantic(cls: C) -> C:
    """The model can be named by ``output_pydantic`` in a task's entry in YAML."""
    return _mark(cls, "output_pydantic")


def output_json(cls: C) -> C:
    """The model can be named by ``output_json`` in a task's entry in YAML."""
    return _mark(cls, "output_json")


def marked(cls: type, role: str) -> Mapping[str, Any]:
    """What ``cls`` and its bases have under the decorator ``role``, in the order of definition."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if role in getattr(value, "__dict__", {}).get(_ROLE, ()):
                found[name] = value
            else:
                found.pop(name, None)  # overridden by something else
    return found


def _mark(marked_object: R, role: str) -> R:
    setattr(marked_object, _ROLE, (*vars(marked_object).get(_ROLE, ()), role))
    return marked_object


def _require(kind: type[R], where: str, owner: object, made: object) -> R:
    """``made``, if it is of ``kind``. Raises TypeError if it is not."""
    if not isinstance(made, kind):
        raise TypeError(f"{type(owner).__name__}.{where} returned {made!r}, which is not of the class {kind.__name__}")
    return made


def _made_once(
    method: Callable[P, R],
    role: str,
    complete: Callable[[str, object, object], object] = lambda where, owner, made: None,
) -> Callable[P, R]:
    name = getattr(method, "__name__", repr(method))

    @wraps(method)
    def make(*args: P.args, **kwargs: P.kwargs) -> R:
        owner, *others = args
        known: dict[Any, R] = vars(owner).setdefault(_MADE, {})
        key = (name, *map(_key, others), *((each, _key(value)) for each, value in sorted(kwargs.items())))
        if key not in known:
            with _Making(owner, name):
                made = _settle(method(*args, **kwargs))
            complete(f"{name}() under @{role}", owner, made)
            known[key] = cast(R, made)
        return known[key]

    return _mark(make, role)


def _key(argument: object) -> object:
    """Make an argument a part of a dict's key; an unhashable one counts by its identity."""
    try:
        hash(argument)
    except TypeError:
        return id(argument)
    return argument


def _settle(made: Any) -> Any:
    """Return the result of an async method."""
    return await_blocking(made) if inspect.iscoroutine(made) else made


class _Making:
    """Detects circles: a method that needs its own result."""

    def __init__(self, owner: object, name: str) -> None:
        self._owner = owner
        self._entry = (id(owner), name)

    def __enter__(self) -> None:
        under_way = _being_made.get()
        if self._entry in under_way:
            names = [name for _, name in under_way[under_way.index(self._entry) :]]
            raise ValueError(
                f"{type(self._owner).__name__}: {' → '.join([*names, names[0]])} is a circle: context, agent or a tool "
                "leads back to it"
            )
        self._token = _being_made.set((*under_way, self._entry))

    def __exit__(self, *error: object) -> None:
        _being_made.reset(self._token)
