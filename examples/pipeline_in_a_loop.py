"""A pipeline of operators, read by a plain ``for``: it takes ten words as a headline, and then stops the model.

python examples/pipeline_in_a_loop.py
"""

from _model import chosen_model
from reactivex import operators as rxops

from rxflow import Flow, operators as ops
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
        rxops.take(10),  # the tenth word ends the call and closes the provider's connection
        ops.to_output(),
    ) as headline
):
    for word in headline:
        print(word, end="", flush=True)

print(f"\n\n{len(headline.items)} words; the last of them is {headline.result.content.strip()!r}")
