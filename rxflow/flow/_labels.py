"""The labels of routers: those that a router may emit, and the one that it has emitted."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rxflow.types import HumanFeedbackResult


def read_label(outcome: Any) -> str | None:
    """Return the label for a router's return value; None if there is no label."""
    if isinstance(outcome, HumanFeedbackResult):
        return read_label(outcome.output) if outcome.outcome is None else outcome.outcome
    if outcome is None:
        return None
    return str(outcome.value) if isinstance(outcome, Enum) else str(outcome)


def read_labels(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the labels of a router; None if they are not known.

    The labels come from the return type, or else from the ``return`` statements. The statements are used only if each
    of them returns a literal string or None, or chooses between two such values (``"a" if … else "b"``).
    """
    try:
        declared = get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 - evaluating a text that only type checkers read may raise anything
        declared = None
    labels = _read_declared_labels(declared)
    return _read_returned_labels(function) if labels is None else labels


def _read_declared_labels(declared: Any) -> tuple[str, ...] | None:
    """Return the labels that a return type declares; None if it declares no labels.

    The type may be a Literal, an Enum, or a union of such types. The union may contain None.
    """
    if get_origin(declared) is Literal:
        values: tuple[Any, ...] = get_args(declared)
        return tuple(str(each.value) if isinstance(each, Enum) else str(each) for each in values if each is not None)
    if isinstance(declared, type) and issubclass(declared, Enum):
        return tuple(str(member.value) for member in declared)
    if get_origin(declared) not in (Union, UnionType):
        return None
    labels: dict[str, None] = {}
    for each in get_args(declared):
        several = () if each is NoneType else _read_declared_labels(each)
        if several is None:
            return None
        labels |= dict.fromkeys(several)
    return tuple(labels)


def _read_returned_labels(function: Callable[..., Any]) -> tuple[str, ...] | None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return None  # the label may be the text that the generator yields
    if hasattr(function, "__wrapped__"):
        return None  # inspect would return the source of the wrapped function, and the wrapper may change the label
    code = getattr(function, "__code__", None)
    if getattr(code, "co_filename", "") == "<string>":
        # The code may come from exec(). Python 3.13's inspect would then return a wrong source: that of ``python -c``.
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # there is no source, for example in a shell or a frozen program
        return None
    definition = tree.body[0]
    if getattr(definition, "name", "") != getattr(code, "co_name", None):
        return None  # the statement around a lambda, which has no return statements
    labels: list[str] = []
    for value in _find_returned(definition):
        for branch in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
            if not isinstance(branch, ast.Constant) or not isinstance(branch.value, str | None):
                return None
            if branch.value is not None:
                labels.append(branch.value)
    return tuple(dict.fromkeys(labels))


def _find_returned(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Return) and child.value is not None:
            yield child.value
        yield from _find_returned(child)
