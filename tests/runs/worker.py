"""A worker process: starts a run, says so, and waits for its end. ::

python -m tests.runs.worker STORE RUN_ID TARGET LEASE_S INPUTS
"""

import json
import sys
import time

from rxflow.runs import Runs


def main() -> None:
    store, run_id, target, lease_s, inputs = sys.argv[1:6]
    if "--clock-behind" in sys.argv:  # a machine whose clock is a day behind
        real = time.time
        time.time = lambda: real() - 86_400
    with Runs(store, lease=float(lease_s)) as runs:
        run = runs.start(target, json.loads(inputs), run_id=run_id)
        print("started", flush=True)
        try:
            run.result()
        except Exception as error:  # noqa: BLE001 - printed
            print(f"ended {type(error).__name__}: {error}", flush=True)
        else:
            print("ended", flush=True)


if __name__ == "__main__":
    main()
