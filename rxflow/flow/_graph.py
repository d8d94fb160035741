"""The graph of a flow class: the decorators that mark methods, the conditions of methods, and the labels of routers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from rxflow._options import TRIGGER_PAYLOAD
from rxflow.flow._labels import read_labels

if TYPE_CHECKING:
    from rxflow.flow._people import Feedback
    from rxflow.flow.persistence import SaveRule


NOTE_ATTRIBUTE = "__rxflow_note__"
"""The name of the attribute in which the decorators store the :class:`Note` of a method."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A condition that is met when the method ``name`` completes, or when a router emits the label ``name``."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A condition that is met when any one of ``items`` is met."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """A condition that is met when all of ``items`` are met, in any order. The last item to be met gives the result."""

    items: tuple[Condition, ...]


Condition: TypeAlias = Trigger | AnyOf | AllOf
Conditional: TypeAlias = Condition | str | Callable[..., Any]
"""What the decorators accept: a decorated method, a method's name, a router's label, ``or_(…)`` or ``and_(…)``."""


def or_(*conditions: Conditional) -> AnyOf:
    """Return a condition that is met as soon as one of ``conditions`` is met.

    The methods that the other conditions name are not stopped. ::

        a         ----a-----------
        b         ---------b------
        or_(a, b) ----a-----------

    A method and the routers that it triggers count together: they meet the condition only once. For example,
    ``or_(begin, "ok")`` is met once if ``begin`` triggers a router that returns "ok".

    A router with this condition runs once for each method that meets the condition. If the router is in a cycle of
    routers, it runs once in each round. Any other method with this condition can run again only in two cases:

    - A router emits a label that the condition contains.
    - A new round of a cycle has begun, because a method that had completed was called again.

    Raises:
        ValueError: there is no condition, or one of them is invalid.
    """
    return AnyOf(_parse_items("or_", conditions))


def and_(*conditions: Conditional) -> AllOf:
    """Return a condition that is met when all of ``conditions`` are met. The last one to be met provides the result.

    The condition is met again when all of ``conditions`` have been met again. ::

        a          ----a------------
        b          ---------b-------
        and_(a, b) ---------b-------

    Raises:
        ValueError: there is no condition, or one of them is invalid.
    """
    return AllOf(_parse_items("and_", conditions))


def parse_condition(given: object, where: str) -> Condition:
    """Convert a :data:`Conditional` to a condition.

    Raises:
        ValueError: ``given`` is not a Conditional. The error message contains ``where``.
    """
    if isinstance(given, Trigger | AnyOf | AllOf):
        return given
    if isinstance(given, str) and given:
        return Trigger(given)
    if hasattr(given, NOTE_ATTRIBUTE):
        return Trigger(str(getattr(given, "__name__", given)))
    if callable(given):
        raise ValueError(
            f"{where}: {getattr(given, '__name__', given)!r} is not a method of a graph; decorate it with @start(), "
            f"@listen(…) or @router(…), each with parentheses"
        )
    raise ValueError(
        f"Invalid condition for {where}: {given!r}; give it a method, its name, a router's label, or or_(…) / and_(…) "
        "of such"
    )


def iterate_names(condition: Condition | None) -> Iterator[str]:
    """Yield the names of all methods and labels in a condition."""
    if isinstance(condition, Trigger):
        yield condition.name
    elif condition is not None:
        for item in condition.items:
            yield from iterate_names(item)


def is_met(condition: Condition, happened: Set[str]) -> bool:
    """Return whether the names in ``happened`` meet the condition."""
    match condition:
        case Trigger(name):
            return name in happened
        case AnyOf(items):
            return any(is_met(item, happened) for item in items)
        case AllOf(items):
            return all(is_met(item, happened) for item in items)


def is_choice(condition: Condition | None) -> bool:
    """Return whether ``condition`` is an ``or_`` of several conditions.

    An ``or_`` or ``and_`` of one condition counts as that one condition.
    """
    if isinstance(condition, AnyOf | AllOf) and len(condition.items) == 1:
        return is_choice(condition.items[0])
    return isinstance(condition, AnyOf)


def _parse_items(where: str, conditions: tuple[Conditional, ...]) -> tuple[Condition, ...]:
    if not conditions:
        raise ValueError(f"{where}() needs at least one condition")
    return tuple(parse_condition(each, where) for each in conditions)


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the decorators have recorded about one method."""

    is_start: bool = False
    is_router: bool = False
    condition: Condition | None = None
    emit: tuple[str, ...] | None = None
    persist: SaveRule | None = None
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class _Decorator:
    """What ``@start(…)``, ``@listen(…)`` and ``@router(…)`` call with the method.

    ``@start`` without parentheses on a decorated method takes this method for the condition, and puts a _Decorator in
    the place of the method. :func:`read_graph` recognizes it by its class.
    """

    name: str
    condition: Condition | None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, method: F) -> F:
        return add_note(method, self.name, self.condition, **self.facts)

    def require_parentheses(self, owner: type, name: str) -> None:
        """Raise ValueError if this object has replaced the method ``name`` of ``owner``."""
        if self.condition == Trigger(name):
            wanted = "@listen(…)" if self.name == "listen" else f"@{self.name}()"
            raise ValueError(f"@{self.name} on {owner.__name__}.{name} has no parentheses; write {wanted}")


