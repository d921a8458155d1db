"""What is no review is answered all the same, with what can be made of it."""

from __future__ import annotations

import pytest

from procscope.kubernetes import raw, reviews
from procscope.kubernetes.admission import Outcome, review
from tests.unit.kubernetes.objects import DEFAULT, OPT_IN, PLAIN, body, deployment, pod

NONE: list[object] = [None, 1, "a", [], {}, {"request": None}, {"request": []}, {"request": {}}]


@pytest.mark.parametrize("sent", NONE)
def test_no_request(sent: object) -> None:
    verdict = review(sent, DEFAULT, PLAIN)
    assert verdict.outcome is Outcome.IGNORED
    assert verdict.response["response"] == {"uid": "", "allowed": True}
    assert reviews.namespace_of(sent) == ""


def test_the_namespace_to_look_up() -> None:
    assert reviews.namespace_of(body(pod(), namespace="shop")) == "shop"


@pytest.mark.parametrize(
    "key", ["uid", "namespace", "operation", "resource", "object", "oldObject"]
)
def test_a_part_of_another_type(key: str) -> None:
    sent = body(pod(OPT_IN))
    sent["request"][key] = 7
    verdict = review(sent, DEFAULT, PLAIN)
    assert verdict.response["response"]["allowed"] is True
    if key == "uid":
        assert verdict.response["response"]["uid"] == ""
    else:
        assert (verdict.outcome, verdict.reason) == (Outcome.IGNORED, "malformed")
        assert f"'{key}'" in verdict.message
        assert verdict.response["response"]["uid"] == sent["request"]["uid"]


@pytest.mark.parametrize("found", [None, {}])
def test_a_creation_of_nothing(found: object) -> None:
    for kind in (("", "pods"), ("apps", "deployments")):
        assert review(body(found, kind=kind), DEFAULT, PLAIN).outcome is Outcome.IGNORED


def test_a_malformed_part_is_named() -> None:
    broken = pod(OPT_IN, containers=[{"name": "web", "volumeMounts": "none"}])
    verdict = review(body(broken), DEFAULT, PLAIN)
    assert (verdict.outcome, verdict.message) == (
        Outcome.IGNORED,
        "'volumeMounts' is not a list",
    )
    workload = deployment(OPT_IN)
    workload["spec"]["template"]["metadata"]["annotations"] = {"a": 1}
    verdict = review(body(workload, kind=("apps", "deployments")), DEFAULT, PLAIN)
    assert verdict.message == "'annotations' is not a map of strings"


def test_reading_by_exact_keys() -> None:
    parent: dict[str, object] = {"a": {"b": "c"}, "l": [{}], "n": None, "f": False, "t": "x"}
    assert raw.table(parent, "a") == raw.texts(parent, "a") == {"b": "c"}
    assert raw.tables(parent, "l") == [{}]
    assert (raw.text(parent, "t"), raw.flag(parent, "f")) == ("x", False)
    for key in ("n", "missing"):
        assert raw.table(parent, key) == raw.texts(parent, key) == {}
        assert raw.tables(parent, key) == []
        assert (raw.text(parent, key), raw.flag(parent, key)) == ("", None)


def test_another_type_is_an_error() -> None:
    parent: dict[str, object] = {"x": 1, "l": [1], "m": {"a": 1}}
    for read in (raw.table, raw.tables, raw.texts, raw.text, raw.flag):
        with pytest.raises(raw.MalformedError, match="'x' is not"):
            read(parent, "x")
    with pytest.raises(raw.MalformedError, match="'l' is not a list of objects"):
        raw.tables(parent, "l")
    with pytest.raises(raw.MalformedError, match="'m' is not a map of strings"):
        raw.texts(parent, "m")
