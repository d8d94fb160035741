"""Names that a package brings in when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TypeAlias

Home: TypeAlias = str | Callable[[], object]
"""``"module"``, if the name is the same there; ``"module:name"``, if it is another one; or a function that makes it."""


def names(package: str, homes: Mapping[str, Home]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of ``package``, whose names come from ``homes``.

    Type checkers do not see through it: beside it stands ``if TYPE_CHECKING`` with the same imports.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = load(name, homes[name])
        setattr(sys.modules[package], name, value)  # from now on it is there
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})


def load(name: str, home: Home) -> object:
    """What ``home`` has for ``name``."""
    if callable(home):
        return home()
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute or name)
