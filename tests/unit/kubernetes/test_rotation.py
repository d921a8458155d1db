"""Proves: replicas that share a Secret, a Lease and a configuration come to serve what is trusted.

Their API server is in memory; it refuses what it is told to. Time is a number that the test moves.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from procscope.kubernetes.certificates import dates, is_signed_by, split_bundle
from procscope.kubernetes.elector import DURATION_S, Elector
from procscope.kubernetes.lifecycle import Holding, Terms, first, from_data, to_data
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.publication import Publication
from procscope.kubernetes.rotation import Rotation
from procscope.kubernetes.tls import ServingCertificate
from tests.unit.kubernetes.apiserver import (
    CONFIGURATION,
    LEASE,
    SECRET,
    ApiServer,
    configuration,
)

TERMS = Terms(("webhook",), timedelta(days=300), timedelta(days=300))
BRIEF = Terms(TERMS.names, timedelta(days=300), timedelta(days=90))
START = datetime.now(UTC)


class Clock:
    """Both clocks of a replica."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return self.passed_s

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)

    def sleep(self, **time: float) -> None:
        self.passed_s += timedelta(**time).total_seconds()


class Replica:
    """One replica, stepped by the test."""

    def __init__(self, server: ApiServer, clock: Clock, name: str) -> None:
        self.metrics = Metrics()
        self.serving = ServingCertificate(self.metrics)
        client = server.client
        self.elector = Elector(client, "webhook", name, clock=clock.monotonic)
        self.rotation = Rotation(
            client,
            "tls",
            TERMS,
            self.elector,
            Publication(client, "procscope", clock=clock.monotonic),
            self.serving,
            self.metrics,
            now=clock.now,
            clock=clock.monotonic,
        )
        self.step = self.rotation.step


