"""Conformance suites for operators and sources, by the rules of reactive streams."""

from rxflow.testing._conformance.check import check_operator, check_source
from rxflow.testing._conformance.harness import ConformanceError

__all__ = ["ConformanceError", "check_operator", "check_source"]
