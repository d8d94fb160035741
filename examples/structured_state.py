"""A flow whose state is a pydantic model: inputs are validated, methods change it, and readers see it during the run.

python examples/structured_state.py
"""

from _model import chosen_model
from pydantic import BaseModel

from rxflow import Flow
from rxflow.flow import listen, start

MODEL = chosen_model()


class Letter(BaseModel):
    to: str = ""
    words_wanted: int = 50
    draft: str = ""
    subject: str = ""


class LetterWriter(Flow[Letter]):
    stream = True

    @start()
    def write(self) -> str:
        letter = self.state
        letter.draft = MODEL.call(f"Write {letter.words_wanted} words about the delay to {letter.to}")
        return letter.draft

    @listen(write)
    def summarise(self, draft: str) -> None:
        self.state.subject = MODEL.call(f"Find a subject line for a letter about a delay\n{draft}")


try:
    LetterWriter().kickoff(inputs={"words_wanted": "a few"})
except ValueError as error:
    print(f"Refused before anything ran: {error}", end="")

flow = LetterWriter()
method = ""
for chunk in flow.kickoff(inputs={"to": "the harbour office", "words_wanted": "40"}):
    if chunk.flow_method != method:
        method = chunk.flow_method
        print(f"\n\n{method}, to {flow.state.to}: ", end="")
    print(chunk, end="", flush=True)

print("\n\nThe state afterwards:", flow.state.model_dump_json(indent=2, exclude={"id"}))
