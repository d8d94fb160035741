"""The graph of a flow class: its methods, what each waits for, and the labels that its routers emit."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rxflow.flow.conditions import Condition, names_in
from rxflow.flow.decorators import note_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of the graph. ``labels`` of a router: None where they cannot be known beforehand."""

    name: str
    is_start: bool
    is_router: bool
    condition: Condition | None
    labels: tuple[str, ...] | None
    takes_result: bool
    doc: str


@dataclass(frozen=True, slots=True)
class Graph:
    """All methods of a flow class, in the order of their definition."""

    name: str
    methods: Mapping[str, Method]

    @property
    def unconditional_starts(self) -> list[Method]:
        """Where a run begins."""
        return [m for m in self.methods.values() if m.is_start and m.condition is None]

    def by_trigger(self) -> Mapping[str, Sequence[Method]]:
        """For each method's name and each label the methods whose condition speaks of it.

        A look at every method after every method would make the time of a run grow with the square of their number.
        """
        waiting: dict[str, list[Method]] = {}
        for method in self.methods.values():
            for name in set(names_in(method.condition)) if method.condition is not None else ():
                waiting.setdefault(name, []).append(method)
        return waiting

    def check(self) -> None:
        """Raise ValueError where the graph cannot work: an unknown trigger, or nothing that could ever begin."""
        labels = [label for m in self.methods.values() for label in m.labels or ()]
        open_ended = any(m.is_router and m.labels is None for m in self.methods.values())
        known = {*self.methods, *labels}
        for method in self.methods.values():
            for name in names_in(method.condition) if method.condition is not None else ():
                if name not in known and not open_ended:
                    from difflib import get_close_matches  # for mistakes only

                    close = get_close_matches(name, known, n=1)
                    meant = f"; did you mean {close[0]!r}?" if close else "."
                    raise ValueError(
                        f"{self.name}.{method.name} waits for {name!r}, which is neither a method nor a label of a "
                        f"router{meant} Known: {', '.join(sorted(known))}"
                    )
        if self.methods and not self.unconditional_starts:
            raise ValueError(
                f"{self.name} cannot begin: no method has @start() without a condition "
                f"(it has {', '.join(self.methods)})"
            )


def graph_of(cls: type) -> Graph:
    """Read the graph off a class and its bases.

    Raises:
        ValueError: a method listens to itself, cannot be called, or overrides one of the graph without a decorator.
        TypeError: a method has no ``self``, or is a plain generator.
    """
    methods: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if note_of(member) is not None:
                methods[name] = _method(base, name, member)
            elif name in methods:
                if member is not None:
                    raise ValueError(
                        f"{base.__name__}.{name} overrides a method of the graph without @start(), @listen(…) or "
                        f"@router(…), so nothing would run it; decorate it again, or take it out with {name} = None"
                    )
                del methods[name]
    return Graph(cls.__name__, methods)


def _method(owner: type, name: str, function: Callable[..., Any]) -> Method:
    where = f"{owner.__name__}.{name}"
    note = note_of(function)
    if note is None:
        raise TypeError(f"{where} is not decorated")
    if note.condition is not None and name in names_in(note.condition):
        raise ValueError(
            f"{where} listens to itself; that would never end. If {name!r} is meant as a router's label, rename the "
            "method or the label"
        )
    if note.is_router and not note.is_start and note.condition is None:
        raise ValueError(f"@router() on {where} has no condition; give it one, or put @start() or @listen(…) beside it")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{where} is a plain generator; make it `async def` with `yield`, or return a value")
    _check_parameters(where, function, is_start=note.is_start and note.condition is None)
    return Method(
        name=name,
        is_start=note.is_start,
        is_router=note.is_router,
        condition=note.condition,
        labels=(note.emit if note.emit is not None else _declared_labels(function)) if note.is_router else None,
        takes_result=_takes_result(function),
        doc=(inspect.getdoc(function) or "").partition("\n")[0],
    )


def _check_parameters(where: str, function: Callable[..., Any], *, is_start: bool) -> None:
    """Raise where a call could only fail: there is one result to give, and for a start there is none."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise TypeError(f"{where} needs self as its first parameter: it is called on the flow")
    required = [p for p in parameters[1:] if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    allowed = 0 if is_start else 1
    if len(required) > allowed or any(p.kind is p.KEYWORD_ONLY for p in required):
        gets = "nothing" if is_start else "the result of its trigger, by position"
        raise ValueError(f"{where} gets {gets}, but it requires {', '.join(p.name for p in required)}")


def _takes_result(function: Callable[..., Any]) -> bool:
    positional = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    return len(positional) > 1  # beside self


def _declared_labels(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """A router's labels, from its return type, else from its ``return`` statements if all return plain strings."""
    try:
        declared = get_type_hints(function).get("return")
    except (NameError, TypeError):  # names that exist for the type checker only
        declared = None
    if get_origin(declared) is Literal:
        return tuple(str(label) for label in get_args(declared))
    if isinstance(declared, type) and issubclass(declared, Enum):
        return tuple(str(member.value) for member in declared)
    return _returned_labels(function)


def _returned_labels(function: Callable[..., Any]) -> tuple[str, ...] | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source: defined in a shell, or frozen
        return None
    labels: list[str] = []
    for value in _returned(tree.body[0]):
        branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        for branch in branches:
            if not isinstance(branch, ast.Constant) or not isinstance(branch.value, str | None):
                return None
            if branch.value is not None:
                labels.append(branch.value)
    return tuple(dict.fromkeys(labels))


def _returned(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Return) and child.value is not None:
            yield child.value
        yield from _returned(child)
