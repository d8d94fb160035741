"""Serve one prepared stream as fast as the socket takes it, for benchmarks: `python -m tests.loopback`."""

import argparse
import sys
import time

from tests.loopback import Loopback, Reply, Request, encode

WRITE_SIZE = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.loopback", description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000, help="content chunks of a stream")
    parser.add_argument("--text-per-chunk", default="tok ", help="content of each chunk")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between chunks")
    options = parser.parse_args()
    chunks: int = options.chunks
    text: str = options.text_per_chunk
    pace: float = options.pace

    whole = Reply(text=[text] * chunks)
    streams = {usage: prepared(whole, pace, include_usage=usage) for usage in (False, True)}
    with Loopback() as provider:
        provider.answer(lambda request: streams[request.include_usage] if request.stream else whole)
        print(provider.url, flush=True)
        sys.stdin.buffer.read()


def prepared(whole: Reply, pace: float, *, include_usage: bool) -> Reply:
    """The reply encoded, in large writes, or event by event if it is paced."""
    body = {"model": "loopback", "stream_options": {"include_usage": include_usage}}
    request = Request(body=body, headers={}, at=time.monotonic(), number=1, path="")
    events = encode.completion_events(whole, request)
    limit = 1 if pace else WRITE_SIZE
    writes: list[bytes] = []
    gathered = bytearray()
    for event in (events.role, *events.content, *events.end, encode.DONE):
        gathered += event
        if len(gathered) >= limit:
            writes.append(bytes(gathered))
            gathered.clear()
    writes.append(bytes(gathered))
    return Reply(raw=[data for data in writes if data], pace=pace)


if __name__ == "__main__":
    main()
