"""Proves: whatever is mounted at a place, the plan ends with one view or leaves it alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.inject.model import Outcome, Over, Source, Wanted, wanted_files
from procscope.inject.plan import (
    Decision,
    Place,
    Step,
    attach_step,
    detach_step,
    is_kernel_file,
    peer_groups,
    removable,
    suspects,
    topmost,
)
from procscope.linux.mountinfo import Mount
from procscope.values import replace

LIVE, DEAD, OTHER = "0:50", "0:40", "0:60"
TARGET = "/proc/meminfo"
SOURCE = Source("/var/lib/procscope", LIVE)
(WANTED,) = wanted_files(["proc/meminfo"])


def mount(number: int, parent: int, device: str, path: str, root: str, fstype: str) -> Mount:
    return Mount(number, parent, device, root, path, ("rw",), fstype, "none", ("rw",))


ROOT = mount(1, 0, "8:1", "/", "/", "ext4")
PROC = mount(2, 1, "0:5", "/proc", "/", "proc")


def view(device: str, root: str = TARGET, path: str = TARGET, fstype: str = "") -> Mount:
    return mount(0, 0, device, path, root, fstype or "fuse.procscope")


def stacked(*layers: Mount) -> list[Mount]:
    """A mount table with `layers` on /proc/meminfo, each over the one before."""
    table = [ROOT, PROC]
    for layer in layers:
        table.append(replace(layer, mount_id=len(table) + 1, parent_id=table[-1].mount_id))
    return table


LIVE_VIEW = view(LIVE)
DEAD_VIEW = view(DEAD)
DELETED_VIEW = view(DEAD, root=f"{TARGET}//deleted")
OTHERS_VIEW = view(OTHER)
OWNERS = [
    mount(0, 0, "0:7", TARGET, "/null", "devtmpfs"),
    mount(0, 0, "0:5", TARGET, "/uptime", "proc"),
    mount(0, 0, "8:1", TARGET, "/etc/fake", "ext4"),
    view(DEAD, fstype="fuse.lxcfs"),
    view(LIVE, root="/proc/stat"),
]
LAYERS = st.sampled_from([LIVE_VIEW, DEAD_VIEW, DELETED_VIEW, OTHERS_VIEW, *OWNERS])


def is_dead(one: Mount) -> bool:
    return one.device == DEAD


class Table:
    """A mount table that steps are applied to, as the kernel would."""

    def __init__(self, mounts: list[Mount], *, locked: bool = False) -> None:
        self.mounts = mounts
        self.locked = locked
        self.steps = 0

    def attach(self, wanted: Wanted) -> Decision:
        return self._work(
            lambda place: attach_step(place, wanted, SOURCE, frozenset(), is_dead), wanted
        )

    def detach(self) -> Decision:
        return self._work(
            lambda place: detach_step(place, TARGET, SOURCE, frozenset(), is_dead), WANTED
        )

    def _work(self, decide: Callable[[Place], Decision], wanted: Wanted) -> Decision:
        taken_away, stuck = 0, False
        while True:
            at = self.mounts[-1]
            parent = next((one for one in self.mounts if one.mount_id == at.parent_id), None)
            decision = decide(Place(at, parent, taken_away, stuck))
            if decision.step is Step.STOP:
                return decision
            self.steps += 1
            if decision.step is Step.ATTACH:
                top = view(LIVE, root=wanted.root, path=wanted.mount_point)
                self.mounts = [*self.mounts, replace(top, mount_id=99, parent_id=at.mount_id)]
                return Decision(Step.STOP, Outcome.ATTACHED)
            if self.locked:
                stuck = True
            else:
                self.mounts = self.mounts[:-1]
                taken_away += 1


@given(st.lists(LAYERS, max_size=5), st.sampled_from(Over), st.booleans())
def test_attach_ends_with_one_living_view_or_leaves_the_top_alone(
    layers: list[Mount], over: Over, locked: bool
) -> None:
    table = Table(stacked(*layers), locked=locked)
    before = table.mounts
    table.attach(replace(WANTED, over=over))
    kept = [one for one in table.mounts if one.mount_id != 99]
    assert kept == before[: len(kept)]
    assert all(one.device == DEAD and SOURCE.owns(one) for one in before[len(kept) :])
    if table.mounts[-1].mount_id == 99:
        assert kept[-1] == PROC or (locked and is_dead(kept[-1]))
    after, table.steps = table.mounts, 0
    table.attach(replace(WANTED, over=over))
    assert (table.mounts, table.steps) == (after, 0)


@given(st.lists(LAYERS, max_size=5))
def test_detach_leaves_no_view_of_ours_on_top_and_everything_else(layers: list[Mount]) -> None:
    table = Table(stacked(*layers))
    before = table.mounts
    decision = table.detach()
    kept = table.mounts
    assert kept == before[: len(kept)]
    assert all(SOURCE.owns(one) and one.device in (LIVE, DEAD) for one in before[len(kept) :])
    assert not (SOURCE.owns(kept[-1]) and kept[-1].device in (LIVE, DEAD))
    assert (decision.outcome is Outcome.TAKEN_AWAY) == (kept != before) or SOURCE.owns(kept[-1])


@pytest.mark.parametrize("owners", OWNERS[:4], ids=lambda one: one.fstype)
def test_an_owners_mount_stays_whatever_is_wanted(owners: Mount) -> None:
    for over in Over:
        table = Table(stacked(owners))
        decision = table.attach(replace(WANTED, over=over))
        assert decision.outcome is Outcome.LEFT_ALONE
        assert table.steps == 0


def test_a_locked_dead_view_is_covered_once() -> None:
    table = Table(stacked(DEAD_VIEW), locked=True)
    table.attach(WANTED)
    assert [one.device for one in table.mounts[2:]] == [DEAD, LIVE]


def test_a_dead_view_that_went_by_itself_is_not_brought_back() -> None:
    table = Table(stacked())
    decision = table.attach(replace(WANTED, over=Over.DEAD_VIEW))
    assert (decision.outcome, table.steps) == (Outcome.NOT_THERE, 0)


def test_whether_it_is_dead_is_only_asked_where_it_matters() -> None:
    def never(one: Mount) -> bool:
        raise AssertionError(f"asked for {one}")

    for top in (PROC, LIVE_VIEW, *OWNERS):
        attach_step(Place(top, PROC), WANTED, SOURCE, frozenset(), never)
        detach_step(Place(top, PROC), TARGET, SOURCE, frozenset(), never)


@pytest.mark.parametrize(
    ("at", "right"),
    [
        (PROC, True),
        (ROOT, False),
        (replace(PROC, root="/sys"), False),
        (replace(PROC, fstype="sysfs"), False),
        (replace(PROC, fstype="procfs-like"), False),
        (replace(PROC, mount_point="/", root="/"), False),
    ],
)
def test_only_the_kernels_own_file_is_mounted_over(at: Mount, right: bool) -> None:
    assert is_kernel_file(at, WANTED) is right
    decision = attach_step(Place(at, ROOT), WANTED, SOURCE, frozenset(), is_dead)
    assert (decision.step is Step.ATTACH) is right


def test_a_folder_of_the_kernels_may_be_mounted_by_itself() -> None:
    (cpus,) = wanted_files(["sys/devices/system/cpu"])
    for path, root in (("/sys", "/"), ("/sys/devices", "/devices"), (cpus.mount_point, cpus.root)):
        at = mount(3, 1, "0:6", path, root.removeprefix("/sys"), "sysfs")
        assert is_kernel_file(at, cpus)


@pytest.mark.parametrize("top", [PROC, DEAD_VIEW])
def test_what_the_host_shares_is_left_alone(top: Mount) -> None:
    shared = replace(PROC, optional=("shared:7", "master:3"))
    top = shared if top is PROC else top
    place = Place(top, shared)
    for peers, step in ((["shared:7"], Step.STOP), (["shared:3", "shared:70"], None)):
        decision = attach_step(place, WANTED, SOURCE, frozenset(peers), is_dead)
        assert (decision.step is Step.STOP) is (step is Step.STOP)
        assert "shares" in decision.detail or step is None
    decision = detach_step(Place(LIVE_VIEW, shared), TARGET, SOURCE, {"shared:7"}, is_dead)
    assert decision.step is Step.STOP


def test_peer_groups_are_those_that_events_go_to() -> None:
    mounts = [replace(PROC, optional=("shared:7", "master:3")), replace(ROOT, optional=())]
    assert peer_groups(mounts) == {"shared:7"}


def test_only_what_no_mount_covers_counts() -> None:
    table = stacked(DEAD_VIEW, OWNERS[0], DEAD_VIEW)
    assert [one.mount_id for one in topmost(table)] == [1, 2, 5]
    assert suspects(table[:-1], SOURCE) == ()
    assert suspects(table, SOURCE) == (Wanted(TARGET, TARGET, Over.DEAD_VIEW),)


def test_a_view_that_the_kernel_calls_deleted_is_the_same_one() -> None:
    table = stacked(DELETED_VIEW)
    assert [one.root for one in suspects(table, SOURCE)] == [TARGET]
    assert [one.root for one in removable(table, SOURCE, {TARGET}, whole=False)] == [TARGET]
    deleted = replace(DELETED_VIEW, device=LIVE)
    decision = attach_step(Place(deleted, PROC), WANTED, SOURCE, frozenset(), is_dead)
    assert decision.outcome is Outcome.ALREADY


def test_what_can_be_taken_away_is_chosen_by_file_innermost_first() -> None:
    whole = mount(3, 1, LIVE, "/a", "/", "fuse.procscope")
    inner = mount(4, 3, LIVE, "/a/proc/stat", "/proc/stat", "fuse.procscope")
    table = [ROOT, whole, inner]
    found = removable(table, SOURCE, None, whole=True)
    assert [one.mount_point for one in found] == ["/a/proc/stat", "/a"]
    assert [one.root for one in removable(table, SOURCE, None, whole=False)] == ["/proc/stat"]
    assert removable(table, SOURCE, {TARGET}, whole=True) == ()


def test_views_of_lxcfs_are_ours_only_in_its_place() -> None:
    lxcfs = view(DEAD, fstype="fuse.lxcfs")
    assert suspects(stacked(lxcfs), SOURCE) == ()
    assert suspects(stacked(lxcfs), replace(SOURCE, also_lxcfs=True)) != ()
    for fstype in ("fuse", "fuse.procscope2", "fuse.lxc", "fuseblk.procscope"):
        foreign = view(DEAD, fstype=fstype)
        assert suspects(stacked(foreign), replace(SOURCE, also_lxcfs=True)) == ()


def test_where_its_name_is_known_others_are_somebody_elses() -> None:
    known = replace(SOURCE, name=DEAD_VIEW.source)
    assert suspects(stacked(DEAD_VIEW), known) != ()
    assert suspects(stacked(replace(DEAD_VIEW, source="/other")), known) == ()
    assert known.is_live(LIVE_VIEW)


PINNED = "0:51"
PIN = f"/0a1b2-{'0f' * 16}"


def test_a_view_of_the_pinned_tree_is_the_same_as_of_the_live_one() -> None:
    source = replace(SOURCE, pinned_device=PINNED)
    ours = view(PINNED, root=f"{PIN}{TARGET}")
    assert source.is_live(ours)
    assert attach_step(place(ours), WANTED, source, (), never) == Decision(
        Step.STOP, Outcome.ALREADY
    )
    assert suspects(stacked(ours), source) == ()
    (removed,) = removable(stacked(ours), source, {TARGET}, whole=False)
    assert removed.root == TARGET


def test_a_dead_view_of_a_pinned_tree_is_replaced_by_one_of_the_live_tree() -> None:
    for root in (f"{PIN}{TARGET}", f"{PIN}{TARGET}//deleted"):
        (wanted,) = suspects(stacked(view(DEAD, root=root)), SOURCE)
        assert (wanted.root, wanted.mount_point) == (TARGET, TARGET)


@pytest.mark.parametrize("root", [f"{PIN}x{TARGET}", f"/x{PIN}{TARGET}", "/0a1b2-00/proc/meminfo"])
def test_what_only_looks_like_it_is_no_pinned_view(root: str) -> None:
    (wanted,) = suspects(stacked(view(DEAD, root=root)), SOURCE)
    assert wanted.root == root


def test_what_is_mounted_in_a_dead_mount_of_the_whole_goes_with_it() -> None:
    whole = mount(3, 1, DEAD, "/var/lib/procscope", "/", "fuse.procscope")
    pinned = mount(4, 3, OTHER, "/var/lib/procscope/self", "/", "fuse.procscope")
    (wanted,) = suspects([ROOT, whole, pinned], SOURCE)
    assert wanted.mount_point == whole.mount_point


def place(at: Mount) -> Place:
    return Place(replace(at, mount_id=3, parent_id=2), PROC)


def never(_mount: Mount) -> bool:
    raise AssertionError("nobody has to be asked")
