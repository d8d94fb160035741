"""Which cases of a test are slow: those that say the same as a quick one, of another way."""

from collections.abc import Mapping

import pytest


def all_but(quick: set[str], cases: Mapping[str, object]) -> list[object]:
    """``cases`` for ``parametrize``, of which all but the ``quick`` are slow."""
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.slow) for name, case in cases.items()
    ]
