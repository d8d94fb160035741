"""What ``import rxflow`` costs, beside the import of its two light dependencies put to use."""

from __future__ import annotations

import statistics
import subprocess
import sys

# pydantic and anyio load most of themselves on first use, so the floor uses what any program with a model would.
_FLOOR = "import asyncio, anyio.to_thread, reactivex.operators, pydantic; type('M', (pydantic.BaseModel,), {})"


def _seconds(code: str) -> float:
    timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(turns: int) -> tuple[float, float]:
    """Median seconds of ``import rxflow``, and the median ratio to the dependencies' own."""
    pairs = [(_seconds("import rxflow"), _seconds(_FLOOR)) for _ in range(turns)]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)
