"""A model for a demonstration: it has texts for each role on board, and is overloaded once."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence

from reactivex import Observable

from rxflow.llm import Delta, Ending, Request, Source, ToolCallDelta, from_async
from rxflow.types.results import UsageMetrics

NAVIGATOR, COOK, POET, CAPTAIN = "Navigator", "Cook", "Poet", "Captain"
TURNS: Mapping[str, Sequence[str]] = {
    NAVIGATOR: (
        'tide_table({"port": "Cascais", "day": "Saturday"})',
        """High water is at 14:20, so we slip the mooring at noon and carry the last of the flood past the lighthouse.
With the north-westerly on the beam we raise the cape before dark; the bar at the river is closed to us until
morning, and we heave to outside it.""",
    ),
    COOK: (
        "Plenty of soup, some bread and enough coffee for everyone, as there has always been on this boat.",
        """For six people and two days: 9 litres of fish soup, 4 loaves of bread, 30 eggs, 2 kg of oranges and 1 kg
of coffee. The soup is made ashore, because nobody cooks in the swell off the cape.""",
    ),
    POET: ("Oh the wind it blew and the sea it grew and the cook fell into the stew, my boys. " * 12,),
    CAPTAIN: (
        """We sail on Saturday at noon. The tide takes us past the lighthouse, the soup is made ashore, and we are
outside the bar by nightfall. Wear something warm. There will be no singing.""",
    ),
}
"""The texts of each role, turn by turn."""

DOLLARS_PER_WORD = 0.00002


class Overloaded(Exception):
    """The model has too many requests."""


class Storyteller(Source):
    """A source, for ``LLM("demo/storyteller", source=Storyteller(pace=0.05))``. ``pace`` is in seconds per word."""

    def __init__(self, pace: float = 0.05) -> None:
        self._pace = pace
        self._is_overloaded = True

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            role = next(role for role in TURNS if role in str(request.messages[0].get("content")))
            turn = sum(message.get("role") == "assistant" for message in request.messages)
            words = 0
            text = TURNS[role][turn].replace("\n", " ")
            call = re.fullmatch(r"(\w+)\((\{.*\})\)", text)
            if call is not None:
                if self._is_overloaded:
                    self._is_overloaded = False
                    raise Overloaded("the model is overloaded")
                emit(ToolCallDelta(0, id="call_1", name=call[1]))
            for word in re.findall(r"\s*\S+", call[2] if call is not None else text):
                emit(ToolCallDelta(0, arguments=word) if call is not None else word)
                words += 1
                await asyncio.sleep(self._pace)
            asked = len(json.dumps(list(request.messages)).split())
            usage = UsageMetrics(
                prompt_tokens=asked, completion_tokens=words, total_tokens=asked + words, successful_requests=1
            )
            emit(Ending("tool_calls" if call is not None else "stop", usage, cost=words * DOLLARS_PER_WORD))

        return from_async(answer)

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return 10 * self._pace if isinstance(error, Overloaded) else None
