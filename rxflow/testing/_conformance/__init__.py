"""Conformance suites for operators and sources, by the rules of reactive streams."""
