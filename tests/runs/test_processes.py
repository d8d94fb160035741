"""Runs whose workers and readers live in different processes."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from reactivex import operators as rxops

from rxflow.runs import RunCancelled, RunLost, Runs
from rxflow.types.codec import encode
from rxflow.types.events import Retracted
from tests.loopback.reply import Reply
from tests.loopback.server import Loopback
from tests.runs.conftest import LEASE_S, ROOT, StartWorker
from tests.runs.flows import Twice
from tests.signals import signals_of

HERE = "tests.runs.flows"
KILLS = int(os.environ.get("RXFLOW_KILLS", "4"))


def test_a_reader_in_another_process_follows_a_run_to_its_end(store: str, start_worker: StartWorker) -> None:
    start_worker(store, "r", f"{HERE}:Count", {"count": 30, "gap_ms": 3})
    with Runs(store) as runs:
        seen = signals_of(runs["r"].observe())
        assert [str(chunk) for chunk in seen.items] == [f"n{number}" for number in range(30)]
        assert runs["r"].result(20) == "".join(f"n{number}" for number in range(30))


def test_a_reader_process_that_is_killed_is_followed_by_another_one(store: str, start_worker: StartWorker) -> None:
    start_worker(store, "r", f"{HERE}:Count", {"count": 20, "gap_ms": 20})
    program = textwrap.dedent("""
        import sys
        from rxflow.runs import Runs
        for chunk in Runs(sys.argv[1])["r"].output():
            print(chunk.seq, chunk, flush=True)
    """)
    command = [sys.executable, "-c", program, store]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        first = [reader.stdout.readline().split() for _ in range(5)]
        reader.kill()
    with Runs(store) as runs:
        rest = signals_of(runs["r"].observe(after=int(first[-1][0]))).items
    assert [text for _, text in first] + [str(chunk) for chunk in rest] == [f"n{number}" for number in range(20)]


def test_cancel_in_another_process_closes_the_providers_socket(store: str, start_worker: StartWorker) -> None:
    with Loopback() as provider, Runs(store) as runs:
        provider.script(Reply(text="so be it", hold_after=1))
        worker = start_worker(store, "r", f"{HERE}:Calls", {"url": provider.url})
        runs["r"].observe().pipe(rxops.first()).run()
        runs["r"].cancel("enough")
        provider.wait_until(lambda state: state.disconnects)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ended RunCancelled: run 'r' was cancelled: enough\n"
        with pytest.raises(RunCancelled, match="enough"):
            runs["r"].result(20)


@pytest.mark.parametrize(("later_s", "heard"), [(601, "heard None"), (0, "heard yes")])
def test_a_question_expires_in_whichever_process_goes_on(
    store: str, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, later_s: float, heard: str
) -> None:
    worker = start_worker(store, "r", f"{HERE}:Patient", {"seconds": 600})
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith("ended RunPaused")
    with Runs(store) as runs:
        (request,) = runs["r"].pending()
        assert request.expires_at is not None
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + later_s)
        runs["r"].resume({request.request_id: "yes"})
        assert runs["r"].result(20) == heard


class TestKilledWorkers:
    @pytest.mark.slow
    @pytest.mark.timeout(60 + 15 * KILLS)
    def test_readers_get_what_had_arrived_and_then_that_it_is_lost(self, store: str, start_worker: StartWorker) -> None:
        lease_s = 1.0
        with Runs(store, lease=LEASE_S) as runs:
            for number in range(KILLS):
                name = f"r{number}"
                worker = start_worker(store, name, f"{HERE}:Count", {"count": 5000, "gap_ms": 1}, lease_s=lease_s)
                texts: list[str] = []
                after_chunks = random.randrange(1, 60)
                lost = rf"^run '{name}' is lost after event \d+: .*; resume\(\) continues it "
                with pytest.raises(RunLost, match=lost):  # noqa: PT012
                    for chunk in runs[name].output():
                        texts.append(str(chunk))
                        if len(texts) == after_chunks:
                            worker.kill()
                worker.kill()  # a machine that is too busy may take a worker for dead that lives
                worker.wait()
                seen = signals_of(runs[name].observe())
                assert [str(chunk) for chunk in seen.items] == [f"n{number}" for number in range(len(seen.items))]
                assert [str(chunk) for chunk in seen.items][: len(texts)] == texts
                assert runs[name].status == "lost"

    @pytest.mark.slow
    def test_restart_begins_a_new_generation_with_a_retraction(self, store: str, start_worker: StartWorker) -> None:
        worker = start_worker(store, "r", f"{HERE}:Endless", lease_s=3)
        with Runs(store, lease=LEASE_S) as runs:
            run = runs["r"]
            run.observe().pipe(rxops.first()).run()
            worker.kill()
            lost = signals_of(run.events()).items
            run.restart(Twice())
            seen = signals_of(run.events(after=lost[-1].seq)).items
            assert isinstance(seen[0], Retracted)
            assert isinstance(seen[0].error, RunLost)
            assert [event.seq for event in seen] == list(range(len(lost), len(lost) + len(seen)))
            assert run.result(20) == "threefour"

    @pytest.mark.slow
    def test_a_worker_that_was_taken_for_dead_cannot_write_any_more(
        self, store: str, start_worker: StartWorker
    ) -> None:
        """It stands still past its lease, another one takes over, and then it goes on."""
        worker = start_worker(store, "r", f"{HERE}:Count", {"count": 3000, "gap_ms": 2}, lease_s=3)
        with Runs(store, lease=LEASE_S) as runs:
            run = runs["r"]
            run.observe().pipe(rxops.first()).run()
            os.kill(worker.pid, signal.SIGSTOP)
            assert isinstance(signals_of(run.events()).errors[0], RunLost)
            run.restart(Twice())
            assert run.result(20) == "threefour"
            before = [encode(event) for event in signals_of(run.events()).items]
            os.kill(worker.pid, signal.SIGCONT)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ended\n"  # it reads the result of the other one
            assert [encode(event) for event in signals_of(run.events()).items] == before


@pytest.mark.slow
def test_a_worker_whose_clock_is_behind_is_not_taken_for_dead(store: str, start_worker: StartWorker) -> None:
    start_worker(store, "r", f"{HERE}:Count", {"count": 40, "gap_ms": 60}, "--clock-behind", lease_s=4)
    with Runs(store, lease=LEASE_S) as runs:
        assert runs["r"].result(20) == "".join(f"n{number}" for number in range(40))


def test_a_fork_is_told_to_open_the_store_anew(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, sys
        from rxflow.runs import Runs
        runs = Runs(sys.argv[1])
        print(os.getpid(), flush=True)
        if os.fork() == 0:
            if os.fork() == 0:
                try:
                    runs.list()
                except Exception as error:
                    print(type(error).__name__, error, flush=True)
                os._exit(0)
            os.wait()
            os._exit(0)
        os.wait()
    """)
    command = [sys.executable, "-W", "ignore", "-c", program, f"sqlite:///{tmp_path}/runs.db"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    opener, error = printed.splitlines()
    assert error == f"StoreError the store {tmp_path}/runs.db was opened by process {opener}: open it anew"
