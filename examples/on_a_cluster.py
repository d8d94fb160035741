"""A branch of a flow on another node of a Ray cluster. Both nodes of the cluster are on this machine.

python examples/on_a_cluster.py
"""

import os
from typing import Any

import ray as _ray
from _model import chosen_model
from ray import cluster_utils as _cluster_utils

from rxflow import LLM, Flow
from rxflow.cluster import close_workers, on_ray
from rxflow.flow import listen, start

ray: Any = _ray  # Ray's type annotations are incomplete
cluster_utils: Any = _cluster_utils


class Research(Flow):
    """Runs on a worker, which imports it as ``on_a_cluster:Research``. The worker needs its code and its API keys."""

    @start()
    async def read(self) -> Any:
        notes = await LLM("rxflow/demo", pace=0).acall(f"Take notes on {self.state['topic']}")
        return {"notes": notes, "process": os.getpid()}


class Article(Flow):
    """Runs in this process, except for its research, which runs on the node with the resource ``archive``."""

    model: Any = None

    @start()
    def research(self) -> Any:
        return on_ray("on_a_cluster:Research", resources={"archive": 1}).events({"topic": "lighthouses"})

    @listen(research)
    async def write(self, found: dict[str, Any]) -> Any:
        elsewhere = found["process"] != os.getpid()
        text = await self.model.acall(f"Write about this: {found['notes']}")
        return f"researched in another process: {elsewhere}; written here: {len(text.split())} words"


def main() -> None:
    Article.model = chosen_model()
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1, resources={"archive": 1})
    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
    methods: dict[str, int] = {}
    output = Article().stream_chunks()
    for chunk in output:
        methods[" / ".join(chunk.namespace)] = methods.get(" / ".join(chunk.namespace), 0) + 1
    for place, count in methods.items():
        print(f"{place}: {count} chunks")
    print(output.result)
    close_workers()
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    main()
