"""A flow drawn into one HTML page, printed as Mermaid text, and then streamed.

python examples/plot_flow.py
"""

from typing import Literal

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import and_, listen, or_, router, start

MODEL = chosen_model()


class Crossing(Flow):
    stream = True

    @start()
    def ask_for_weather(self) -> str:
        return str(MODEL.call("Report on the weather at the strait"))

    @start()
    def look_at_tide(self) -> str:
        return "rising"

    @router(and_(ask_for_weather, look_at_tide))
    def decide(self) -> Literal["sail", "wait"]:
        return "sail"

    @listen("sail")
    def cast_off(self) -> str:
        return "under way"

    @listen("wait")
    def stay(self) -> str:
        return "in port"

    @listen(or_(cast_off, stay))
    def log(self, what: str) -> str:
        return f"Logged: {what}"


flow = Crossing()
page = flow.plot("crossing", show=False)
print(f"Drawn: {page.name}, {page.stat().st_size // 1024} KiB, nothing else needed to open it\n")
print(flow.to_mermaid())

streaming = flow.kickoff()
for chunk in streaming:
    print(chunk, end="", flush=True)
print(f"\n\n{streaming.result}. The drawing: {page}")
