"""Draws docs/contributing/rooms.svg: the rooms of rxflow, and a chunk's way through them.

    python docs/draw_rooms.py

Tests hold the picture against the folders, the floors against the imports, and the way against the trace of a chunk.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "contributing" / "rooms.svg"

# Highest first; rooms of one line may use each other. Each with what it is for. Drawn are those that are there.
FLOORS: list[dict[str, str]] = [
    {"cli": "the command rxflow"},
    {
        "project": "crews as a class, with YAML",
        "screens": "terminal, web, notebook",
        "adapters": "other formats and frameworks",
        "cluster": "runs on many machines",
        "testing": "what users test with",
    },
    {"runs": "runs that outlive a process"},
    {"flow": "the graph and its run"},
    {"crew": "agents on tasks"},
    {"llm": "models: ask, read, label"},
    {"operators": "what stands in pipe"},
    {"_streaming": "launch, feed, log, outputs", "tools": "what a model may call"},
    {"types": "what travels: chunks, events, frames, results, usage"},
]

# A chunk's way from the provider's socket to a `for` loop: a flow runs a crew, whose agent asks an OpenAI-compatible
# server.
WAY: dict[str, list[tuple[str, str]]] = {
    "the I/O loop's thread": [
        ("llm/_openai_compatible.py", "takes bytes from the socket"),
        ("llm/_reading.py", "watches for a stall"),
        ("llm/_wires/sse.py", "bytes become a delta"),
        ("llm/_io.py", "hands it to the run's loop"),
        ("_loops.py", "wakes that loop"),
    ],
    "the run's loop": [
        ("llm/_call.py", "the delta becomes a labelled chunk"),
        ("_streaming/emitter.py", "emits it: agent, task, crew"),
        ("crew/_crew_run.py", "passes it on, keeps results"),
        ("flow/_flow_run.py", "merges it along the graph"),
        ("_streaming/border.py", "counts it; the end stops the rest"),
        ("_streaming/kickoff.py", "keeps usage and the result"),
        ("_streaming/output.py", "selects chunks; holds the reader"),
        ("_streaming/log.py", "keeps it, wakes who waits"),
    ],
}
FILES_ON_THE_WAY = [file for steps in WAY.values() for file, _ in steps]

WIDTH, MARGIN, GAP = 1000, 20, 8
LEFT = 610  # the width of the floors
FLOOR_HEIGHT, STEP_HEIGHT = 62, 30
COLOURS = ["#00796b", "#3949ab"]
STYLE = (
    ".box{fill:#f2f5f7;stroke:#b8c4cc}"
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#222}"
    ".room{font-weight:600;font-size:14px}.file{font-family:ui-monospace,monospace}"
    ".note{fill:#555}.number{fill:#fff;font-size:10px;text-anchor:middle}"
)


def exists(room: str) -> bool:
    return any((ROOT / "rxflow" / name).exists() for name in (f"{room}/__init__.py", f"{room}.py"))


def draw() -> str:
    """The picture as SVG."""
    floors = [there for floor in FLOORS if (there := {room: use for room, use in floor.items() if exists(room)})]
    height = max(60 + len(floors) * (FLOOR_HEIGHT + GAP), 60 + STEP_HEIGHT * len(FILES_ON_THE_WAY) + 36 * len(WAY) + 40)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The rooms of rxflow, and a chunk's way through them</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
        _text(MARGIN, 32, "The rooms: each imports only floors below it", "room"),
        _text(LEFT + 2 * MARGIN, 32, f"A chunk's way: {len(FILES_ON_THE_WAY)} files", "room"),
    ]
    for row, floor in enumerate(floors):
        lines += _draw_floor(floor, 48 + row * (FLOOR_HEIGHT + GAP))
    lines += _draw_way(LEFT + 2 * MARGIN, 56)
    return "\n".join([*lines, "</svg>", ""])


def _draw_floor(floor: dict[str, str], top: int) -> list[str]:
    width = (LEFT - MARGIN - GAP * (len(floor) - 1)) / len(floor)
    lines: list[str] = []
    for column, (room, use) in enumerate(floor.items()):
        left = MARGIN + column * (width + GAP)
        lines += [
            f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{FLOOR_HEIGHT}" class="box" rx="6"/>',
            _text(left + 10, top + 20, room, "room"),
            _text(left + 10, top + 37, use, "note"),
        ]
        numbers = [number for number, file in enumerate(FILES_ON_THE_WAY, 1) if file.split("/")[0] == room]
        for place, number in enumerate(numbers):
            lines += _draw_number(number, left + 18 + place * 24, top + 50)
    return lines


def _draw_way(left: int, top: int) -> list[str]:
    lines = [_text(left, top + 4, "provider's socket", "note")]
    number = 0
    for thread, steps in WAY.items():
        top += 24
        lines.append(_text(left, top + 4, f"on {thread}", "room"))
        top += 12
        lines.append(f'<path d="M{left + 9} {top} v{STEP_HEIGHT * len(steps)}" stroke="#b8c4cc" stroke-width="2"/>')
        for file, does in steps:
            number += 1
            lines += _draw_number(number, left + 9, top + 14)
            lines += [_text(left + 26, top + 11, file, "file"), _text(left + 26, top + 25, does, "note")]
            top += STEP_HEIGHT
    return [*lines, _text(left, top + 20, "your loop: for, async for, subscribe", "note")]


def _draw_number(number: int, x: float, y: float) -> list[str]:
    colour = COLOURS[number > len(next(iter(WAY.values())))]
    return [f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="{colour}"/>', _text(x, y + 3.5, str(number), "number")]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
