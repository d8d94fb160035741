"""The machinery of streams: bridges from coroutines and threads, the launch of a run, the log and the outputs."""
