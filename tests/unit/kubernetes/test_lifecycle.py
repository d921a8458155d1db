"""Proves: whatever is slow, and whatever fails, what a replica serves is trusted by API servers.

The simulation is of several replicas and several API servers that learn of a change each at their
own time, within what `Terms` allows for, under a leader that may be another one at any step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.kubernetes.certificates import (
    CertificateError,
    KeyPair,
    dates,
    is_signed_by,
    make_authority,
    names_of,
    split_bundle,
)
from procscope.kubernetes.lifecycle import (
    Holding,
    Terms,
    advanced,
    first,
    from_data,
    restored,
    to_data,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = Terms(
    names=("webhook.procscope.svc",),
    authority_lifetime=timedelta(days=3650),
    certificate_lifetime=timedelta(days=90),
)
DAY = timedelta(days=1)


@cache
def fresh() -> Holding:
    return first(NOW, TERMS)


def step(
    held: Holding, now: datetime, *, published: bool = True, overlapped: bool = True
) -> Holding:
    return advanced(held, now, TERMS, published=published, overlapped=overlapped)


def test_at_first_there_is_one_authority_and_what_it_signed() -> None:
    held = fresh()
    assert split_bundle(held.bundle()) == (held.authority.certificate,)
    assert is_signed_by(held.serving.certificate, held.authority.certificate)
    assert names_of(held.serving.certificate) == set(TERMS.names)


def test_there_is_nothing_to_do_before_it_is_time() -> None:
    assert step(fresh(), NOW) is fresh()
    assert step(fresh(), NOW + 59 * DAY) is fresh()


def test_a_certificate_is_renewed_under_the_same_authority() -> None:
    held = step(fresh(), NOW + 60 * DAY)
    assert held.authority == fresh().authority
    assert held.bundle() == fresh().bundle()
    assert dates(held.serving.certificate).not_after == NOW + 150 * DAY
    assert step(held, NOW + 60 * DAY) is held


def test_another_name_makes_another_certificate() -> None:
    terms = replace(TERMS, names=("other.procscope.svc",))
    held = advanced(fresh(), NOW, terms, published=True, overlapped=True)
    assert names_of(held.serving.certificate) == {"other.procscope.svc"}
    assert held.bundle() == fresh().bundle()


def test_a_new_authority_is_published_before_anything_is_signed_by_it() -> None:
    late = NOW + 2434 * DAY
    announced = step(fresh(), late, published=True)
    assert announced.successor is not None
    assert announced.serving == fresh().serving
    assert set(split_bundle(announced.bundle())) == {
        fresh().authority.certificate,
        announced.successor.certificate,
    }
    # It is not trusted everywhere yet; the old one goes on signing meanwhile.
    waiting = step(announced, late, published=False)
    assert waiting.authority == fresh().authority
    assert is_signed_by(waiting.serving.certificate, fresh().authority.certificate)


def test_the_old_authority_is_trusted_until_nobody_serves_by_it() -> None:
    late = NOW + 2434 * DAY
    announced = step(fresh(), late)
    promoted = step(announced, late, published=True)
    assert promoted.authority == announced.successor
    assert promoted.retired == (fresh().authority.certificate,)
    assert set(split_bundle(promoted.bundle())) == set(split_bundle(announced.bundle()))
    assert step(promoted, late, overlapped=False) is promoted
    done = step(promoted, late, overlapped=True)
    assert split_bundle(done.bundle()) == (promoted.authority.certificate,)


def test_an_authority_that_has_ended_is_replaced_at_once() -> None:
    held = step(fresh(), NOW + 3651 * DAY, published=False, overlapped=False)
    assert is_signed_by(held.serving.certificate, held.authority.certificate)
    assert dates(held.serving.certificate).not_after > NOW + 3651 * DAY
    assert split_bundle(held.bundle()) == (held.authority.certificate,)


def test_the_last_certificate_of_an_authority_is_not_made_again_and_again() -> None:
    # Nobody publishes the successor, so that the authority comes to its end.
    last = fresh()
    for day in range(0, 3650, 10):
        last = step(last, NOW + day * DAY, published=False)
    end = NOW + 3649 * DAY
    assert dates(last.serving.certificate).not_after == NOW + 3650 * DAY
    assert step(last, end, published=False) is last


def test_an_emptied_secret_leads_to_other_keys_by_the_same_steps() -> None:
    held = restored(fresh(), NOW, TERMS)
    assert held.serving == fresh().serving
    assert held.successor is not None
    promoted = step(held, NOW, published=True)
    assert promoted.authority == held.successor


def test_a_secret_holds_it_all() -> None:
    held = step(step(fresh(), NOW + 2434 * DAY), NOW + 2434 * DAY)
    announced = restored(held, NOW, TERMS)
    assert held.retired
    assert announced.successor
    for one in (fresh(), held, announced):
        assert from_data(to_data(one)) == one
    assert from_data(None) is None
    assert from_data({}) is None


def test_a_secret_that_holds_something_else_is_one_named_error() -> None:
    data = to_data(fresh())
    other = to_data(Holding(make_authority(NOW, DAY), fresh().serving))
    broken = {
        "ca.crt and ca.key": data | {"ca.key": other["ca.key"]},
        "not signed": data | {"ca.crt": other["ca.crt"], "ca.key": other["ca.key"]},
        "not base64": data | {"tls.key": "%"},
        "tls.crt and tls.key: not a certificate": data | {"tls.crt": ""},
        "next-ca.crt and next-ca.key": data | {"next-ca.crt": data["ca.crt"]},
        "not a bundle": data | {"previous-ca.crt": "Z2FyYmFnZQ=="},
    }
    for reason, content in broken.items():
        with pytest.raises(CertificateError, match=reason):
            from_data(content)


@given(
    st.dictionaries(
        st.sampled_from(("ca.crt", "ca.key", "tls.crt", "tls.key", "previous-ca.crt", "other")),
        st.text(max_size=20),
        min_size=1,
    )
)
def test_garbage_in_a_secret_is_one_named_error(data: dict[str, str]) -> None:
    with pytest.raises(CertificateError):
        from_data(data)


PER_INTERVAL = 4


@dataclass
class World:
    """Replicas and API servers. A replica looks around once in each `PER_INTERVAL` ticks."""

    terms: Terms
    random: Random
    now: datetime = NOW
    ticks: int = 0
    held: Holding = field(init=False)
    published: bytes = b""
    published_s: float = 0.0
    """For how long the present leader has seen it so."""
    used_s: float = 0.0
    """For how long the present leader has seen the authority in use."""
    known: list[tuple[bytes, float]] = field(default_factory=list)
    """What each API server trusts, and for how long that has been out of date."""
    served: list[tuple[KeyPair, int]] = field(default_factory=list)
    """What each replica serves, and for how many ticks that has been out of date."""

    def __post_init__(self) -> None:
        self.held = first(self.now, self.terms)
        self.published = self.held.bundle()
        self.known = [(self.published, 0.0)] * 2
        self.served = [(self.held.serving, 0)] * 2

    def tick(self) -> None:
        passed_s = self.terms.interval_s / PER_INTERVAL
        self.ticks += 1
        self.now += timedelta(seconds=passed_s)
        self.published_s += passed_s
        self.used_s += passed_s
        interval, tick = divmod(self.ticks, PER_INTERVAL)
        if tick == 0 and interval % 40 == 0:
            # Another replica leads, and knows nothing of what has been waited for.
            self.published_s = self.used_s = 0.0
        elif tick == 0 and (interval % 2 or self.random.random() < 0.5):
            self.lead()
        self.learn(passed_s)
        self.check()

    def lead(self) -> None:
        if self.published != self.held.bundle():
            self.published, self.published_s = self.held.bundle(), 0.0
            return
        before = self.held
        self.held = advanced(
            self.held,
            self.now,
            self.terms,
            published=self.published_s >= self.terms.settling_s,
            overlapped=self.used_s >= self.terms.overlap_s,
        )
        if self.held.authority != before.authority:
            self.used_s = 0.0

    def learn(self, passed_s: float) -> None:
        """An API server learns within the time to settle, a replica within two intervals."""
        for index, (bundle, late_s) in enumerate(self.known):
            is_late = late_s + passed_s >= self.terms.settling_s
            if bundle == self.published or is_late or self.random.random() < 0.1:
                self.known[index] = (self.published, 0.0)
            else:
                self.known[index] = (bundle, late_s + passed_s)
        for index, (pair, late) in enumerate(self.served):
            is_late = late + 1 >= 2 * PER_INTERVAL
            if pair == self.held.serving or is_late or self.random.random() < 0.1:
                self.served[index] = (self.held.serving, 0)
            else:
                self.served[index] = (pair, late + 1)

    def check(self) -> None:
        for pair, _ in self.served:
            validity = known_dates(pair.certificate)
            assert validity.not_before <= self.now < validity.not_after
            for bundle, _ in self.known:
                assert any(is_signed(pair.certificate, one) for one in split(bundle))


known_dates, is_signed, split = cache(dates), cache(is_signed_by), cache(split_bundle)


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 90), st.integers(30, 90), st.integers())
def test_what_is_served_is_trusted_all_the_time(
    authority_s: int, certificate_s: int, seed: int
) -> None:
    terms = Terms(TERMS.names, timedelta(seconds=authority_s), timedelta(seconds=certificate_s))
    world = World(terms, Random(seed))
    authorities = {world.held.authority.certificate}
    for _ in range(100 * PER_INTERVAL):
        world.tick()
        authorities.add(world.held.authority.certificate)
    assert len(authorities) > 1
