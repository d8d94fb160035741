"""The decorators for a crew class.

Most of them mark a method that creates something, such as an agent. The first result is kept: later calls on the same
object with the same arguments return it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from rxflow._streaming import await_blocking
from rxflow.crew import Agent, Crew, Task

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_ROLE = "__rxflow_role__"
_CACHE_ATTRIBUTE = "_rxflow_made"
_CallKey: TypeAlias = tuple[Callable[..., Any], tuple[object, ...], tuple[tuple[str, object], ...]]
"""What identifies a call: the method, its positional arguments, and its keyword arguments."""
_being_made: ContextVar[tuple[tuple[int, _CallKey], ...]] = ContextVar("rxflow_being_made", default=())


def agent(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that creates an agent. A task's entry in YAML refers to the agent by the method's name."""
    return _create_once(method, "agent", partial(_require, Agent))


def task(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that creates a task. A task without a name gets the method's name."""

    def name_it(where: str, owner: object, made: object) -> None:
        made = _require(Task, where, owner, made)
        if made.name is None:
            made.name = getattr(method, "__name__", None)

    return _create_once(method, "task", name_it)


def crew(method: Callable[P, R]) -> Callable[P, R]:
    """Mark the method that creates the crew.

    A crew without a name gets the name of the class. The crew also gets the kickoff hooks of the class.
    """

    def complete(where: str, owner: object, made: object) -> None:
        made = _require(Crew, where, owner, made)
        if "name" not in made.model_fields_set:
            made.name = type(owner).__name__
        for role in ("before_kickoff", "after_kickoff"):
            callbacks = getattr(made, f"{role}_callbacks")
            hooks = [getattr(owner, name) for name in find_marked(type(owner), role)]
            callbacks += [hook for hook in hooks if hook not in callbacks]  # super().crew() may have added hooks

    return _create_once(method, "crew", complete)


def llm(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that creates a model. An agent's entry in YAML refers to the model by the method's name."""
    return _create_once(method, "llm")


def tool(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that creates a tool. Entries in YAML refer to the tool by the method's name.

    To make a tool of a function, use ``rxflow.tool``.
    """
    return _create_once(method, "tool")


def cache_handler(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that creates CrewAI's handler of cached tool results. rxflow never uses the handler."""
    return _create_once(method, "cache_handler")


def callback(method: F) -> F:
    """Mark a method that is a callback, or that creates one.

    A method with parameters is the callback itself. A method without parameters returns the callback. Entries in
    YAML refer to the callback by the method's name.
    """
    return _mark(method, "callback")


def before_kickoff(method: F) -> F:
    """Mark a method ``(inputs) -> inputs`` that runs before the crew."""
    return _mark(method, "before_kickoff")


def after_kickoff(method: F) -> F:
    """Mark a method ``(output) -> output`` that runs after the crew."""
    return _mark(method, "after_kickoff")


def output_pydantic(cls: C) -> C:
    """Mark a pydantic class, so that a task's entry in YAML can use the name of the class for ``output_pydantic``."""
    return _mark(cls, "output_pydantic")


def output_json(cls: C) -> C:
    """Mark a pydantic class, so that a task's entry in YAML can use the name of the class for ``output_json``."""
    return _mark(cls, "output_json")


def find_marked(cls: type, role: str) -> Mapping[str, Any]:
    """Return the members of ``cls`` that have the decorator ``role``, by name, in the order of definition.

    The members of the bases come before those that ``cls`` itself defines.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if role in getattr(value, "__dict__", {}).get(_ROLE, ()):
                found[name] = value
            else:
                found.pop(name, None)  # overridden by a member without the decorator
    return found


def _mark(marked_object: R, role: str) -> R:
    setattr(marked_object, _ROLE, (*vars(marked_object).get(_ROLE, ()), role))
    return marked_object


def _require(kind: type[R], where: str, owner: object, made: object) -> R:
    if not isinstance(made, kind):
        raise TypeError(f"{type(owner).__name__}.{where} returned {made!r}, which is not of the class {kind.__name__}")
    return made


def _create_once(
    method: Callable[P, R],
    role: str,
    complete: Callable[[str, object, object], object] = lambda where, owner, made: None,
) -> Callable[P, R]:
    """Return a function that calls ``method``, and keeps the result for later calls with the same object and arguments.

    Threads that call the function at the same time may call ``method`` more than once, but all get the same result.
    ``complete`` checks the result, and may add what is missing, such as a name.
    """
    name = getattr(method, "__name__", repr(method))

    @wraps(method)
    def make(*args: P.args, **kwargs: P.kwargs) -> R:
        owner, *others = args
        known: dict[Any, R] = vars(owner).setdefault(_CACHE_ATTRIBUTE, {})
        # The key contains ``make``, not the method's name: a subclass may override the method and call super().
        named = tuple((each, _key(value)) for each, value in sorted(kwargs.items()))
        key: _CallKey = (make, tuple(map(_key, others)), named)
        if key not in known:
            with _Making(owner, key):
                made = _settle(method(*args, **kwargs))
            complete(f"{name}() under @{role}", owner, made)
            # Another thread may have called ``method`` meanwhile. Then its result is the one that is kept.
            return known.setdefault(key, cast(R, made))
        return known[key]

    return _mark(make, role)


def _key(argument: object) -> object:
    try:
        hash(argument)
    except TypeError:
        return _Identity(argument)
    return argument


class _Identity:
    """The key of an unhashable argument. Two keys are equal only if they are for the same object.

    The key keeps the argument alive. Otherwise Python could give the argument's ``id`` to another object.
    """

    def __init__(self, argument: object) -> None:
        self._argument = argument

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self._argument is other._argument

    def __hash__(self) -> int:
        return id(self._argument)


def _settle(made: Any) -> Any:
    while inspect.iscoroutine(made):  # an async method may return what it has not awaited
        made = await_blocking(made)
    return made


class _Making:
    """Surrounds a call of a method that creates something.

    Raises ValueError if the same call is already running for the same object. Otherwise a method that needs its own
    result would call itself forever.
    """

    def __init__(self, owner: object, key: _CallKey) -> None:
        self._owner = owner
        self._entry = (id(owner), key)

    def __enter__(self) -> None:
        under_way = _being_made.get()
        if self._entry in under_way:
            names = [method.__name__ for _, (method, *_) in under_way[under_way.index(self._entry) :]]
            raise ValueError(
                f"{type(self._owner).__name__}: {' → '.join([*names, names[0]])} is a circle: context, agent or a tool "
                "leads back to it"
            )
        self._token = _being_made.set((*under_way, self._entry))

    def __exit__(self, *error: object) -> None:
        _being_made.reset(self._token)
