"""The benchmark of the operators measures all of them."""

import inspect

import pytest

from benchmarks import operators as benchmark
from rxflow import operators as ops

pytestmark = pytest.mark.slow


def test_every_operator_is_measured_or_is_said_why_not() -> None:
    functions = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert benchmark.names() | benchmark.NOT_MEASURED.keys() == functions
    assert not benchmark.names() & benchmark.NOT_MEASURED.keys()
    assert all(benchmark.NOT_MEASURED.values())


def test_each_can_be_measured() -> None:
    costs = benchmark.measure(200, 1)
    assert {cost.name for cost in costs} == benchmark.names()
    assert all(cost.is_under == (cost.microseconds < benchmark.LIMIT) for cost in costs)
