"""`procscope agent`: takes over from another, stands by, tells whether it is ready."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon import control
from procscope.linux import syscalls
from tests.faults.readers import bind_files
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import daemon, named, procscope_command
from tests.integration.files import meminfo_of
from tests.integration.nodes import HttpPod, Node, node
from tests.integration.waiting import eventually

MIB = 1 << 20


@pytest.fixture
def here() -> Iterator[Node]:
    with node() as one:
        yield one


@pytest.fixture
def reader() -> Iterator[Agent]:
    with container(memory_bytes=100 * MIB) as group, agent(group) as one:
        yield one


def serving(here: Node, *options: str) -> HttpPod:
    pod = here.agent(*options)
    pod.becomes_ready()
    return pod


def sees_its_limit(here: Node, reader: Agent) -> bool:
    text = reader.call(Path.read_text, here.mountpoint / "proc/meminfo")
    return meminfo_of(text)["MemTotal"] == 100 << 10


def test_it_makes_its_mountpoint_and_serves(here: Node, reader: Agent) -> None:
    assert not here.mountpoint.exists()
    serving(here)
    assert sees_its_limit(here, reader)


def test_empty_folders_at_its_mountpoint_do_not_keep_it_from_serving(
    here: Node, reader: Agent
) -> None:
    """A container was started while nothing was served: its runtime made them."""
    (here.mountpoint / "proc/meminfo").mkdir(parents=True)
    (here.mountpoint / "sys/devices/system/cpu").mkdir(parents=True)
    serving(here)
    assert sees_its_limit(here, reader)


def test_a_file_at_its_mountpoint_is_nobodys_to_remove(here: Node) -> None:
    here.mountpoint.mkdir()
    (here.mountpoint / "precious").write_text("kept")
    pod = here.agent()
    assert pod.ends() == 1
    assert "is not empty (precious, …)" in pod.log()
    assert (here.mountpoint / "precious").read_text() == "kept"


def test_a_newer_one_takes_over_and_the_older_stands_by(here: Node, reader: Agent) -> None:
    here.keeper()
    older = serving(here)
    older.says("holds the descriptors")
    workers = worker_pids(older)
    newer = serving(here)
    older.says("standing by")
    assert sees_its_limit(here, reader)
    assert "taking over" in newer.log()
    assert not any(pid in older.processes() for pid in workers), "all are replaced"
    assert value(older, "procscope_serving") == 0
    assert value(newer, "procscope_serving") == 1
    assert older.get("/readyz") == (200, "ok\n"), "or the controller would throw it away"


def test_the_one_that_stands_by_serves_again(here: Node, reader: Agent) -> None:
    here.keeper()
    older = serving(here)
    newer = serving(here)
    older.says("standing by")
    newer.kill()
    older.says("serving")
    eventually(lambda: value(older, "procscope_serving") == 1)
    assert sees_its_limit(here, reader)
    assert value(older, "procscope_workers") == 2


def test_one_that_stands_by_ends_at_once(here: Node, reader: Agent) -> None:
    older = serving(here)
    serving(here)
    older.says("standing by")
    older.terminate()
    assert older.ends() == 0
    assert sees_its_limit(here, reader)


def test_without_a_keeper_sigterm_is_the_planned_stop(here: Node) -> None:
    pod = serving(here)
    pod.terminate()
    assert pod.ends() == 0
    assert here.mounted() == 0


def test_what_a_killed_one_left_mounted_is_replaced(here: Node, reader: Agent) -> None:
    serving(here).kill()
    assert here.mounted() == 1
    serving(here)
    assert here.mounted() == 1
    assert sees_its_limit(here, reader)


@pytest.mark.parametrize("in_use", [True, False])
def test_what_somebody_unmounts_is_mounted_again(here: Node, reader: Agent, in_use: bool) -> None:
    pod = serving(here)
    if in_use:
        reader.call(bind_files, here.mountpoint)
    syscalls.umount2(str(here.mountpoint), syscalls.MNT_DETACH)
    eventually(here.mounted, 10)
    eventually(lambda: pod.get("/readyz")[0] == 200, 10)
    path = Path("/proc/meminfo") if in_use else here.mountpoint / "proc/meminfo"
    assert meminfo_of(reader.call(Path.read_text, path))["MemTotal"] == 100 << 10
    assert here.mounted() == 1


def test_a_reload_is_refused(here: Node) -> None:
    pod = serving(here)
    ended = procscope_command("reload", *here.names)
    assert ended.returncode == 1
    assert "starting a newer one beside it" in ended.stderr
    os.kill(pod.pid, signal.SIGHUP)
    pod.becomes_ready()


def test_a_daemon_that_does_not_hand_over_is_waited_for(reader: Agent) -> None:
    """`procscope serve` belongs to a service manager, which would not expect it."""
    with daemon() as served, node() as here:
        here.mountpoint, here.run_directory = served.mountpoint, served.run_directory
        pod = here.agent()
        pod.says("does not hand over")
        eventually(lambda: pod.get("/readyz")[0] == 503)
        assert "another daemon has the mount" in pod.get("/readyz")[1]
        assert served.stop() == 0
        pod.becomes_ready()
        assert sees_its_limit(here, reader)
        pod.terminate()
        pod.ends()


def test_readiness_tells_the_truth(here: Node) -> None:
    """With a deadline that lets the workers be stopped for so long."""
    pod = serving(here, "--deadline", "60")
    assert pod.get("/healthz") == (200, "ok\n")
    workers = worker_pids(pod)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: pod.get("/readyz")[0] == 503, 10)
    assert "no answer within 2 s" in pod.get("/readyz")[1]
    assert pod.get("/healthz")[0] == 200, "the supervisor lives"
    assert value(pod, "procscope_ready") == 0
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    pod.becomes_ready()


def test_health_tells_of_a_supervisor_that_hangs(here: Node) -> None:
    pod = serving(here)
    os.kill(pod.pid, signal.SIGSTOP)
    eventually(lambda: pod.get("/healthz")[0] == 503, 20)
    os.kill(pod.pid, signal.SIGCONT)
    eventually(lambda: pod.get("/healthz")[0] == 200)


def test_who_answers_over_http_is_started_again(here: Node) -> None:
    pod = serving(here)
    (answering,) = named(pod.processes(), "procscope-http")
    os.kill(answering, signal.SIGKILL)
    eventually(lambda: named(pod.processes(), "procscope-http") not in ([], [answering]), 10)
    pod.becomes_ready()


def test_other_paths_are_not_found(here: Node) -> None:
    assert serving(here).get("/")[0] == 404


def test_an_address_in_use_is_refused_with_what_to_do(here: Node) -> None:
    pod = serving(here)
    ended = procscope_command("agent", *here.names, "--listen", f"127.0.0.1:{pod.port}")
    assert ended.returncode == 1
    assert "Address already in use: give another address" in ended.stderr
    pod.becomes_ready()


def test_metrics_are_what_status_says(here: Node) -> None:
    pod = serving(here, "--workers", "3")
    assert value(pod, "procscope_workers") == 3
    assert value(pod, "procscope_keeper_connected") == 0
    os.kill(worker_pids(pod)[0], signal.SIGKILL)
    eventually(lambda: value(pod, "procscope_process_deaths_total") == 1)


ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""With another process 1, whose namespaces nobody protects."""
BESIDE_INIT = ("sh", "-c", 'unshare --cgroup "$@" & wait $!', "sh")


