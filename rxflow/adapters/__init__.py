"""Adapters: each module translates the events of a run into one protocol, or into another library's types.

Import an adapter by its name (``from rxflow.adapters import otel``). Each one needs an extra of its own.
"""

__all__: list[str] = []