class Cluster:
    """An API server with a configuration, and two replicas."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.server.put(CONFIGURATION, configuration("a.procscope.io", "b.procscope.io"))
        self.clock = Clock()
        self.one = Replica(self.server, self.clock, "one")
        self.other = Replica(self.server, self.clock, "other")
        self.replicas = (self.one, self.other)

    async def settle(self, steps: int = 4) -> None:
        """Let both take their steps, at their pace."""
        for _ in range(steps):
            for replica in self.replicas:
                await replica.step()
            self.clock.sleep(seconds=3)

    @property
    def held(self) -> Holding:
        held = from_data(self.server.objects[SECRET].get("data"))
        assert held is not None
        return held

    def bundles(self) -> set[bytes]:
        webhooks = self.server.objects[CONFIGURATION]["webhooks"]
        return {base64.b64decode(one["clientConfig"].get("caBundle", "")) for one in webhooks}

    def trusted(self) -> set[bytes]:
        """The authorities that every webhook of the configuration trusts."""
        return set.intersection(*(set(split_bundle(bundle)) for bundle in self.bundles()))

    def is_trusted(self, replica: Replica) -> bool:
        """Whether a client that trusts what the configuration says takes what is served now."""
        assert replica.serving.pair is not None
        certificate = replica.serving.pair.certificate
        validity = dates(certificate)
        in_time = validity.not_before <= self.clock.now() < validity.not_after
        return in_time and any(is_signed_by(certificate, one) for one in self.trusted())


def scenario(play: Callable[[Cluster], Awaitable[None]]) -> None:
    """Run a test that is a coroutine."""

    async def run() -> None:
        await play(Cluster())

    asyncio.run(run())


def test_two_replicas_come_to_serve_one_certificate_that_is_trusted() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        assert cluster.one.serving.pair == cluster.other.serving.pair == cluster.held.serving
        assert cluster.is_trusted(cluster.one)
        assert cluster.one.rotation.trusted
        assert cluster.other.rotation.trusted
        assert [cluster.one.elector.leading, cluster.other.elector.leading] == [True, False]

    scenario(play)


def test_an_empty_secret_and_lease_of_a_manifest_are_filled() -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.put(SECRET, {"type": "Opaque"})
        cluster.server.put(LEASE, {})
        await cluster.settle()
        assert cluster.is_trusted(cluster.one)
        assert cluster.is_trusted(cluster.other)

    scenario(play)


def test_a_replica_is_not_ready_before_the_configuration_trusts_it() -> None:
    async def play(cluster: Cluster) -> None:
        del cluster.server.objects[CONFIGURATION]
        await cluster.settle()
        assert cluster.one.serving.pair == cluster.held.serving
        assert [replica.rotation.trusted for replica in cluster.replicas] == [False, False]
        cluster.server.put(CONFIGURATION, configuration("a.procscope.io"))
        await cluster.settle()
        assert [replica.rotation.trusted for replica in cluster.replicas] == [True, True]

    scenario(play)


def test_a_caBundle_that_was_taken_away_comes_back() -> None:  # noqa: N802 - its name
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        cluster.server.put(CONFIGURATION, configuration("a.procscope.io", "new.procscope.io"))
        await cluster.settle(1)
        assert cluster.bundles() == {cluster.held.bundle()}

    scenario(play)


def test_other_fields_of_the_configuration_stay() -> None:
    async def play(cluster: Cluster) -> None:
        before = configuration("a.procscope.io", "b.procscope.io")["webhooks"]
        await cluster.settle()
        after = cluster.server.objects[CONFIGURATION]["webhooks"]
        for webhook in after:
            del webhook["clientConfig"]["caBundle"]
        assert after == before

    scenario(play)


def test_an_authority_is_replaced_and_nothing_served_is_ever_distrusted() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        old = cluster.held.authority
        cluster.clock.sleep(days=201)
        for _ in range(20):
            await cluster.settle(1)
            assert cluster.is_trusted(cluster.one)
            assert cluster.is_trusted(cluster.other)
        assert cluster.held.authority != old
        assert old.certificate in cluster.trusted()
        cluster.clock.sleep(hours=2)
        await cluster.settle()
        assert cluster.trusted() == {cluster.held.authority.certificate}
        assert cluster.is_trusted(cluster.other)

    scenario(play)


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        cluster.clock.sleep(days=201)
        await cluster.one.step()
        await cluster.one.step()
        assert cluster.held.successor is not None
        successor = cluster.held.successor
        await cluster.one.rotation.resign()
        for _ in range(10):
            await cluster.other.step()
            cluster.clock.sleep(seconds=3)
        assert cluster.other.elector.leading
        assert cluster.held.authority == successor

    scenario(play)


def test_the_promotion_waits_for_the_configuration() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        old = cluster.held.authority
        cluster.clock.sleep(days=201)
        cluster.server.refuse = lambda method, path: (
            403 if (method, path) == ("PATCH", CONFIGURATION) else 0
        )
        await cluster.settle(20)
        assert cluster.held.authority == old
        assert cluster.is_trusted(cluster.one)
        cluster.server.refuse = lambda method, path: 0
        await cluster.settle(20)
        assert cluster.held.authority != old
        assert cluster.is_trusted(cluster.other)

    scenario(play)


def test_a_certificate_is_renewed_though_the_configuration_is_gone() -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.put(SECRET, {"data": to_data(first(cluster.clock.now(), BRIEF))})
        await cluster.settle()
        before = cluster.held
        del cluster.server.objects[CONFIGURATION]
        cluster.clock.sleep(days=61)
        await cluster.settle()
        assert cluster.held.authority == before.authority
        assert cluster.one.serving.pair == cluster.held.serving != before.serving

    scenario(play)


def test_a_secret_that_was_deleted_is_made_anew_with_no_moment_of_distrust() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        old = cluster.held.authority
        del cluster.server.objects[SECRET]
        for _ in range(12):
            await cluster.settle(1)
            assert cluster.is_trusted(cluster.one)
            assert cluster.is_trusted(cluster.other)
        assert cluster.held.authority != old

    scenario(play)


def test_a_secret_with_garbage_is_made_anew() -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.put(SECRET, {"data": {"tls.crt": "bm90aGluZw=="}})
        await cluster.settle()
        assert cluster.is_trusted(cluster.one)
        assert cluster.is_trusted(cluster.other)

    scenario(play)


def test_somebody_elses_certificates_of_the_same_form_are_served() -> None:
    async def play(cluster: Cluster) -> None:
        given = first(cluster.clock.now(), TERMS)
        cluster.server.put(SECRET, {"data": to_data(given)})
        await cluster.settle()
        assert cluster.one.serving.pair == given.serving

    scenario(play)


def test_without_an_api_server_what_was_served_is_served_on() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        served = cluster.one.serving.pair
        cluster.server.refuse = lambda method, path: -1
        await cluster.settle()
        assert cluster.one.serving.pair == served
        assert cluster.one.rotation.trusted
        assert b'errors_total{what="cluster"} 0.0' not in cluster.one.metrics.render(ready=True)

    scenario(play)


def test_a_leader_that_cannot_renew_stops_before_another_one_starts() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle(1)
        assert cluster.one.elector.leading
        cluster.server.refuse = lambda method, path: 500
        led_s = followed_s = 0.0
        for _ in range(DURATION_S):
            await cluster.one.step()
            if cluster.one.elector.leading:
                led_s = cluster.clock.passed_s
            cluster.server.refuse = lambda method, path: 0
            await cluster.other.step()
            cluster.server.refuse = lambda method, path: 500
            if not followed_s and cluster.other.elector.leading:
                followed_s = cluster.clock.passed_s
            cluster.clock.sleep(seconds=1)
        assert 0 < led_s < followed_s

    scenario(play)


def test_of_two_who_want_to_lead_one_does() -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.put(LEASE, {})
        for _ in range(3):
            await asyncio.gather(cluster.one.step(), cluster.other.step())
        assert [cluster.one.elector.leading, cluster.other.elector.leading].count(True) == 1
        assert cluster.server.objects[LEASE]["spec"]["holderIdentity"] in ("one", "other")

    scenario(play)


def test_who_resigns_is_followed_at_once() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle(1)
        await cluster.one.rotation.resign()
        await cluster.other.step()
        assert not cluster.one.elector.leading
        assert cluster.other.elector.leading

    scenario(play)


def test_secret_and_lease_are_never_made_by_a_post() -> None:
    async def play(cluster: Cluster) -> None:
        await cluster.settle()
        assert "POST" not in {method for method, _ in cluster.server.requests}

    scenario(play)