def test_a_private_cgroup_namespace_is_left(here: Node) -> None:
    here.prefix = (*ALONE, *BESIDE_INIT)
    pod = here.agent()
    pod.becomes_ready()
    (inside, *_) = worker_pids(pod)
    with container(memory_bytes=100 * MIB) as group:
        files = " ".join(f"{directory}/cgroup.procs" for directory in group.directories)
        enter = ("nsenter", "--target", str(inside), "--pid", "--mount")
        read = f"cat {here.mountpoint}/proc/meminfo"
        script = f"for file in {files}; do echo $$ > $file; done; exec {read}"
        text = subprocess.run([*enter, "sh", "-c", script], check=True, capture_output=True).stdout
    assert meminfo_of(text.decode())["MemTotal"] == 100 << 10


def test_one_that_cannot_be_left_is_told(here: Node) -> None:
    """Without CAP_SYS_ADMIN."""
    here.prefix = (*ALONE, *BESIDE_INIT, "setpriv", "--bounding-set", "-sys_admin")
    pod = here.agent()
    assert pod.ends() == 1
    assert "set privileged: true" in pod.log()


def test_it_cannot_be_process_1(here: Node) -> None:
    here.prefix = ALONE
    pod = here.agent()
    assert pod.ends() == 1
    assert "hostPID" in pod.log()


WITHOUT_FUSE = (
    "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9"
    ' && { "$@" & wait $!; }'
)


def test_the_device_is_made_where_it_is_missing(here: Node) -> None:
    """A container's /dev is made when it starts; the module may be loaded later, by us."""
    here.prefix = (*ALONE, "sh", "-c", WITHOUT_FUSE, "sh")
    here.agent().becomes_ready()


def test_the_lock_says_who_serves(here: Node) -> None:
    pod = serving(here)
    assert control.lock_holder(str(here.state_directory)) == pod.pid


def worker_pids(pod: HttpPod) -> list[int]:
    return eventually(lambda: named(pod.processes(), "procscope-w"))


def value(pod: HttpPod, metric: str) -> float | None:
    _, text = pod.get("/metrics")
    rows = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return next((float(number) for name, number in rows if name == metric), None)
