"""Without its extra, an adapter says what to install."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, sys

said = {}
for adapter, package in {
    "otel": "opentelemetry", "sse": "sse_starlette", "agui": "ag_ui", "vercel": "starlette.responses",
    "responses": "starlette.routing", "mcp": "mcp", "langchain": "langchain_core", "a2a": "a2a",
}.items():
    loaded = set(sys.modules)
    sys.modules[package] = None
    try:
        importlib.import_module(f"rxflow.adapters.{adapter}")
    except ModuleNotFoundError as error:
        said[adapter] = str(error)
    for name in {name for name in sys.modules if name.startswith("rxflow.adapters.")} | {package}:
        del sys.modules[name]
print(json.dumps(said))
"""
LIGHT = """
import sys
import rxflow
heavy = ("starlette", "opentelemetry", "mcp", "langchain_core", "a2a", "ag_ui", "rxflow.adapters")
print([name for name in heavy if name in sys.modules])
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_adapter_names_its_extra() -> None:
    said = json.loads(run(PROGRAM))
    extras = {
        "otel": "otel",
        "sse": "web",
        "agui": "agui",
        "vercel": "web",
        "responses": "responses",
        "mcp": "mcp",
        "langchain": "langchain",
        "a2a": "a2a",
    }
    assert set(said) == set(extras)
    for adapter, extra in extras.items():
        assert said[adapter].endswith(f"it comes with: pip install 'rxflow[{extra}]'"), said[adapter]


def test_rxflow_is_as_light_as_without_them() -> None:
    assert run(LIGHT) == "[]\n"
