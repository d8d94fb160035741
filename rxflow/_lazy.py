"""Names that a package brings in when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of ``package``, each of whose names is that of a module in ``homes``.

    Type checkers do not see through it: beside it stands ``if TYPE_CHECKING`` with the same imports.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # from now on it is there
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})
