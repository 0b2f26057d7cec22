"""Clients that wait share one event loop, a bounded number of places, and tell no folder."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from interv.runtime.captures.routes import public, without_folders
from interv.runtime.captures.waiters import Gone, TooMany, Waiters
from interv.sinks.results import Result


class Client:
    def __init__(self) -> None:
        self.gone = False

    async def is_disconnected(self) -> bool:
        return self.gone


def test_places_are_bounded_and_given_back() -> None:
    async def run() -> None:
        waiters, there, clients = Waiters(2), [False], [Client(), Client(), Client()]
        look = lambda: "rows" if there[0] else None  # noqa: E731
        first, second = (asyncio.create_task(waiters.wait(look, one, 60)) for one in clients[:2])
        await asyncio.sleep(0)
        assert waiters.waiting == 2
        with pytest.raises(TooMany):
            await waiters.wait(look, clients[2], 60)
        # To look once takes no place.
        assert await waiters.wait(look, clients[2], 0) is None
        clients[0].gone = True
        with pytest.raises(Gone):
            await first
        assert waiters.waiting == 1
        third = asyncio.create_task(waiters.wait(look, clients[2], 60))
        there[0] = True
        assert (await second, await third, waiters.waiting) == ("rows", "rows", 0)

    asyncio.run(run())


def test_who_waits_long_enough_is_told_so() -> None:
    waiters = Waiters()
    assert asyncio.run(waiters.wait(lambda: None, Client(), 0.01)) is None
    assert waiters.waiting == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/srv/acts/a.safetensors", "a.safetensors"),
        ("gone ('/srv/my acts/.a.0.part')", "gone ('.a.0.part')"),
        ("[Errno 2] no such file: /srv/acts/a, /srv/b", "[Errno 2] no such file: a, b"),
        ("at path=/dev/shm/interv-1.captures/held", "at path=held"),
        ("the folder '/srv/acts/'", "the folder ''"),
        ("1/2 of and/or", "1/2 of and/or"),
    ],
)
def test_paths_lose_their_folders(text: str, said: str) -> None:
    assert without_folders(text) == said


def test_a_client_is_told_no_place_of_the_server() -> None:
    stored = Result(
        *("mine", 0, "calm.interv:3", "calm", "acts", "filesystem", "ok", 4),
        detail={"path": "/srv/acts/a.safetensors", "bytes": 8},
    )
    assert public(stored)["detail"] == {"path": "a.safetensors", "bytes": 8}
    kept = {"handle": "f.0-0.1", "path": "/dev/shm/interv-1.captures/rows/f/1", "bytes": 8}
    assert public(replace(stored, kind="memory", detail=kept))["detail"] == {"bytes": 8}
    lost = replace(stored, detail={}, error="E552: sink 'acts' could not: gone ('/srv/acts/a')")
    assert public(lost)["error"] == "E552: sink 'acts' could not: gone ('a')"
