"""``make bench``: prints a table, and writes the figures to a JSON file with ``--json``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import import_time, operators, throughput


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000, help="chunks of a stream")
    parser.add_argument("--turns", type=int, default=7, help="turns of each way of reading")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    chunks: int = options.chunks
    turns: int = options.turns
    path: Path | None = options.json

    rates = throughput.measure(chunks, turns)
    print(f"{'reading a stream of ' + format(chunks, ',') + ' chunks':<44}{'chunks/s':>12}{'ratio':>8}")
    for rate in rates:
        print(f"{rate.name:<44}{rate.chunks_per_second:>12,.0f}{rate.ratio:>8.2f}")
    seconds, ratio = import_time.measure(turns)
    print(f"\n{'import rxflow, beside its light dependencies':<44}{seconds * 1000:>9,.0f} ms{ratio:>8.2f}")
    costs = operators.measure(min(chunks, 10_000), turns)
    print(f"\n{'operators, on top of a bare Subject':<44}{'µs a chunk':>12}{'< ' + format(operators.LIMIT, 'g'):>8}")
    for cost in costs:
        print(f"{cost.name:<44}{cost.microseconds:>12.2f}{'yes' if cost.is_under else 'no':>8}")
    if path is not None:
        figures = {
            "throughput": [asdict(rate) for rate in rates],
            "import": {"seconds": seconds, "ratio": ratio},
            "operators": [asdict(cost) for cost in costs],
        }
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
