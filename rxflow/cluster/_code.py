"""The code that a program and its workers must have in common: rxflow's version and the modules of a flow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from rxflow.cluster._errors import CodeMismatchError
from rxflow.types.codec import VERSION


def describe_rxflow() -> dict[str, object]:
    """Return the versions of rxflow and of its codec."""
    return {"rxflow": version("rxflow"), "codec": VERSION}


def describe_flow(target: str) -> dict[str, str]:
    """Return the digests of the module that an import path names, and of the module that defines the flow.

    A module that this process does not have is left out, because only workers need the code.
    """
    module, _, names = target.partition(":")
    found: Any = sys.modules.get(module)
    for name in names.split("."):
        found = getattr(found, name, None)
    modules = {module, str(getattr(found, "__module__", module))}
    return {name: digest for name in sorted(modules) if (digest := _digest_source(name))}


def check_flow(described: Mapping[str, str]) -> None:
    """Raise CodeMismatchError if a module here has another digest than in the program, which sent ``described``."""
    for module, digest in described.items():
        if _digest_source(module) != digest:
            raise CodeMismatchError(
                f"the worker has another version of module {module!r} than this program: install the same code on "
                "both, and start the program again"
            )


@cache
def _digest_source(module: str) -> str:
    """Return the digest of a module's source; empty if it has none. Cached, because a module is loaded only once."""
    try:
        loaded: Any = sys.modules.get(module)
        spec: ModuleSpec | None = getattr(loaded, "__spec__", None) or find_spec(module)
        loader = None if spec is None else spec.loader
        source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    except (ImportError, ValueError):
        return ""
    return sha256(source.encode()).hexdigest() if source else ""
