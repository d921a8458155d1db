"""Running containers get their views, lose them and get them back, and nothing else changes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from procscope.daemon.config import DEFAULT_FILES
from procscope.errors import ProcscopeError
from procscope.inject import attach as api
from procscope.inject.model import Detached, NamespaceResult, Outcome, Source
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.processes import ProcessIdentity, identity_of
from procscope.values import replace
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.boxes import IN_USER_NAMESPACE, NAMESPACES, Box, box
from tests.integration.cgroups import container
from tests.integration.daemons import COMMAND, ENVIRONMENT, Daemon, daemon, procscope_command
from tests.integration.files import meminfo_of
from tests.integration.waiting import eventually

MIB = 1 << 20
LOCKED_DOWN = {"ro", "nosuid", "nodev", "noexec"}
TARGETS = {f"/{name}" for name in DEFAULT_FILES}
MEMINFO = "/proc/meminfo"
CPU_FOLDER = "/sys/devices/system/cpu"
GONE = (errno.ENOTCONN, errno.ECONNABORTED)


def source_of(served: Daemon, name: str = "") -> Source:
    """The daemon. Views of other ones on this machine are not its business, but those called so."""
    mounts = [one for one in read_mountinfo() if one.mount_point == str(served.mountpoint)]
    return Source(str(served.mountpoint), mounts[-1].device, name=name or str(served.mountpoint))


# What an agent does: a forked child needs a parent with one thread.


def attach(process: ProcessIdentity, source: Source, *files: str) -> NamespaceResult:
    return api.attach(process, source, files or DEFAULT_FILES)


def attach_within(
    process: ProcessIdentity, source: Source, timeout_s: float, files: Sequence[str]
) -> NamespaceResult:
    return api.attach(process, source, files, timeout_s=timeout_s)


def detach(process: ProcessIdentity, source: Source, *files: str) -> NamespaceResult:
    return api.detach(process, source, files or None)


def heal_all(source: Source) -> tuple[NamespaceResult, ...]:
    return api.heal_all(source)


def detach_all(source: Source) -> tuple[NamespaceResult, ...]:
    return api.detach_all(source)


def reattach(detached: tuple[Detached, ...], source: Source) -> tuple[NamespaceResult, ...]:
    return api.reattach(detached, source)


def refusal(process: ProcessIdentity, source: Source) -> str:
    try:
        attach(process, source)
    except ProcscopeError as error:
        return str(error)
    return ""


def outcomes(result: NamespaceResult) -> dict[str, Outcome]:
    return {file.mount_point: file.outcome for file in result.files}


@pytest.fixture
def reader() -> Iterator[Agent]:
    with container(memory_bytes=100 * MIB) as group, agent(group) as one:
        yield one


def memory_kb(one: Box, reader: Agent, path: str = MEMINFO) -> int:
    return meminfo_of(reader.call(agents.read, one.path(path)).decode())["MemTotal"]


@pytest.fixture(params=[NAMESPACES, IN_USER_NAMESPACE], ids=["plain", "user-namespace"])
def running(request: pytest.FixtureRequest) -> Iterator[Box]:
    with box(namespaces=request.param) as one:
        yield one


class TestAttach:
    def test_every_file_is_there_and_shows_the_readers_limit(
        self, served: Daemon, host: Agent, reader: Agent, running: Box
    ) -> None:
        source = source_of(served)
        before = memory_kb(running, reader)
        result = host.call(attach, running.process, source)
        assert outcomes(result) == dict.fromkeys(TARGETS, Outcome.ATTACHED)
        assert running.views() == dict.fromkeys(TARGETS, source.device)
        assert memory_kb(running, reader) == 100 << 10 < before

    def test_mounts_are_locked_down_and_private(
        self, served: Daemon, host: Agent, running: Box
    ) -> None:
        host.call(attach, running.process, source_of(served))
        for target in TARGETS:
            (mount,) = running.at(target)
            assert set(mount.mount_options) >= LOCKED_DOWN
            assert mount.optional == ()

    def test_a_second_time_changes_nothing(self, served: Daemon, host: Agent, running: Box) -> None:
        source = source_of(served)
        host.call(attach, running.process, source)
        before = running.mounts()
        result = host.call(attach, running.process, source)
        assert set(outcomes(result).values()) == {Outcome.ALREADY}
        assert running.mounts() == before

    def test_several_at_once_do_not_stack(self, served: Daemon, host: Agent, running: Box) -> None:
        source = source_of(served)
        with agent() as second, agent() as third:
            everybody = (host, second, third)
            for one in everybody:
                one.send(attach, running.process, source)
            for one in everybody:
                one.receive()
        assert [len(running.at(target)) for target in TARGETS] == [1] * len(TARGETS)

    def test_a_namespace_that_its_container_locks_is_given_up(
        self, served: Daemon, host: Agent, running: Box
    ) -> None:
        with open(f"/proc/{running.pid}/ns/mnt") as namespace:
            fcntl.flock(namespace, fcntl.LOCK_EX)
            said = host.call(refusal, running.process, source_of(served))
        assert said == "another process has locked its mount namespace: try again"

    def test_detach_gives_the_hosts_files_back(
        self, served: Daemon, host: Agent, reader: Agent, running: Box
    ) -> None:
        source = source_of(served)
        before = running.mounts()
        host.call(attach, running.process, source)
        result = host.call(detach, running.process, source, "proc/meminfo")
        assert outcomes(result) == {MEMINFO: Outcome.TAKEN_AWAY}
        assert running.views().keys() == TARGETS - {MEMINFO}
        assert memory_kb(running, reader) > 100 << 10
        host.call(detach, running.process, source)
        assert running.mounts() == before
        assert host.call(detach, running.process, source).files == ()

    def test_a_read_only_root_is_no_obstacle(
        self, served: Daemon, host: Agent, reader: Agent
    ) -> None:
        with box("mount -o remount,bind,ro /; ! touch /x 2>/dev/null") as one:
            assert not host.call(attach, one.process, source_of(served)).failed
            assert memory_kb(one, reader) == 100 << 10

    def test_the_hosts_namespace_is_refused(self, served: Daemon, host: Agent) -> None:
        before = read_mountinfo()
        process = identity_of(os.getpid())
        assert process is not None
        said = host.call(refusal, process, source_of(served))
        assert said.startswith(f"process {os.getpid()} has no mount namespace of its own: ")
        assert read_mountinfo() == before

    def test_a_process_that_has_ended_is_refused(self, served: Daemon, host: Agent) -> None:
        with box() as one:
            process = one.process
        assert "has ended" in host.call(refusal, process, source_of(served))

    def test_a_pid_that_another_process_has_now_is_refused(
        self, served: Daemon, host: Agent, running: Box
    ) -> None:
        earlier = replace(running.process, start_ticks=running.process.start_ticks - 1)
        assert "has ended" in host.call(refusal, earlier, source_of(served))
        assert running.views() == {}

    def test_a_process_outside_the_container_is_refused(self, served: Daemon, running: Box) -> None:
        """The pid was found in the container, and has left it since."""
        with container() as group:
            source = repr(source_of(served))
            code = (
                "import sys; from procscope.inject.attach import *\n"
                "from procscope.containers.container import container_of_paths\n"
                f"attach({running.process!r}, {source}, ['proc/meminfo'],"
                f" container=container_of_paths({{'': {group.path!r}, 'memory': {group.path!r}}}))"
            )
            ended = subprocess.run(
                [COMMAND[0], "-c", code],
                env=os.environ | ENVIRONMENT,
                capture_output=True,
                text=True,
                check=False,
            )
        assert "has left its container" in ended.stderr
        assert running.views() == {}


class TestWhatTheContainerControls:
    def test_a_mount_of_its_owner_is_left_alone(self, served: Daemon, host: Agent) -> None:
        with box("mount --bind /proc/version /proc/meminfo") as one:
            before = one.at(MEMINFO)
            result = host.call(attach, one.process, source_of(served))
            assert outcomes(result)[MEMINFO] is Outcome.LEFT_ALONE
            assert not result.failed
            assert one.at(MEMINFO) == before
            host.call(detach, one.process, source_of(served))
            assert one.at(MEMINFO) == before

    @pytest.mark.parametrize("proc", ["a folder", "a link"])
    def test_what_is_not_procfs_is_left_alone(
        self, served: Daemon, host: Agent, tmp_path: Path, proc: str
    ) -> None:
        """The container's root has something of its own in the place of /proc."""
        for folder in ("bin", "lib", "lib64", "usr", "decoy"):
            (tmp_path / folder).mkdir()
        decoy = tmp_path / "decoy/meminfo"
        decoy.touch()
        if proc == "a link":
            (tmp_path / "proc").symlink_to("decoy")
        else:
            (tmp_path / "decoy").rename(tmp_path / "proc")
        with box(
            f"mount --bind {tmp_path} {tmp_path}\n"
            f"for one in bin lib lib64 usr; do mount --rbind /$one {tmp_path}/$one; done\n"
            f"exec chroot {tmp_path} sh -c 'echo ready; exec sleep infinity'"
        ) as one:
            result = host.call(attach, one.process, source_of(served))
            assert one.views() == {}
            assert outcomes(result)[MEMINFO] is Outcome.LEFT_ALONE
            assert not result.failed

    def test_what_the_host_shares_is_left_alone(self, served: Daemon) -> None:
        """What is mounted on a peer of the host's /proc would appear on the host.

        The host is a container of ours here, whose own /proc is shared.
        """
        inner = "unshare --mount --propagation unchanged sleep infinity"
        with box(f"mount --make-shared /proc\n{inner} &", namespaces=["--mount"]) as outer:
            pid = eventually(lambda: child_in_another_namespace(outer))
            try:
                ended = procscope_command(
                    *("attach", "--pid", str(pid), "--files", "meminfo,stat"),
                    *("--mountpoint", str(served.mountpoint)),
                    prefix=["nsenter", "--target", str(outer.pid), "--mount"],
                )
                assert "meminfo left alone: the host shares its mount at /proc" in ended.stdout
                assert (ended.returncode, ended.stderr) == (0, "")
                assert outer.views() == {}
            finally:
                os.kill(pid, signal.SIGKILL)

    def test_what_its_runtime_hides_stays_hidden(self, served: Daemon, host: Agent) -> None:
        hidden = f"{CPU_FOLDER}/cpu0/topology"
        with box(f"mount -t tmpfs -o ro none {hidden}") as one:
            before = one.mounts()
            source = source_of(served)
            for _ in range(2):
                host.call(attach, one.process, source)
                assert os.listdir(one.path(hidden)) == []
                assert len(one.at(hidden)) == 2
            host.call(detach, one.process, source)
            assert os.listdir(one.path(hidden)) == []
            assert one.mounts() == before


