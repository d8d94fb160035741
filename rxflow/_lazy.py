"""Names that a package imports only when they are used, and imports that need an extra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TypeAlias

Home: TypeAlias = str | Callable[[], object]
"""Where a lazy name comes from.

``"module"`` stands for the object of the same name in that module. ``"module:other"`` stands for the object ``other``
in that module. A function returns the object.
"""


def create_lookup(package: str, homes: Mapping[str, Home]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return functions to use as ``__getattr__`` and ``__dir__`` of ``package``. ``homes`` has the lazy names.

    Type checkers do not see lazy names. So rxflow's packages repeat the imports under ``if TYPE_CHECKING``.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = load(name, homes[name])
        setattr(sys.modules[package], name, value)  # so that the next access does not call __getattr__
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})


def load(name: str, home: Home) -> object:
    """Import and return the object that ``name`` and ``home`` stand for."""
    if callable(home):
        return home()
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute or name)


@contextmanager
def extra(name: str) -> Generator[None]:
    """Wrap imports of packages that the extra ``name`` installs. The error for a missing package names the extra. ::

        with extra("terminal"):
            import rich

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "rxflow":
            raise
        raise ModuleNotFoundError(
            f"{missing} is not installed; it comes with: pip install 'rxflow[{name}]'", name=error.name
        ) from error
