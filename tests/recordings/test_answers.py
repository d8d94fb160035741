"""Recorded answers of real providers are read as they are, by each way that can serve them, wherever they are cut."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.recordings.archive import require_library
from tests.recordings.player import Played, Player, Way, find_complaint, find_cuts, find_differences, find_ways, reading

pytestmark = pytest.mark.slow

LIBRARY = require_library(__name__)

ALL_WAYS = [played for recording in LIBRARY.recordings for played in find_ways(recording)]


def find_halves() -> Iterator[Played]:
    """Half of each answer; by litellm's wrapper, which takes ten times as long, of one of each provider."""
    seen: set[tuple[str, str]] = set()
    for played in ALL_WAYS:
        kind = (played.recording.provider, played.recording.dialect)
        is_known = played.way is Way.WRAPPER and kind in seen
        if played.recording.expected.error is None and not is_known:
            yield played
            if played.way is Way.WRAPPER:
                seen.add(kind)


@pytest.mark.parametrize("played", ALL_WAYS, ids=str)
def test_an_answer_is_read_as_it_is_wherever_the_network_cuts_it(played: Played, player: Player) -> None:
    cuts = find_cuts(LIBRARY.read_body(played.recording), seed=played.recording.id)
    if played.way is Way.WRAPPER:
        cuts = cuts[:1]

    async def main() -> dict[str, object]:
        seen = await asyncio.gather(*(player.hear(played, cut) for cut in cuts))
        return {cut: find_differences(played, each) for cut, each in zip(cuts, seen, strict=True)}

    with reading(played):
        assert asyncio.run(main()) == {cut: {} for cut in cuts}


@pytest.mark.parametrize("played", list(find_halves()), ids=str)
def test_an_answer_without_its_second_half_is_refused(played: Played, player: Player) -> None:
    half = LIBRARY.find_half(played.recording)
    ends = [f"end={half}", f"break={half}"]

    async def main() -> dict[str, str | None]:
        seen = await asyncio.gather(*(player.hear(played, "cut=event", end, max_retries=0) for end in ends))
        return {end: find_complaint(played, each) for end, each in zip(ends, seen, strict=True)}

    with reading(played):
        assert asyncio.run(main()) == dict.fromkeys(ends)


def test_all_ways_are_tried() -> None:
    assert {played.way for played in ALL_WAYS} == set(Way)
