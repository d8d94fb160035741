"""``make bench-alternatives``: chunks a second of what else a user would pick, beside rxflow, on one loopback server.

Each alternative runs in an environment and a process of its own. ``--install`` makes the environments that are missing,
from the package index that pip is set to; without it they are skipped, by name. The programs take turns, and a rate is
the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import IO

from benchmarks.alternatives.environments import (
    ALTERNATIVES,
    FOLDER,
    Alternative,
    NotInstallable,
    install,
    versions,
)
from benchmarks.provider import provider

FLOOR = Alternative("bare_loop", "bare httpx + json loop")
OURS = Alternative("rxflow_flow", "rxflow")
MUST_REACH = 8.0
_TEXT = "tok "  # what the provider says in each chunk
_LONGEST = 120.0  # seconds for one reading, and for a program to begin


@dataclass(frozen=True)
class Rate:
    """Chunks a second of one program; ``ours_is`` is how many times as many rxflow reads."""

    name: str
    versions: str
    chunks_per_second: float
    ours_is: float


@dataclass(frozen=True)
class Skipped:
    """One that was not measured, and why."""

    name: str
    reason: str


class Failed(Exception):
    """A program that did not read the stream; says how it ended."""


class Program:
    """A running program, which reads the stream once whenever it is asked to."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        self._process = process
        self._said = said

    def read(self, chunks: int) -> float:
        """Chunks a second. Raises :class:`Failed` where it ended, hung, or did not read all."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the program has no pipes")
        limit = Timer(_LONGEST, process.kill)
        limit.start()
        try:
            process.stdin.write("read\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            limit.cancel()
        if not answer:
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            raise Failed(lines[-1] if lines else f"it gave no answer within {_LONGEST:.0f} s, or ended silently")
        said = json.loads(answer)
        if said["characters"] != chunks * len(_TEXT):
            raise Failed(f"it read {said['characters']} characters of {chunks * len(_TEXT)}")
        return float(chunks / said["seconds"])


@contextmanager
def running(alternative: Alternative, folder: Path, url: str) -> Generator[Program]:
    """Its program, in its environment."""
    command = [str(alternative.python(folder)), str(alternative.program), url]
    with (
        TemporaryFile("w+", encoding="utf-8") as said,  # no pipe: one that nobody reads would stop a talkative program
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            yield Program(process, said)
        finally:
            process.kill()
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # it has never read what it was asked
                    process.stdin.close()


def missing(alternatives: Sequence[Alternative], folder: Path, *, may_install: bool) -> list[Skipped]:
    """Those that cannot run, and why. Makes their environments where it may."""
    skipped: list[Skipped] = []
    for alternative in alternatives:
        if may_install:
            try:
                install(alternative, folder)
            except NotInstallable as error:
                skipped.append(Skipped(alternative.title, f"it could not be installed: {error}"))
        elif not alternative.python(folder).exists():
            skipped.append(Skipped(alternative.title, "it is not installed; --install does that"))
    return skipped


def measure(
    alternatives: Sequence[Alternative], folder: Path, chunks: int, turns: int
) -> tuple[list[Rate], list[Skipped]]:
    """The floor, rxflow, and those that can run; after one turn to warm up."""
    taken: dict[Alternative, list[float]] = {each: [] for each in (FLOOR, OURS, *alternatives)}
    skipped: list[Skipped] = []
    with ExitStack() as stack:
        url = stack.enter_context(provider(chunks))
        programs = {each: stack.enter_context(running(each, folder, url)) for each in taken}
        for turn in range(turns + 1):
            for each, program in list(programs.items()):
                try:
                    rate = program.read(chunks)
                except Failed as error:
                    if each in (FLOOR, OURS):
                        raise
                    skipped.append(Skipped(each.title, f"it failed: {error}"))
                    del programs[each], taken[each]
                    continue
                if turn:
                    taken[each].append(rate)
    ours = taken[OURS]
    return [
        Rate(
            each.title,
            versions(each, folder) if each.packages else "",
            statistics.median(rates),
            statistics.median(a / b for a, b in zip(ours, rates, strict=True)),
        )
        for each, rates in taken.items()
    ], skipped


def table(rates: Sequence[Rate], skipped: Sequence[Skipped], chunks: int) -> str:
    """What was measured, for people."""
    lines = [f"{f'reading a stream of {chunks:,} chunks':<44}{'chunks/s':>12}{'rxflow is':>12}"]
    lines += [
        f"{f'{rate.name} ({rate.versions})' if rate.versions else rate.name:<44}"
        f"{rate.chunks_per_second:>12,.0f}{rate.ours_is:>11.2f}×"
        for rate in rates
    ]
    others = [rate for rate in rates if rate.versions]
    if others:
        fastest = min(others, key=lambda rate: rate.ours_is)
        lines.append(f"the fastest is {fastest.name}: rxflow is {fastest.ours_is:.1f}× (≥ {MUST_REACH:g})")
    lines += [f"skipped {each.name}: {each.reason}" for each in skipped]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.alternatives", description=__doc__)
    parser.add_argument("--install", action="store_true", help="make the environments that are missing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they are")
    parser.add_argument("--chunks", type=int, default=20_000, help="chunks of a stream")
    parser.add_argument("--turns", type=int, default=3, help="turns of each")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    folder: Path = options.folder
    chunks: int = options.chunks
    path: Path | None = options.json

    skipped = missing(ALTERNATIVES, folder, may_install=options.install)
    absent = {each.name for each in skipped}
    present = [each for each in ALTERNATIVES if each.title not in absent]
    rates, failed = measure(present, folder, chunks, options.turns)
    print(table(rates, [*skipped, *failed], chunks))
    if path is not None:
        figures = {"rates": [asdict(rate) for rate in rates], "skipped": [asdict(each) for each in (*skipped, *failed)]}
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
