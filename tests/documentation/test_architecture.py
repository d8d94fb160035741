"""The picture of the rooms, and of a chunk's way through them, is true to the code."""

import re
import subprocess
import sys

from docs import draw_rooms
from tests.packaging import test_floors

PICTURE = draw_rooms.PICTURE.read_text(encoding="utf-8")
RXFLOW = draw_rooms.ROOT / "rxflow"


def test_the_picture_is_what_its_program_draws() -> None:
    assert draw_rooms.draw() == PICTURE, "the rooms have changed: python docs/draw_rooms.py"


def test_each_folder_is_a_room_in_the_picture() -> None:
    folders = {path.parent.name for path in RXFLOW.glob("*/__init__.py")}
    drawn = set(re.findall(r'class="room">(\w+)</text>', PICTURE))
    assert drawn - {"tools"} == folders


def test_the_floors_in_the_picture_are_those_that_the_imports_keep() -> None:
    drawn = {room: height for height, floor in enumerate(reversed(draw_rooms.FLOORS)) for room in floor}
    kept = {room: height for height, floor in enumerate(test_floors.FLOORS) for room in floor if room in drawn}
    order = sorted(drawn, key=kept.__getitem__)
    assert kept.keys() == drawn.keys()
    assert [drawn[room] for room in order] == sorted(drawn.values())


def test_a_chunk_passes_the_files_in_the_picture() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.documentation.chunk_trace"],
        cwd=draw_rooms.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    passed = {file for file in done.stdout.split() if not file.startswith("types/")}  # a chunk is not on its own way
    assert passed == set(draw_rooms.FILES_ON_THE_WAY)
    assert len(passed) <= 13
