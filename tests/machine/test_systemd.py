"""The unit file: what `systemctl restart`, `reload`, `stop` and a crash do to who reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.harness.guest_tests import PROJECT
from tests.machine.harness.machine import Machine

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/procscope.service"
COMMAND = f"/usr/bin/env PYTHONPATH={PROJECT}/src python3 -m procscope"
MOUNTPOINT = "/var/lib/procscope"
# A container of its own: a cgroup with a limit, and a mount namespace with the view bound.
LIMITED = ("systemd-run", "--quiet", "--unit", "box.service", "-p", "MemoryMax=100M")
LOOP = f"""
set -e
mount --bind {MOUNTPOINT}/proc/meminfo /proc/meminfo
set +e
while read -r name total unit < /proc/meminfo; do
    echo "$total" > /run/box.new && mv /run/box.new /run/box.total
    count=$((count + 1)); echo "$count" > /run/box.count
done
echo failed > /run/box.failed
"""
RIGHT = str(100 << 10)


@pytest.fixture(scope="module")
def service(systemd_machine: Machine) -> Iterator[Machine]:
    """A machine on which the unit is started, and one reader loops in a container."""
    one = systemd_machine
    unit = UNIT.read_text().replace("/usr/bin/procscope", COMMAND)
    one.write_file("/etc/systemd/system/procscope.service", unit)
    one.run(["systemctl", "daemon-reload"])
    one.run(["systemctl", "start", "procscope"], timeout_s=120)
    one.write_file("/run/box.sh", LOOP)
    one.run([*LIMITED, "unshare", "-m", "bash", "/run/box.sh"])
    one.run(["sh", "-c", "until test -s /run/box.total; do sleep 0.1; done"])
    yield one
    one.run(["systemctl", "stop", "box.service"], check=False)
    one.run(["systemctl", "stop", "procscope"], timeout_s=120)


def text(machine: Machine, command: str) -> str:
    return machine.run(["sh", "-c", command]).stdout.strip()


def show(machine: Machine, name: str) -> str:
    return text(machine, f"systemctl show --value -p {name} procscope")


def device(machine: Machine) -> str:
    """Of the connection: another one has another number."""
    assert text(machine, f"findmnt -no FSTYPE {MOUNTPOINT}") == "fuse.procscope"
    return text(machine, f"stat -c %d {MOUNTPOINT}")


def assert_reads_go_on(machine: Machine) -> None:
    """Some more right ones, and never one that failed."""
    before = int(text(machine, "cat /run/box.count"))
    text(machine, f"until test $(cat /run/box.count) -gt {before + 3}; do sleep 0.1; done")
    assert text(machine, "cat /run/box.total") == RIGHT
    assert text(machine, "ls /run/box.failed 2>&1 || true").endswith("No such file or directory")


def test_the_unit_has_no_mistake(service: Machine) -> None:
    assert service.run(["systemd-analyze", "verify", "procscope.service"]).stderr == ""


def test_a_restart_keeps_the_mount(service: Machine) -> None:
    before, pid = device(service), show(service, "MainPID")
    service.run(["systemctl", "restart", "procscope"], timeout_s=120)
    assert show(service, "MainPID") != pid
    assert device(service) == before
    assert_reads_go_on(service)


def test_a_reload_keeps_mount_and_pid(service: Machine) -> None:
    before, pid = device(service), show(service, "MainPID")
    service.run(["systemctl", "reload", "procscope"], timeout_s=120)
    assert show(service, "MainPID") == pid
    assert device(service) == before
    assert_reads_go_on(service)


def test_after_a_crash_systemd_starts_it_and_the_mount_is_the_same(service: Machine) -> None:
    before, pid = device(service), show(service, "MainPID")
    text(service, f"kill -9 {pid}")
    text(
        service,
        f"until systemctl is-active -q procscope && "
        f"test $(systemctl show --value -p MainPID procscope) != {pid}; do sleep 0.2; done",
    )
    assert device(service) == before
    assert_reads_go_on(service)


def test_with_every_process_killed_the_descriptor_store_is_enough(service: Machine) -> None:
    """Systemd alone holds the connection then; who reads meanwhile waits."""
    # Four of the live tree, four of the pinned one.
    assert int(show(service, "NFileDescriptorStore")) == 8
    before = device(service)
    text(service, "systemctl kill --signal=KILL --kill-whom=all procscope")
    text(service, "until systemctl is-active -q procscope; do sleep 0.2; done")
    assert device(service) == before
    assert_reads_go_on(service)


def test_a_stop_gives_the_containers_the_hosts_files(service: Machine) -> None:
    """And a start gives them their own again."""
    service.run(["systemctl", "stop", "procscope"], timeout_s=120)
    host = text(service, "awk '/MemTotal/ {print $2}' /proc/meminfo")
    text(service, f"until test $(cat /run/box.total) = {host}; do sleep 0.1; done")
    assert text(service, f"findmnt -n {MOUNTPOINT} || echo none") == "none"
    service.run(["systemctl", "start", "procscope"], timeout_s=120)
    text(service, f"until test $(cat /run/box.total) = {RIGHT}; do sleep 0.1; done")
    assert_reads_go_on(service)
