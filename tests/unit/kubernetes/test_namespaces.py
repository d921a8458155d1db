"""Proves: what is known of a namespace is what the API server said last, and nobody waits for it.

The API server is in memory, and says when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from procscope.kubernetes import namespaces
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.namespaces import NoNamespaces, WatchedNamespaces
from procscope.kubernetes.settings import UNKNOWN
from tests.unit.kubernetes.apiserver import NAMESPACES, ApiServer, namespace

Play = Callable[[ApiServer, WatchedNamespaces], Awaitable[None]]


async def until(condition: Callable[[], object]) -> None:
    """Give way until the condition holds; the level's limit is the bound."""
    while not condition():
        await asyncio.sleep(0)


def scenario(play: Play, *, watching: bool = True) -> Metrics:
    """Run a test that is a coroutine, while the namespaces are watched."""
    metrics = Metrics()

    async def run() -> None:
        server = ApiServer()
        server.put(f"{NAMESPACES}/web", namespace("web", team="a"))
        known = WatchedNamespaces(server.client, metrics)
        task = asyncio.create_task(known.run()) if watching else None
        try:
            if watching:
                await until(lambda: server.watches)
            await play(server, known)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return metrics


def questions(server: ApiServer) -> list[str]:
    """The namespaces that were asked for one by one."""
    return [path.rpartition("/")[2] for _, path in server.requests if path != NAMESPACES]


def test_what_was_listed_is_known_without_a_question() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        assert known.listed.is_set()
        assert dict((await known.facts("web")).labels) == {"team": "a"}
        assert questions(server) == []

    scenario(play)


def test_a_change_is_known_once_it_is_told() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.tell("MODIFIED", "web", labels={"team": "b"}, annotations={"x": "y"})
        server.tell("BOOKMARK", "", labels={})
        server.tell("DELETED", "gone")
        server.tell("ADDED", "new", labels={"team": "c"})
        await until(lambda: "new" in known._facts)
        facts = await known.facts("web")
        assert (dict(facts.labels), dict(facts.annotations)) == ({"team": "b"}, {"x": "y"})
        assert (await known.facts("new")).labels == {"team": "c"}
        assert questions(server) == []

    scenario(play)


def test_one_that_was_deleted_is_not_remembered() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        del server.objects[f"{NAMESPACES}/web"]
        server.tell("DELETED", "web")
        await until(lambda: "web" not in known._facts)
        assert await known.facts("web") is UNKNOWN

    scenario(play)


def test_one_that_the_watch_has_not_told_of_is_asked_for_once() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.put(f"{NAMESPACES}/new", namespace("new", team="c"))
        found = await asyncio.gather(*(known.facts("new") for _ in range(20)))
        assert {one.labels["team"] for one in found} == {"c"}
        assert questions(server) == ["new"]

    scenario(play)


def test_one_that_is_not_there_is_unknown() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        assert await known.facts("nowhere") is UNKNOWN

    metrics = scenario(play).render(ready=True).decode()
    assert 'errors_total{what="namespace"} 0.0' in metrics


@pytest.mark.parametrize("name", ["", ".", "..", "web/status", "../nodes", "Web", "w" * 64, "w?"])
def test_what_cannot_be_a_namespace_is_not_asked_for(name: str) -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        assert await known.facts(name) is UNKNOWN
        assert questions(server) == []

    scenario(play)


@pytest.mark.parametrize("status", [-1, 403, 500])
def test_without_an_answer_it_is_unknown_and_the_next_one_is_not_asked(status: int) -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.refuse = lambda method, path: status
        assert await known.facts("new") is UNKNOWN
        assert await known.facts("newer") is UNKNOWN
        assert questions(server) == ["new"]
        assert (await known.facts("web")).known

    metrics = scenario(play).render(ready=True).decode()
    assert 'errors_total{what="namespace"} 1.0' in metrics


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_QUESTION_S", 0.01)

    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        never = asyncio.Event()

        async def silent(*_: object) -> None:
            await never.wait()

        monkeypatch.setattr(server, "handle_async_request", silent)
        assert await known.facts("new") is UNKNOWN

    scenario(play)


def test_who_gives_up_waiting_takes_the_answer_from_nobody_else() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.put(f"{NAMESPACES}/new", namespace("new", team="c"))
        impatient = asyncio.create_task(known.facts("new"))
        patient = asyncio.create_task(known.facts("new"))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).labels["team"] == "c"

    scenario(play)


def test_a_watch_that_breaks_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_RETRY_S", 0.001)

    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.put(f"{NAMESPACES}/new", namespace("new", team="c"))
        # As for a version that is too old.
        server.watches[0].put_nowait(
            {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
        )
        await until(lambda: len(server.watches) == 2)
        assert (await known.facts("new")).labels["team"] == "c"
        assert questions(server) == []

    scenario(play)


def test_a_watch_that_ends_goes_on() -> None:
    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.watches[0].put_nowait(None)
        await until(lambda: len(server.watches) == 2)
        server.watches[0] = server.watches[1]
        server.tell("MODIFIED", "web", labels={"team": "b"})
        await until(lambda: known._facts["web"].labels == {"team": "b"})

    scenario(play)


def test_a_watch_that_is_silent_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_RENEWED_S", 0.05)

    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        await until(lambda: len(server.watches) >= 2)
        assert (await known.facts("web")).known

    scenario(play)


def test_it_is_not_listed_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_RETRY_S", 0.001)

    async def play(server: ApiServer, known: WatchedNamespaces) -> None:
        server.refuse = lambda method, path: -1
        task = asyncio.create_task(known.run())
        await until(lambda: len(server.requests) > 2)
        assert not known.listed.is_set()
        server.refuse = lambda method, path: 0
        await known.listed.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    scenario(play, watching=False)


def test_without_a_cluster_nothing_is_known() -> None:
    assert asyncio.run(NoNamespaces().facts("web")) is UNKNOWN
