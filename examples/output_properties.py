"""The properties of a streaming output before, during and after reading, and in a second reading.

python examples/output_properties.py
"""

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import start
from rxflow.types.streaming import FlowStreamingOutput

MODEL = chosen_model()


class Tides(Flow):
    stream = True

    @start()
    def explain(self) -> str:
        return str(MODEL.call("Tell me about spring tides"))


def tell(when: str, output: FlowStreamingOutput) -> None:
    print(f"{when}: {len(output.chunks)} chunks, completed: {output.is_completed}, cancelled: {output.is_cancelled}")


streaming: FlowStreamingOutput = Tides().kickoff()
tell("before", streaming)

try:
    print(streaming.result)
except RuntimeError as error:
    print(f"too early: {error}")

for number, _ in enumerate(streaming):
    if number == 2:
        tell("meanwhile", streaming)

tell("after", streaming)
print(f"result: {streaming.result}")
print(f"the text is the result: {streaming.get_full_text() == streaming.result}")
print(f"a second reader gets the whole stream: {len(list(streaming))} chunks")
