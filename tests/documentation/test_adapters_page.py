"""The programs on the page about adapters run, and the page names what there is."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.adapters.serving import serve
from tests.gate import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
ABOUT = "That is all the demo model can say"


def names_after(heading: str, **given: Any) -> dict[str, Any]:
    """What the first flow and the first program of a section define."""
    names: dict[str, Any] = {"__name__": "page", **given}
    for number, program in enumerate((FENCE.findall(PAGE)[0], FENCE.findall(SECTIONS[heading])[0])):
        exec(compile(program, f"adapters.md, {heading}, block {number}", "exec"), names)
    return names


def messages(response: httpx.Response) -> Iterator[Any]:
    for line in response.text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_opentelemetry() -> None:
    # In a process of its own: the exporter prints to what is standard output when it is imported.
    program = FENCE.findall(PAGE)[0] + FENCE.findall(SECTIONS["OpenTelemetry"])[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    # Spans end, and are printed, while the reader still prints.
    said = re.sub(r"\{\n.*?^\}\n", "", done.stdout, flags=re.DOTALL | re.MULTILINE)
    assert "My notes on “tides”." in said
    assert '"name": "chat rxflow/demo"' in done.stdout


def test_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "rxflow.events"):
        names_after("Logs")
    assert [record.__dict__["event"] for record in caplog.records][-1] == "FlowFinished"


def test_server_sent_events() -> None:
    with serve(names_after("Server-sent events and JSON lines")["app"]) as url:
        *events, end = messages(httpx.get(f"{url}/run?topic=tides", timeout=PATIENCE_S))
    assert ABOUT in "".join(event["data"]["content"] for event in events if event["kind"] == "StreamChunk")
    assert end == {"error": None}


def test_ag_ui() -> None:
    asked = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "tides"}]}
    with serve(names_after("AG-UI")["app"]) as url:
        events = list(messages(httpx.post(url, json=asked, timeout=PATIENCE_S)))
    assert ABOUT in "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    assert events[-1]["type"] == "RUN_FINISHED"


def test_vercel() -> None:
    asked = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "tides"}]}]}
    with serve(names_after("Vercel's AI SDK")["app"]) as url:
        chunks = list(messages(httpx.post(f"{url}/api/chat", json=asked, timeout=PATIENCE_S)))
    assert ABOUT in "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")
    assert chunks[-1]["type"] == "finish"


def test_a_flow_as_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(names_after("A flow as a model")["app"]) as url:
        program = FENCE.findall(SECTIONS["A flow as a model"])[1]
        names: dict[str, Any] = {"url": url}
        exec(program, names)
        names["client"].close()
    assert ABOUT in capsys.readouterr().out


def test_model_context_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    names = names_after("Model Context Protocol")
    assert capsys.readouterr().out == "5\n"
    exec(FENCE.findall(SECTIONS["Model Context Protocol"])[1], names)
    connect = names["mcp"].connect
    with connect(names["server"]) as (trip,):
        assert trip.description == "Write a few words about a place."
        assert ABOUT in trip.run(topic="tides")


def test_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    names_after("LangChain")
    said = capsys.readouterr().out
    assert said.startswith("6 metres at Lisbon\n")
    assert ABOUT in said


def test_agent2agent() -> None:
    with serve(names_after("Agent2Agent")["app"]) as url:
        assert httpx.get(f"{url}/.well-known/agent-card.json", timeout=PATIENCE_S).json()["name"] == "Trips"


def test_each_adapter_has_a_section_with_what_is_lost() -> None:
    modules = {path.stem for path in (ROOT / "rxflow" / "adapters").glob("*.py") if not path.stem.startswith("_")}
    named = set(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE))
    assert named == modules
    for heading, section in SECTIONS.items():
        assert "\n| not carried over | why |\n" in section, heading
