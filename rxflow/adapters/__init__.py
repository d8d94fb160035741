"""Adapters: each module translates the events of a run into one protocol, or into another library's types.

Import an adapter by its name (``from rxflow.adapters import otel``). Each one except ``logs`` needs an extra.
"""

__all__: list[str] = []
