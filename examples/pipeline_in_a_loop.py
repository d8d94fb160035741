"""A pipeline of operators, read by a plain ``for``: a headline of ten words, and then the model is stopped.

python examples/pipeline_in_a_loop.py
"""

from _model import chosen_model
from reactivex import operators as rxops

from rxflow import Flow
from rxflow import operators as ops
from rxflow.flow import start

MODEL = chosen_model()


class Report(Flow):
    @start()
    def write(self) -> str:
        return str(MODEL.call("Write a report about the port, in as many words as you like"))


with (
    Report()
    .observe()
    .pipe(
        ops.words(),
        rxops.take(10),  # with the tenth word the call is over, down to the provider's connection
        ops.to_output(),
    ) as headline
):
    for word in headline:
        print(word, end="", flush=True)

print(f"\n\n{len(headline.items)} words; the last of them is {headline.result.content.strip()!r}")
