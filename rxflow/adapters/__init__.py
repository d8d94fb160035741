"""Wires to what other people use: each module puts the events of a run into one protocol.

They are imported by their names (``from rxflow.adapters import otel``), since each needs an extra of its own.
"""

__all__: list[str] = []
