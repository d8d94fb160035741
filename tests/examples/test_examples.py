"""Every example runs offline, as a user starts it, and prints what it promises."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = {path.stem for path in (ROOT / "examples").glob("[!_]*.py")}
EMBEDDED = "Model: rxflow/demo, embedded: no key, no network. Name a real one with --model or MODEL."
MODEL_VARIABLES = {"MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME", "OPENAI_API_KEY", "OPENAI_BASE_URL"}

# The first test waits for all of them.
pytestmark = pytest.mark.timeout(120)

tested: set[str] = set()


# Each is a program that starts, which takes more than a second: the quick tests run one of each kind.
QUICK = {"approval", "crew_from_yaml", "embed_as_observable", "error_handling", "multi_step_flow", "sync_streaming"}


def example(name: str) -> pytest.MarkDecorator:
    """The test receives what this example ``printed`` after its first line."""
    tested.add(name)
    marks = [] if name in QUICK else [pytest.mark.slow]
    return pytest.mark.parametrize("printed", [pytest.param(name, marks=marks, id=name)], indirect=True)


@cache
def ray_folder() -> Path:
    """A folder for Ray's files with a short path, because the paths of Unix sockets have at most 107 characters."""
    folder = tempfile.mkdtemp(prefix="ray-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def start(
    name: str, *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in MODEL_VARIABLES}
    inherited["RAY_TMPDIR"] = str(ray_folder())  # Ray mentions another cluster of this machine, as a test may start one
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), "--pace", "0", *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def running(
    folder: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All that the selected tests ask for, on all cores: half a second of imports each."""
    functions = (item for item in request.session.items if isinstance(item, pytest.Function))
    asking = [function.name for function in functions if "printed" in function.fixturenames]
    asked = [name for name in sorted(EXAMPLES) if any(test.endswith(f"[{name}]") for test in asking)]
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {name: pool.submit(start, name, cwd=folder) for name in asked}
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def printed(request: pytest.FixtureRequest, running: dict[str, Future[subprocess.CompletedProcess[str]]]) -> str:
    if request.param == "on_a_cluster":
        pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    done = running[request.param].result()
    assert done.stderr == ""
    assert done.returncode == 0
    first, _, rest = done.stdout.partition("\n")
    assert first == EMBEDDED
    return rest.strip()


def test_no_example_is_left_untested() -> None:
    assert tested == EXAMPLES


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_short_and_says_what_it_shows_and_how_to_run_it(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    docstring = source.split('"""')[1].strip()
    assert docstring.endswith(f"python examples/{name}.py")
    assert len(docstring.splitlines()[0]) > 40
    assert source.count("\n") < 80


def test_a_model_in_the_environment_answers_in_place_of_the_embedded_one(tmp_path: Path) -> None:
    done = start("sync_streaming", cwd=tmp_path, environment={"MODEL": "rxflow/other"})
    assert done.stdout.partition("\n")[0] == "Model: rxflow/other"
    assert "the only embedded model is \"rxflow/demo\"; got 'rxflow/other'" in done.stderr


def test_a_model_on_the_command_line_goes_before_that_of_the_environment(tmp_path: Path) -> None:
    done = start("sync_streaming", "--model", "rxflow/named", cwd=tmp_path, environment={"MODEL": "rxflow/other"})
    assert done.stdout.partition("\n")[0] == "Model: rxflow/named"


@example("sync_streaming")
def test_the_streamed_words_make_up_the_result(printed: str) -> None:
    streamed, result = re.fullmatch(r"(.+)\n\nThe result, whole: (.+)", printed, re.DOTALL).groups()  # type: ignore[union-attr]
    assert streamed == result
    assert "“lighthouses on the coast of Brittany”" in result


@example("chunk_labels")
def test_every_chunk_names_its_method_crew_task_and_agent(printed: str) -> None:
    head, *rows = printed.splitlines()
    assert head.split() == ["no", "method", "crew", "task", "agent", "type", "content"]
    fields = [row.split(maxsplit=7) for row in rows]
    numbers = [int(number) for number, *_ in fields]
    assert numbers == sorted(set(numbers))
    of_tasks = {tuple(labels) for _, *labels, _ in fields}
    assert of_tasks == {
        ("plan", "kitchen", "0", "Soup", "Cook", "text"),
        ("plan", "kitchen", "1", "Bread", "Baker", "text"),
    }
    assert fields[0][-1] == "'My'"


@example("output_properties")
def test_an_output_tells_how_far_it_is(printed: str) -> None:
    before, early, meanwhile, after, result, is_text, again = printed.splitlines()
    assert before == "before: 0 chunks, completed: False, cancelled: False"
    assert early.startswith("too early: Streaming has not completed yet")
    assert re.fullmatch(r"meanwhile: \d+ chunks, completed: (True|False), cancelled: False", meanwhile)
    (count,) = re.findall(r"^after: (\d+) chunks, completed: True, cancelled: False$", after)
    assert result.startswith("result: My notes on “spring tides”.")
    assert is_text == "the text is the result: True"
    assert again == f"a second reader gets the whole stream: {count} chunks"
    assert int(count) == len(result.removeprefix("result: ").split())


@example("async_streaming")
def test_two_flows_at_once_each_keep_their_own_words(printed: str) -> None:
    for bird in ("heron", "wren"):
        *words, full = [
            line.removeprefix(f"{bird}:").strip() for line in printed.splitlines() if line.startswith(f"{bird}:")
        ]
        assert full == "said in full: " + " ".join(words)
        assert f"“the {bird}”" in full
    birds = [line.partition(":")[0] for line in printed.splitlines()]
    assert birds != sorted(birds), "they did not run at once"


@example("multi_step_flow")
def test_the_last_of_three_crews_works_with_what_the_others_found(printed: str) -> None:
    streamed, _, summary = printed.partition("\n\nMethods that completed: ")
    said = dict.fromkeys(("look_at_soil", "look_at_light", "choose_plants"), "")
    for method, _, words in re.findall(r"\[(\w+)\] (\w+):(.*)", streamed):
        said[method] += words
    assert "My notes on “the soil of a slope”." in said["look_at_soil"]
    assert "My notes on “the light under birches”." in said["look_at_light"]
    assert said["choose_plants"].startswith(" My notes on “plants”. Of what I was given")
    assert "“the soil of a slope”" in said["choose_plants"]
    completed, plan = summary.splitlines()
    assert completed == "3"
    assert plan == "The plan:" + said["choose_plants"]


@example("progress_dashboard")
def test_the_dashboard_shows_two_crews_a_tool_retries_a_branch_that_is_stopped_and_a_summary(printed: str) -> None:
    lines = printed.splitlines()
    begun = [line for line in lines if line.startswith("> Voyage / ")]
    assert begun[:3] == ["> Voyage / plan_route", "> Voyage / plan_meals", "> Voyage / sing"]
    assert begun[-1] == "> Voyage / brief_the_crew / Captain: Brief the crew"
    assert "Navigator: retries in 0.0 s: Overloaded: the model is overloaded" in lines
    assert "Navigator -> tide_table(port='Cascais', day='Saturday')" in lines
    assert "Cook: 97 characters taken back: Rejected: name figures: how much, for how many?" in lines
    assert not re.search(r"(la|boys\. ){12}", printed), "the poet was stopped"
    assert "There will be no singing." in printed
    assert re.fullmatch(
        r"done after \d+\.\d s, 4 of 4 methods, 1 tool call, 2 retries, ~\d+ tokens, ≥ \$0\.00\d\d", lines[-1]
    )
    assert "\033" not in printed, "control codes where there is no terminal"
    assert max(map(len, lines)) <= 80


@example("structured_state")
def test_the_state_refuses_bad_inputs_and_ends_filled_in(printed: str) -> None:
    refused, rest = printed.split("\n\nwrite, to the harbour office: ")
    assert refused.startswith("Refused before anything ran: Invalid inputs for structured state:")
    assert "words_wanted" in refused
    draft, rest = rest.split("\n\nsummarise, to the harbour office: ")
    subject, state = rest.split("\n\nThe state afterwards: ")
    assert json.loads(state) == {"to": "the harbour office", "words_wanted": 40, "draft": draft, "subject": subject}
    assert "“the delay to the harbour office”" in draft


@example("chunk_types")
def test_the_pieces_of_a_tool_call_add_up_to_its_arguments(printed: str) -> None:
    pieces = re.findall(r"a piece of a call of depth_of: '(.*)'", printed)
    assert json.loads("".join(pieces)) == {"place": "the north channel", "metres": True}
    assert len(pieces) > 2
    assert "depth_of(**{'place': 'the north channel', 'metres': True})" in printed
    assert "The text: My notes on “the north channel”. The tool reports: 11 metres." in printed


@example("error_handling")
def test_a_failed_flow_keeps_its_text_and_raises_its_error_twice(printed: str) -> None:
    sent, failed = printed.split("\n\n")
    text, last = sent.splitlines()
    assert text.startswith("My notes on “a parcel for Oslo”.")
    assert last == f"Sent: a label of {len(text)} characters"
    text, *said = failed.splitlines()
    assert text.startswith("My notes on “a parcel for Bergen”.")
    assert said == [
        "Not sent: 25 kg is more than a parcel may weigh",
        "completed: True, cancelled: False",
        f"kept: {len(text)} characters in {len(text.split())} chunks",
        "the result says the same: True",
    ]


@example("cancel_by_leaving")
def test_leaving_the_block_stops_a_flow_that_would_never_end(printed: str) -> None:
    assert printed.count("My notes on “a ferry") == 2
    assert printed.count("(tell: stopped)") == 2
    assert printed.count("async with: completed: True, cancelled: True") == 1
    assert printed.count("with: completed: True, cancelled: True") == 2


@example("cancel_explicitly")
def test_an_endless_flow_ends_by_close_and_by_aclose(printed: str) -> None:
    runs = printed.split("\n\n")
    for run, how in zip(runs, ("aclose", "close"), strict=True):
        text, state, no_result = run.splitlines()
        assert text == "My notes on “Count the waves, one"
        assert state == f"{how}: completed: True, cancelled: True"
        assert no_result.startswith("no result: Streaming was cancelled")


@example("plot_flow")
def test_a_drawing_is_written_where_the_program_runs(printed: str, folder: Path) -> None:
    page = folder / "crossing.html"
    drawn = page.read_text(encoding="utf-8")
    for method in ("ask_for_weather", "look_at_tide", "decide", "cast_off", "stay", "log"):
        assert method in drawn
        assert f'"{method}"' in printed
    assert "\nflowchart " in printed
    assert "My notes on “the weather at the strait”." in printed
    assert printed.endswith(f"Logged: under way. The drawing: {page.resolve()}")


@example("embed_as_observable")
def test_words_of_two_runs_become_sentences_with_a_score(printed: str) -> None:
    sentences = [line for line in printed.splitlines() if not line.startswith("(")]
    for place in ("Lisbon", "Tromsø"):
        assert [line for line in sentences if line.startswith(place)] == [
            f"{place}: My notes on “{place}”.",
            f"{place}: That is all the demo model can say: it knows nothing but its prompt.",
        ]
    assert re.findall(r"^\((\d) so far\)$", printed, re.MULTILINE) == ["1", "2", "3", "4"]


@example("pipeline_in_a_loop")
def test_ten_words_are_read_in_a_plain_loop(printed: str) -> None:
    headline, count = printed.split("\n\n")
    words = headline.split()
    assert len(words) == 10
    assert count == f"10 words; the last of them is {words[-1]!r}"


@example("one_run_three_readers")
def test_one_run_is_shown_without_secrets_measured_and_played_again(printed: str) -> None:
    shown, clerk, writer, total, again = printed.splitlines()
    assert shown.startswith("My notes on “the order with card ****”.")
    assert "4929" not in printed
    assert re.fullmatch(r"clerk: (\d+) chunks, \1 tokens", clerk)
    assert re.fullmatch(r"writer: (\d+) chunks, \1 tokens", writer)
    assert re.fullmatch(r"in all: \d+ tokens, 0\.0 dollars", total)
    reply = again.removeprefix("the reply again: ")
    assert reply.startswith("My notes on “the order”.")
    assert shown.endswith(reply)


@example("resume_after_a_dropped_reader")
def test_a_reader_in_another_process_goes_on_where_the_last_one_was_dropped(printed: str) -> None:
    first, second, whole = printed.splitlines()
    assert first.startswith("the first reader saw 5 chunks and was dropped: 'My notes on")
    assert re.match(r"the second one went on behind chunk \d+: '.*demo model", second)
    assert whole == "together they have the whole answer: True"


@example("many_readers")
def test_readers_that_leave_and_come_back_have_the_whole_story(printed: str) -> None:
    story, visits, whole = printed.splitlines()
    assert story.startswith("My notes on “the sea”.")
    assert re.fullmatch(r"100 readers came \d+ times", visits)
    assert whole == "with the whole story: 100"


@example("approval")
def test_a_person_changes_a_payment_and_lets_a_letter_go_out(printed: str) -> None:
    assert "[approval] May Clerk call pay?\n  -> approved=True reason='' arguments={'amount': 12" in printed
    assert "the tool: 12 euros paid for the berth\n" in printed
    assert "[feedback] Shall this letter go out?\n  -> approved\n" in printed
    assert printed.rstrip().endswith("Yours, Ada")


@example("approval_web")
def test_a_payment_is_approved_and_changed_over_http(printed: str) -> None:
    asked, paid, ended, stopped = printed.splitlines()
    assert asked == "[approval] May Clerk call pay?"
    assert paid == "the tool: 12 euros paid for the berth"
    assert (ended, stopped) == ("the run: completed", "the server is stopped")


@example("long_flow_that_survives")
def test_a_killed_flow_goes_on_and_pays_nothing_twice(printed: str) -> None:
    killed, lost, paused, result, *log = printed.splitlines()
    assert (killed, lost, paused) == ("the worker was killed: -9", "the run is lost", "the run is paused: Who signs?")
    assert result.startswith("signed by Ada: My notes on")
    assert log == ["paid: Surveyor", "ran: measure", "paid: Writer", "ran: report", "ran: publish"]


@example("nested_flows")
def test_the_text_of_generators_inner_flows_and_returned_streams_is_in_the_outer_stream(printed: str) -> None:
    title, inner, returned, _, result = printed.splitlines()
    assert title == "Songbook.title: Songs of the sea"
    assert inner.startswith("Verse.rhyme: My notes on “Songs of the sea”.")
    assert returned.startswith("Songbook.second_verse: My notes on “the rain”.")
    assert result == "The last verse was the result: True"


@example("crew_from_yaml")
def test_a_crew_class_runs_with_its_texts_from_yaml_inside_a_flow(printed: str) -> None:
    research, advice = printed.splitlines()
    label, text = research.split(": ", 1)
    assert label == "GardenCrew.research, spring gardener"
    assert "The tool reports: tomatoes in spring are sown 6 weeks before the last frost." in text
    assert advice.startswith("GardenCrew.advise, Editor: My notes on “tomatoes”.")


@example("self_evaluation_loop")
def test_the_loop_sends_a_draft_back_once_and_ends_with_the_next(printed: str) -> None:
    *turns, _, result = printed.splitlines()
    assert [turn.partition(":")[0] for turn in turns] == ["write, Poet", "evaluate, Critic"] * 2
    assert "The critic says" not in turns[0]
    assert "The critic says" in turns[2]
    assert set(json.loads(turns[1].removeprefix("evaluate, Critic: "))) == {"accepted", "advice"}
    assert result == "Published after 2 attempts."


@example("on_a_cluster")
def test_a_branch_runs_on_another_node_and_its_chunks_are_labelled_here(printed: str) -> None:
    branch, here, result = printed.splitlines()
    assert re.fullmatch(r"Article / research / Research / read: \d+ chunks", branch)
    assert re.fullmatch(r"Article / write: \d+ chunks", here)
    assert re.fullmatch(r"researched in another process: True; written here: \d+ words", result)
