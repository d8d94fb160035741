"""Programs that tests start, which pip does not install. CI has them all; elsewhere their tests are skipped."""

import os
import shutil

import pytest


def require(program: str, package: str) -> str:
    """Return the path of ``program``. Without it, skip the test; in CI, fail instead.

    ``package`` is Debian's package that has the program.
    """
    found = shutil.which(program)
    if found is not None:
        return found
    missing = f"{program} is not installed: apt-get install {package}"
    if "RXFLOW_CI" in os.environ:
        raise RuntimeError(missing)
    pytest.skip(missing)
