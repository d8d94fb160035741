"""Adapters: each module connects rxflow with one protocol or one other library.

Import an adapter by its name (``from rxflow.adapters import otel``). All adapters except ``logs`` need an optional
extra of rxflow, for example ``rxflow[otel]``.
"""

__all__: list[str] = []
