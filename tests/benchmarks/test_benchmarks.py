"""The benchmark program runs and says what it measured. How fast is judged on a quiet machine, by its reader."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmarks_print_a_table_and_write_the_same_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--chunks", "500", "--turns", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = json.loads(path.read_text(encoding="utf-8"))
    rates = {each["name"]: each for each in figures["throughput"]}
    assert list(rates) == ["bare_loop", "for_loop", "async_for_loop"]
    assert rates["bare_loop"]["ratio"] == 1.0
    for name, rate in rates.items():
        assert rate["chunks_per_second"] > 0
        shown = re.search(rf"^{name} +([\d,]+) +([\d.]+)$", done.stdout, re.MULTILINE)
        assert shown is not None, done.stdout
        assert shown[1] == f"{rate['chunks_per_second']:,.0f}"
        assert shown[2] == f"{rate['ratio']:.2f}"
    assert f"{figures['import']['ratio']:.2f}" in done.stdout
    for cost in figures["operators"]:
        said = "yes" if cost["is_under"] else "no"
        assert re.search(rf"^{cost['name']} +{cost['microseconds']:.2f} +{said}$", done.stdout, re.MULTILINE), (
            done.stdout
        )
