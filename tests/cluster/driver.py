"""A program that starts a run on a cluster and waits. ::

python -m tests.cluster.driver CLUSTER STORE RUN_ID TARGET
"""

import sys

from rxflow.cluster import Ray
from rxflow.runs import Runs


def main() -> None:
    address, store, run_id, target = sys.argv[1:]
    runs = Runs(store, on=Ray(address, workers=1), lease=1)
    run = runs.start(target, run_id=run_id)
    print("started", flush=True)
    run.result()


if __name__ == "__main__":
    main()
