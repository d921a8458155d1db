"""Who decides: the pod, its namespace, the installation, in this order."""

from __future__ import annotations

import pytest

from procscope.inject.docker import DEFAULT_FILES, MOUNTABLE
from procscope.kubernetes.decision import choose, decide
from procscope.kubernetes.settings import UNKNOWN, NamespaceFacts, Settings

LXCFS = "initializer.kubernetes.io/lxcfs"
INJECT = "procscope.io/inject"
FILES = "procscope.io/files"
NOTHING = NamespaceFacts()


@pytest.mark.parametrize(
    ("annotations", "label", "require", "wanted"),
    [
        ({}, None, True, False),
        ({}, None, False, True),
        ({}, "true", True, True),
        ({}, "false", False, False),
        ({INJECT: "true"}, "false", True, True),
        ({INJECT: "false"}, "true", False, False),
        ({LXCFS: "true"}, None, True, True),
        ({LXCFS: "false"}, "true", False, False),
        ({INJECT: "false", LXCFS: "true"}, None, True, False),
        ({INJECT: "true", LXCFS: "false"}, None, True, True),
        ({"other/inject": "true"}, None, True, False),
    ],
)
def test_the_nearest_word_counts(
    annotations: dict[str, str], label: str | None, require: bool, wanted: bool
) -> None:
    namespace = NamespaceFacts(labels={} if label is None else {INJECT: label})
    decision = decide(annotations, namespace, Settings(require_annotation=require))
    assert (decision.wanted, decision.problem) == (wanted, "")
    assert decision.explicit == any(name in annotations for name in (INJECT, LXCFS))


@pytest.mark.parametrize("value", ["", "yes", "True", "1", "TRUE", "enabled", " true"])
def test_a_value_that_is_no_word_means_no_and_is_named(value: str) -> None:
    everywhere = Settings(require_annotation=False)
    for decision in (
        decide({INJECT: value, LXCFS: "true"}, NOTHING, everywhere),
        decide({}, NamespaceFacts(labels={INJECT: value}), everywhere),
    ):
        assert not decision.wanted
        assert f'"{value}"' in decision.problem


def test_annotations_of_the_settings_replace_the_second() -> None:
    settings = Settings(annotations=("example.com/views",))
    assert decide({"example.com/views": "true"}, NOTHING, settings).wanted
    assert not decide({LXCFS: "true"}, NOTHING, settings).wanted
    assert decide({INJECT: "true"}, NOTHING, settings).wanted


def test_without_facts_the_settings_decide() -> None:
    assert decide({}, UNKNOWN, Settings(require_annotation=False)).wanted
    assert not decide({}, UNKNOWN, Settings()).wanted


@pytest.mark.parametrize(
    ("value", "files"),
    [
        ("meminfo", ("proc/meminfo",)),
        (" meminfo , cpuinfo,", ("proc/cpuinfo", "proc/meminfo")),
        ("/proc/stat", ("proc/stat",)),
        ("meminfo,proc/meminfo", ("proc/meminfo",)),
        ("slabinfo", ("proc/slabinfo",)),
        ("sys/devices/system/cpu", ("sys/devices/system/cpu",)),
        ("", DEFAULT_FILES),
        (" , ", DEFAULT_FILES),
    ],
)
def test_files_are_named_as_in_docker_args(value: str, files: tuple[str, ...]) -> None:
    choice = choose({FILES: value}, NOTHING, Settings())
    assert (choice.files, choice.unknown) == (files, ())


def test_unknown_files_are_left_out_and_told() -> None:
    choice = choose({FILES: "vmstat,meminfo,pressure/cpu"}, NOTHING, Settings())
    assert choice.files == ("proc/meminfo",)
    assert choice.unknown == ("vmstat", "pressure/cpu")


def test_a_namespace_can_choose_for_its_pods() -> None:
    namespace = NamespaceFacts(annotations={FILES: "uptime"})
    assert choose({}, namespace, Settings()).files == ("proc/uptime",)
    assert choose({FILES: "stat"}, namespace, Settings()).files == ("proc/stat",)


def test_files_of_the_settings_are_in_one_order() -> None:
    settings = Settings(files=tuple(reversed(MOUNTABLE)))
    assert choose({}, NOTHING, settings).files == MOUNTABLE
