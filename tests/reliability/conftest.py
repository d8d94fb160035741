"""What the tests of faults share."""

import importlib
from typing import Any

import pytest

from tests.llm.ways import WAYS, Way


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the ways in which an answer is read."""
    chosen: Way = request.param
    return chosen


@pytest.fixture
def litellm(litellm_is_warm: None) -> Any:
    return importlib.import_module("litellm")
