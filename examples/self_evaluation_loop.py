"""A loop that evaluates itself: one agent writes, another judges, and a router sends the text back.

python examples/self_evaluation_loop.py
"""

from _model import chosen_model
from pydantic import BaseModel

from rxflow import Agent, Flow
from rxflow.flow import listen, router, start

MODEL = chosen_model()
POET = Agent(role="Poet", goal="Write short verses", backstory="Says it in few words.", llm=MODEL)
CRITIC = Agent(role="Critic", goal="Judge verses", backstory="Reads with a pencil in hand.", llm=MODEL)
ROUNDS = 2


class Verdict(BaseModel):
    accepted: bool
    advice: str


class Verse(BaseModel):
    topic: str = "the sea"
    text: str = ""
    advice: str = ""
    attempts: int = 0
    accepted: bool = False


class Refining(Flow[Verse]):
    stream = True

    @start("retry")  # the only start method: the flow begins with it, and returns to it at each "retry"
    async def write(self) -> str:
        advice = f"\nThe critic says: {self.state.advice}" if self.state.advice else ""
        answer = await POET.kickoff_async(f"Write a verse about {self.state.topic}{advice}")
        self.state.text = answer.raw
        self.state.attempts += 1
        return self.state.text

    @router(write)
    async def evaluate(self, text: str) -> str:
        answer = await CRITIC.kickoff_async(f"Give your opinion on {text}", response_format=Verdict)
        self.state.advice = answer.pydantic.advice
        # The embedded model accepts everything, so this line rejects the first draft.
        self.state.accepted = answer.pydantic.accepted and self.state.attempts > 1
        if self.state.accepted:
            return "accepted"
        return "given_up" if self.state.attempts == ROUNDS else "retry"

    @listen("accepted")
    def publish(self) -> str:
        return f"Published after {self.state.attempts} attempts."

    @listen("given_up")
    def give_up(self) -> str:
        return f"Given up after {self.state.attempts} attempts."


streaming = Refining().kickoff()
speaker = ""
for chunk in streaming:
    if speaker != chunk.agent_role:
        speaker = chunk.agent_role
        print(f"\n{chunk.flow_method}, {speaker}: ", end="")
    print(chunk, end="", flush=True)
print(f"\n\n{streaming.result}")
