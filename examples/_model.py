"""The model of the examples: the embedded one, unless you name another.

python examples/sync_streaming.py                                      no key, no network
python examples/sync_streaming.py --model openai/gpt-4.1-mini          needs OPENAI_API_KEY
MODEL=ollama_chat/llama3 python examples/sync_streaming.py             a server of your own
"""

import os
import sys
from argparse import ArgumentParser, Namespace

from rxflow import LLM

EMBEDDED = "rxflow/demo"


def chosen_model() -> LLM:
    """Return the model that ``--model`` or MODEL names, and print its name."""
    chosen = _read_options()
    if chosen.model == EMBEDDED:
        print(f"Model: {EMBEDDED}, embedded: no key, no network. Name a real one with --model or MODEL.\n", flush=True)
    else:
        print(f"Model: {chosen.model}\n", flush=True)
    return LLM(chosen.model, pace=chosen.pace)


def chosen_pace() -> float:
    """Return the seconds between two words of the embedded model."""
    return float(_read_options().pace)


def _read_options() -> Namespace:
    about = (sys.modules["__main__"].__doc__ or "").partition("\n")[0]
    options = ArgumentParser(description=about)
    options.add_argument("--model", default=os.environ.get("MODEL") or EMBEDDED, help="as litellm writes it")
    options.add_argument("--pace", type=float, default=0.05, help="seconds between two words of the embedded model")
    return options.parse_args()