def start(condition: Conditional | None = None) -> Callable[[F], F]:
    """Mark a method that begins the flow. All start methods without a condition run at the same time.

    With a condition, the method runs when the condition is met. If every start method has a condition, the flow begins
    with all start methods. If a start method has a parameter ``crewai_trigger_payload``, this parameter receives the
    input with the same name.
    """
    parsed = None if condition is None else parse_condition(condition, "@start")
    return _Decorator("start", parsed, {"is_start": True})


def listen(condition: Conditional) -> Callable[[F], F]:
    """Mark a method that runs when ``condition`` is met.

    If the method has a parameter, the parameter receives the result of the trigger.
    """
    parsed = parse_condition(condition, "@listen")
    return _Decorator("listen", parsed)


def router(condition: Conditional | None = None, *, emit: Sequence[str] | None = None) -> Callable[[F], F]:
    """Mark a method that returns a label. The methods that listen for the label run next.

    If the method returns None, there is no label. For a member of an Enum, the label is the ``str()`` of its value. For
    any other object, the label is its ``str()``. A warning is issued if no method waits for the label, and none waits
    for the router itself.

    Without a condition, this decorator turns a ``@start`` or ``@listen`` method into a router. ``emit`` lists the
    labels that the method may return. The list is used in drawings, and to find misspelt labels. A return type that is
    a ``Literal`` or an Enum has the same effect as ``emit``.
    """
    parsed = None if condition is None else parse_condition(condition, "@router")
    labels = (emit,) if isinstance(emit, str) else None if emit is None else tuple(emit)
    return _Decorator("router", parsed, {"is_router": True, "emit": labels})


def read_note(method: object) -> Note | None:
    """Return the :class:`Note` of ``method``; None if the method is not decorated."""
    return cast(Note | None, getattr(method, NOTE_ATTRIBUTE, None))


def add_note(method: F, decorator: str, condition: Condition | None, **facts: Any) -> F:
    """Add ``condition`` and ``facts`` to the :class:`Note` of ``method``, and return ``method``.

    Raises:
        ValueError: ``condition`` is given, but ``method`` already has a condition. Or ``method`` is not a method with
            ``self``, for example a class.
    """
    name = getattr(method, "__name__", repr(method))
    if isinstance(method, type | staticmethod | classmethod):
        raise ValueError(f"@{decorator}(…) goes on a method of a Flow; got {method!r}")
    note = read_note(method) or Note()
    if condition is not None:
        if note.condition is not None:
            raise ValueError(f"{name} has two conditions; join them with or_(…) or and_(…)")
        facts["condition"] = condition
    setattr(method, NOTE_ATTRIBUTE, replace(note, **facts))
    return method


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of the graph.

    ``labels`` are the labels that a router may emit. ``labels`` is None if the method is not a router, or if the labels
    cannot be known before the router runs. ``takes_result`` is True if the method can be called with the result of a
    trigger. ``requires_result`` is True if the method cannot be called without this result. ``payload`` is the
    parameter ``crewai_trigger_payload`` of a start method; None if the method does not have this parameter. ``doc`` is
    the first line of the docstring.
    """

    name: str
    is_start: bool
    is_router: bool
    condition: Condition | None
    labels: tuple[str, ...] | None
    takes_result: bool
    requires_result: bool = False
    payload: Parameter | None = None
    persist: SaveRule | None = None
    feedback: Feedback | None = None
    doc: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The decorated methods of a flow class, by name, in the order of their definition. Methods of bases come first."""

    name: str
    methods: Mapping[str, Method]

    @property
    def entry_points(self) -> list[Method]:
        """The methods that begin a run: the start methods without a condition.

        If there are none, all start methods begin the run.
        """
        starts = [m for m in self.methods.values() if m.is_start]
        return [m for m in starts if m.condition is None] or starts

    def group_by_trigger(self) -> Mapping[str, Sequence[Method]]:
        """Return a mapping from each method name or label in a condition to the methods that wait for it.

        Without this index, the time of a run would grow with the square of the number of methods.
        """
        waiting: dict[str, list[Method]] = {}
        for method in self.methods.values():
            for name in set(iterate_names(method.condition)):
                waiting.setdefault(name, []).append(method)
        return waiting

    def check(self) -> None:
        """Warn about each unknown name in a method's condition, if the method can run although the name is unknown.

        If the labels of a router are unknown, the router may emit any label, and no name counts as unknown.

        Raises:
            ValueError: no method can begin the flow, a method that begins the flow requires a result, or a condition
                can never be met.
        """
        entry_points = self.entry_points
        if self.methods and not entry_points:
            raise ValueError(f"{self.name} cannot begin: no method has @start() (it has {', '.join(self.methods)})")
        for method in entry_points:
            if method.requires_result:
                raise ValueError(
                    f"{self.name}.{method.name} begins the flow, because every @start() has a condition; there is "
                    "no result for its parameter then, so the parameter needs a default"
                )
        if any(m.is_router and m.labels is None for m in self.methods.values()):
            return
        known = {*self.methods, *(label for m in self.methods.values() for label in m.labels or ())}
        for method in self.methods.values():
            can_run = method in entry_points or method.condition is None or is_met(method.condition, known)
            for name in dict.fromkeys(iterate_names(method.condition)):
                if name not in known:
                    complaint = f"{self.name}.{method.name} waits for {name!r}, {_explain_unknown(name, known)}"
                    if not can_run:
                        raise ValueError(complaint)
                    warnings.warn(complaint, stacklevel=4)