def child_in_another_namespace(outer: Box) -> int:
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    for pid in map(int, children):
        if os.stat(f"/proc/{pid}/ns/mnt").st_ino != outer.namespace:
            return pid
    return 0


class TestHealing:
    """With a daemon of their own, which they kill."""

    @pytest.fixture
    def mine(self) -> Iterator[Daemon]:
        with daemon("--workers", "1") as one:
            yield one

    def crash(self, mine: Daemon, served: Daemon) -> Source:
        """Let it crash, and have another one take its place."""
        mine.kill()
        return source_of(served, name=str(mine.mountpoint))

    def heal(self, host: Agent, one: Box, source: Source) -> NamespaceResult:
        """Heal every container, and return what was done in one."""
        results = host.call(heal_all, source)
        return next(result for result in results if result.namespace == one.namespace)

    @pytest.mark.parametrize("namespaces", [NAMESPACES, IN_USER_NAMESPACE])
    def test_dead_views_are_replaced_wherever_they_are(
        self,
        mine: Daemon,
        served: Daemon,
        host: Agent,
        reader: Agent,
        tmp_path: Path,
        namespaces: Sequence[str],
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        script = (
            f"mount --bind {mine.mountpoint}/proc/meminfo {tmp_path}/file\n"
            f"mount --rbind {mine.mountpoint} {tmp_path}/folder\n"
        )
        with box(script, namespaces=namespaces) as one:
            host.call(attach, one.process, source_of(mine))
            source = self.crash(mine, served)
            files = (MEMINFO, f"{tmp_path}/file", f"{tmp_path}/folder/proc/meminfo")
            for path in files:
                assert reader.call(agents.errno_of, agents.read, one.path(path)) in GONE
            result = self.heal(host, one, source)
            assert not result.failed
            assert {(file.outcome, file.detail) for file in result.files} == {
                (Outcome.REPLACED, "")
            }
            for path in files:
                assert memory_kb(one, reader, path) == 100 << 10
            assert one.views() == dict.fromkeys([*TARGETS, f"{tmp_path}/file"], source.device)
            for target in TARGETS:
                assert len(one.at(target)) == 1
            healed = one.mounts()
            again = host.call(heal_all, source)
            assert one.namespace not in {result.namespace for result in again}
            assert one.mounts() == healed

    def test_one_that_cannot_be_entered_now_is_tried_again(
        self, mine: Daemon, reader: Agent
    ) -> None:
        with box(f"mount --bind {mine.mountpoint}{MEMINFO} {MEMINFO}\n") as one:
            mine.kill()
            with open(f"/proc/{one.pid}/ns/mnt") as namespace:
                fcntl.flock(namespace, fcntl.LOCK_EX)
                mine.start()
                eventually(lambda: "has locked its mount namespace" in mine.log(), 10)
            path = one.path(MEMINFO)
            eventually(lambda: reader.call(agents.errno_of, agents.read, path) not in GONE, 10)
            # For a moment the host's file comes to light.
            eventually(lambda: memory_kb(one, reader) == 100 << 10, 10)

    def test_stacked_dead_views_are_all_taken_away(
        self, mine: Daemon, served: Daemon, host: Agent, reader: Agent
    ) -> None:
        once = f"mount --bind {mine.mountpoint}{MEMINFO} {MEMINFO}\n"
        with box(once * 3) as one:
            assert len(one.at(MEMINFO)) == 3
            source = self.crash(mine, served)
            host.call(heal_all, source)
            assert [mount.device for mount in one.at(MEMINFO)] == [source.device]
            assert memory_kb(one, reader) == 100 << 10

    def test_attach_heals_as_well(
        self, mine: Daemon, served: Daemon, host: Agent, running: Box
    ) -> None:
        host.call(attach, running.process, source_of(mine))
        source = self.crash(mine, served)
        result = host.call(attach, running.process, source)
        assert outcomes(result) == dict.fromkeys(TARGETS, Outcome.REPLACED)
        assert running.views() == dict.fromkeys(TARGETS, source.device)

    def test_what_its_owner_mounted_below_comes_to_light(
        self, mine: Daemon, served: Daemon, host: Agent
    ) -> None:
        with box(
            f"mount --bind /proc/version {MEMINFO}\n"
            f"mount --bind {mine.mountpoint}{MEMINFO} {MEMINFO}\n"
        ) as one:
            below = one.at(MEMINFO)[:1]
            result = self.heal(host, one, self.crash(mine, served))
            assert outcomes(result)[MEMINFO] is Outcome.LEFT_ALONE
            assert one.at(MEMINFO) == below

    def test_views_of_another_daemon_are_left_alone(
        self, served: Daemon, mine: Daemon, host: Agent, running: Box
    ) -> None:
        theirs = source_of(served)
        host.call(attach, running.process, theirs)
        before = running.mounts()
        anybodys = replace(source_of(mine), name=theirs.name)
        for result in (
            host.call(attach, running.process, anybodys),
            host.call(detach, running.process, anybodys),
            self.heal(host, running, anybodys),
        ):
            assert set(outcomes(result).values()) == {Outcome.LEFT_ALONE}
            assert {file.detail for file in result.files} == {"another daemon serves it"}
        assert running.mounts() == before

    def test_a_daemon_that_does_not_answer_holds_nobody_up(
        self, served: Daemon, mine: Daemon, host: Agent, running: Box
    ) -> None:
        """Its views are left, the others are attached, and the call comes back."""
        theirs = source_of(mine)
        host.call(attach, running.process, theirs, "proc/meminfo")
        stopped = [mine.pid, *mine.workers()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            source = replace(source_of(served), name=theirs.name)
            files = ["proc/meminfo", "proc/stat"]
            result = host.call(attach_within, running.process, source, 0.5, files)
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
        assert outcomes(result) == {"/proc/stat": Outcome.ATTACHED}
        assert "does not answer" in result.error
        assert running.views() == {MEMINFO: theirs.device, "/proc/stat": source.device}

    def test_a_planned_stop_and_start_loses_nothing(
        self, mine: Daemon, host: Agent, reader: Agent, running: Box
    ) -> None:
        host.call(attach, running.process, source_of(mine))
        before = running.views()
        results = host.call(detach_all, source_of(mine))
        assert running.views() == {}
        kept = api.detached_to_json(api.taken_away(results))
        (detached,) = (
            one for one in api.detached_from_json(kept) if one.namespace == running.namespace
        )
        stale = replace(detached, process=replace(detached.process, start_ticks=1))
        elsewhere = replace(detached, namespace=detached.namespace + 1)
        host.call(reattach, (stale, elsewhere), source_of(mine))
        assert running.views() == {}
        host.call(reattach, (detached,), source_of(mine))
        assert running.views() == before
        assert memory_kb(running, reader) == 100 << 10
        host.call(reattach, (detached,), source_of(mine))
        assert len(running.at(MEMINFO)) == 1


class TestCommand:
    def command(self, served: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
        return procscope_command(*arguments, "--mountpoint", str(served.mountpoint))

    def test_a_line_for_each_file(self, served: Daemon, running: Box) -> None:
        pid = str(running.pid)
        ended = self.command(served, "attach", "--pid", pid, "--files", "meminfo,pressure/cpu")
        assert ended.stdout.splitlines() == [
            f"process {pid}: /proc/meminfo attached",
            f"process {pid}: /proc/pressure/cpu attached",
        ]
        assert (ended.returncode, ended.stderr) == (0, "")
        ended = self.command(served, "detach", "--pid", pid, "--json")
        (row,) = json.loads(ended.stdout)
        assert row["pid"] == running.pid
        assert row["mount_namespace"] == running.namespace
        assert {file["mount_point"]: file["outcome"] for file in row["files"]} == {
            MEMINFO: "taken away",
            "/proc/pressure/cpu": "taken away",
        }
        assert running.views() == {}
        ended = self.command(served, "detach", "--pid", pid)
        assert ended.stdout == f"process {pid}: nothing to do\n"

    def test_a_file_that_is_not_there_is_told_where_it_was_asked_for(self, served: Daemon) -> None:
        with box("umount -l /sys") as one:
            arguments = ("attach", "--pid", str(one.pid))
            assert "/sys" not in self.command(served, *arguments).stdout
            asked = self.command(served, *arguments, "--files", "sys/devices/system/cpu")
            assert asked.stdout == f"process {one.pid}: {CPU_FOLDER} not there\n"
            assert asked.returncode == 0

    def test_a_container_by_its_id(self, served: Daemon, reader: Agent) -> None:
        with container(memory_bytes=200 * MIB) as group, box(group=group) as one:
            name = group.path.strip("/")
            ended = self.command(served, "attach", "--container", name[:12])
            assert ended.returncode == 0, ended.stderr
            assert one.views().keys() == TARGETS

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--pid", "0"), "there is no process 0: see `ps -e`"),
            (("--pid", "99999999"), "there is no process 99999999: see `ps -e`"),
            (("--container", "nobody"), "no container with the id or name 'nobody': "),
            (("--pid", "1", "--files", "vmstat"), "there is no file 'vmstat' to serve: "),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, served: Daemon, arguments: tuple[str, ...], said: str
    ) -> None:
        ended = self.command(served, "attach", *arguments)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"procscope: {said}")
        assert ended.stderr.count("\n") == 1

    def test_without_a_daemon(self, running: Box, tmp_path: Path) -> None:
        arguments = ("--pid", str(running.pid), "--mountpoint", str(tmp_path))
        ended = procscope_command("attach", *arguments)
        assert ended.returncode == 1
        assert "no daemon serves at" in ended.stderr
        assert "procscope serve" in ended.stderr
        assert procscope_command("detach", *arguments).returncode == 0

    def test_with_a_dead_daemon(self, running: Box) -> None:
        with daemon("--workers", "1") as mine:
            mine.kill()
            ended = self.command(mine, "attach", "--pid", str(running.pid))
            assert ended.returncode == 1
            assert "is dead: start `procscope serve` again" in ended.stderr

    def test_without_root(self, served: Daemon) -> None:
        ended = procscope_command("attach", "--pid", "1", as_nobody=True)
        assert "attach needs root" in ended.stderr
