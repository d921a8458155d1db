"""The table of what is fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz import (
    hosttexts,
    keeping,
    livetree,
    parsers,
    pinnedtree,
    plans,
    requests,
    sharedslots,
    stored,
)

CORPUS = Path(__file__).parent / "corpus"

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "request": requests.request,
    "live-tree": livetree.live_tree,
    "pinned-tree": pinnedtree.pinned_tree,
    "pin": pinnedtree.pin,
    "trace": requests.trace,
    "init": requests.init,
    "connection-state": requests.connection_state,
    "estate-state": plans.estate_state,
    "attach-plan": plans.attach_plan,
    "slots": sharedslots.slots,
    "handles": sharedslots.handles,
    "recent": sharedslots.recent,
    "keeper": keeping.keeper,
    "record": stored.record,
    "ledger": stored.ledger,
    "load-block": stored.load_block,
    "task-stat": parsers.task_stat,
    "cgroups": parsers.cgroups,
    "status": parsers.status,
    "identity": parsers.identity,
    "mountinfo": parsers.mountinfo,
    "cpulist": parsers.cpulist,
    "cgroup-files": parsers.cgroup_files,
    "cgroup-v1": hosttexts.cgroup_v1,
    "cgroup-v2": hosttexts.cgroup_v2,
    "runtime-names": parsers.runtime_names,
    "cpuinfo": hosttexts.cpuinfo_text,
    "stat": hosttexts.stat_text,
    "meminfo": hosttexts.meminfo_text,
    "small-texts": hosttexts.small_texts,
    "cpu-sysfs": hosttexts.sysfs_text,
}


def corpus(name: str) -> list[Path]:
    """The inputs that are kept for one target, in a fixed order."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
