"""What the tests of faults share."""

import importlib
from typing import Any

import pytest

from tests.reliability.told import LANES, Lane


@pytest.fixture(params=LANES.values(), ids=list(LANES))
def lane(request: pytest.FixtureRequest) -> Lane:
    """Each of the two ways in which an answer is read."""
    chosen: Lane = request.param
    return chosen


@pytest.fixture
def litellm(litellm_is_warm: None) -> Any:
    return importlib.import_module("litellm")
