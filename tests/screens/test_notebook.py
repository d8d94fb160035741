"""Notebooks: what objects look like there, and a run that is shown live; in a real kernel."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from rxflow import Crew, Flow, operators as ops
from rxflow.flow import start
from rxflow.screens._run_tree import RunTree
from rxflow.screens._sources import read_methods
from rxflow.screens.notebook import draw_run, show
from rxflow.types.results import CrewOutput, TaskOutput
from tests.screens.pseudo_terminal import ROOT, inherited
from tests.screens.voyages import HOSTILE, Hostile, Voyage
from tests.scripted import Scripted
from tests.team import solo

pytestmark = [
    pytest.mark.timeout(120),
    # jupyter_client's own, which speaks to the kernel from a loop of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
]

PATIENCE_S = 60.0
MARKUP = re.compile(r"</?(?:script|img|b onclick)")


def html_of(shown: Any) -> str:
    return cast(str, shown._repr_html_())


def text_of(markup: str) -> str:
    """The texts of some HTML, one a line."""
    return "\n".join(filter(None, (part.strip() for part in re.split(r"<[^>]*>", markup))))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel, as a notebook has it."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path), env=inherited())
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE_S)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_the_notebook_of_the_examples_runs(tmp_path: Path) -> None:
    notebook: Any = cast(Any, nbformat).read(ROOT / "examples" / "flow_in_a_notebook.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=PATIENCE_S, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=inherited())
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = ["".join(str(output.get("data", {}).get("text/html", "")) for output in cell.outputs) for cell in cells]
    flow, live, result, plot = shown[1], shown[2], shown[3], shown[5]
    assert "Flow Postcard" in flow
    assert "<iframe" in flow
    assert "✓ write" in text_of(live).replace("✓\nwrite", "✓ write")
    assert "done after" in live
    assert "a postcard from Lisbon" in result
    assert "<iframe" in plot
    assert (tmp_path / "postcard.html").is_file()
    assert "a postcard from Lisbon" in "".join(output.text for output in cells[4].outputs)


def test_an_interrupted_cell_stops_the_run_and_keeps_what_had_come(
    kernel: tuple[KernelManager, BlockingKernelClient],
) -> None:
    manager, client = kernel
    code = "from rxflow.screens import notebook; from tests.screens.voyages import Endless; notebook.show(Endless())"
    asked = client.execute(code)
    shown, error, is_interrupted = "", "", False
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE_S)
        if message["parent_header"].get("msg_id") != asked:
            continue
        content = message["content"]
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown = content["data"]["text/html"]
            if "One two three." in shown and not is_interrupted:
                is_interrupted = True
                manager.interrupt_kernel()
        elif message["msg_type"] == "error":
            error = content["ename"]
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            break
    assert error == "KeyboardInterrupt"
    assert "One two three." in shown
    assert "stopped after" in shown


def folded(source: Any) -> RunTree:
    """The tree of a whole run."""
    tree = RunTree(read_methods(source))
    with source.events().pipe(ops.to_output()) as events:
        for event in events:
            tree.add(event)
    tree.complete()
    return tree


def test_a_run_is_shown_with_its_states_speakers_tools_and_what_was_taken_back() -> None:
    markup = draw_run(folded(Voyage()))
    assert "<del>Plenty of soup</del>" in markup
    assert "→ depth(place=&#x27;the bar&#x27;)" in markup
    assert "← ✗ broken: OSError: no echo at the cape" in markup
    assert "done after" in markup
    assert "5 of 6 methods" in markup
    rows = [text_of(row).replace("\n", " ") for row in re.findall(r"<tr.*?</tr>", markup)]
    assert [re.sub(r" \d.*", "", row) for row in rows if "sing" in row.lower()] == [
        "✓ sing",
        "⊘ Poet · Sing a limit was reached",
    ]
    assert rows[-1] == "○ return_home not reached"


def test_texts_are_escaped_everywhere() -> None:
    hostile = f"<script>alert(1)</script><img src=x onerror=alert(1)>\0{HOSTILE}"
    task = TaskOutput(description=hostile, raw=hostile, agent=hostile)
    crew: Crew = solo(Scripted(hostile), description=hostile, agent={"role": hostile.replace("{", "")})
    for markup in (
        html_of(task),
        html_of(CrewOutput(raw=hostile, tasks_output=[task, task])),
        html_of(crew),
        draw_run(folded(Hostile())),
    ):
        assert not MARKUP.search(markup)
        assert "\0" not in markup
        assert "\x1b" not in markup
        markup.encode()


def test_outputs_show_their_state_and_what_has_come() -> None:
    crew = solo(Scripted("One & two"))
    crew.stream = True
    output = crew.kickoff()
    assert "not started, 0 chunks" in html_of(output)
    with output:
        list(output)
    assert "completed, 3 chunks" in html_of(output)
    assert "One &amp; two" in html_of(output)


def test_a_flow_shows_its_graph_in_a_frame_that_runs_no_scripts() -> None:
    markup = html_of(Voyage())
    assert "Flow Voyage" in markup
    assert "<iframe title='The graph of Voyage' sandbox srcdoc='" in markup
    assert "brief" in markup


class Quick(Flow[dict[str, Any]]):
    @start()
    def report(self) -> str:
        if self.state.get("place") == "nowhere":
            raise LookupError("no such place")
        return "low tide"


def test_outside_a_notebook_a_run_gives_its_result_or_its_error_too() -> None:
    assert show(Quick()) == "low tide"
    with pytest.raises(LookupError, match="no such place"):
        show(Quick(), {"place": "nowhere"})