def read_graph(cls: type) -> Graph:
    """Return the graph of a class. It includes the methods of the bases.

    Raises:
        ValueError: a decorated method waits for itself, has neither ``@start`` nor a condition, or requires arguments
            that it does not get. Or a method without a decorator overrides a method of the graph. Or a decorator has no
            parentheses.
        TypeError: a decorated method has no ``self``.
    """
    methods: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, _Decorator):
                member.require_parentheses(base, name)
            note = read_note(getattr(member, "__func__", member))  # ``__func__``: inside a staticmethod or classmethod
            if note is not None:
                methods[name] = _read_method(base, name, member, note)
            elif name in methods:
                if member is not None:
                    raise ValueError(
                        f"{base.__name__}.{name} overrides a method of the graph without @start(), @listen(…) or "
                        f"@router(…), so nothing would run it; decorate it again, or take it out with {name} = None"
                    )
                del methods[name]
    return Graph(cls.__name__, methods)


def _read_method(owner: type, name: str, function: Callable[..., Any], note: Note) -> Method:
    where = f"{owner.__name__}.{name}"
    if not (note.is_start or note.is_router or note.condition):
        raise ValueError(
            f"{where} is decorated, but nothing would run it; put @start(), @listen(…) or @router(…) on it too"
        )
    if name in iterate_names(note.condition):
        raise ValueError(
            f"{where} listens to itself; that would never end. If {name!r} is meant as a router's label, rename the "
            "method or the label"
        )
    if note.is_router and not note.is_start and note.condition is None:
        raise ValueError(f"@router() on {where} has no condition; give it one, or put @start() or @listen(…) beside it")
    has_self = not isinstance(function, staticmethod | classmethod)
    parameters = list(inspect.signature(function).parameters.values()) if has_self else []
    if not parameters or parameters[0].kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
        raise TypeError(f"{where} needs self as its first parameter: it is called on the flow")
    asks = [p for p in parameters[1:] if note.is_start and p.name == TRIGGER_PAYLOAD and p.kind in _BY_KEYWORD]
    others = [p for p in parameters[1:] if p not in asks]
    required = [p for p in others if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    has_result = not note.is_start or note.condition is not None
    if len(required) > (1 if has_result else 0) or any(p.kind is p.KEYWORD_ONLY for p in required):
        gets = "the result of its trigger, by position" if has_result else "nothing"
        raise ValueError(f"{where} gets {gets}, but it requires {', '.join(p.name for p in required)}")
    return Method(
        name=name,
        is_start=note.is_start,
        is_router=note.is_router,
        condition=note.condition,
        labels=(note.emit if note.emit is not None else read_labels(function)) if note.is_router else None,
        takes_result=any(p.kind in _BY_POSITION for p in others),
        requires_result=bool(required),
        payload=asks[0] if asks else None,
        persist=note.persist,
        feedback=note.feedback,
        doc=(inspect.getdoc(function) or "").partition("\n")[0],
    )


def _explain_unknown(name: str, known: set[str]) -> str:
    from difflib import get_close_matches  # imported here, because only mistakes need it

    close = get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"which is neither a method nor a label of a router{meant} Known: {', '.join(sorted(known))}"


_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
