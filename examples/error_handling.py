"""A flow that fails half way: its chunks are kept, the loop raises the error, and ``result`` raises it again.

python examples/error_handling.py
"""

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import listen, start
from rxflow.types.streaming import FlowStreamingOutput

MODEL = chosen_model()


class Parcel(Flow):
    stream = True

    @start()
    def label(self) -> str:
        return str(MODEL.call(f"Write a label on a parcel for {self.state['town']}"))

    @listen(label)
    def weigh(self, text: str) -> int:
        if self.state["kilos"] > 20:
            raise ValueError(f"{self.state['kilos']} kg is more than a parcel may weigh")
        return len(text)


def send(town: str, kilos: int) -> None:
    streaming: FlowStreamingOutput = Parcel().kickoff(inputs={"town": town, "kilos": kilos})
    try:
        for chunk in streaming:
            print(chunk, end="", flush=True)
        print(f"\nSent: a label of {streaming.result} characters\n")
    except ValueError as error:
        print(f"\nNot sent: {error}")
        print(f"completed: {streaming.is_completed}, cancelled: {streaming.is_cancelled}")
        print(f"kept: {len(streaming.get_full_text())} characters in {len(streaming.chunks)} chunks")
        try:
            print(streaming.result)
        except ValueError as again:
            print(f"the result says the same: {again is error}")


send("Oslo", kilos=2)
send("Bergen", kilos=25)
