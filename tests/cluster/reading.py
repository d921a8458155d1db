"""A pod that reads its files without a pause, checks each, and keeps account."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from tests.cluster.harness import Cluster, CommandFailedError
from tests.cluster.installation import IMAGE
from tests.cluster.objects import INJECT, LIMIT_KB, container, pod

ACCOUNT = "/tmp/account"
PROGRAM = f"""
import json, os, time
reads = failed = slowest_ns = last_failed_ns = 0
example = ""
totals = set()
processors = set()
def total(text):
    return int(text.split("MemTotal:")[1].split()[0])
def check():
    totals.add(total(open("/proc/meminfo").read()))
    cpus = open("/proc/cpuinfo").read().count("processor\\t")
    online = open("/sys/devices/system/cpu/online").read()
    lines = open("/proc/stat").read().splitlines()
    float(open("/proc/uptime").read().split()[0])
    assert lines[0].startswith("cpu ") and lines[-1].startswith("softirq "), lines[-1:]
    processors.add(cpus)
    assert cpus >= 1 and online.endswith("\\n"), (cpus, online)
while True:
    start_ns = time.monotonic_ns()
    try:
        check()
    except Exception as error:
        failed += 1
        example = example or repr(error)
        last_failed_ns = time.monotonic_ns()
    reads += 5
    slowest_ns = max(slowest_ns, time.monotonic_ns() - start_ns)
    with open("{ACCOUNT}.new", "w") as account:
        times = [slowest_ns / 1e9, last_failed_ns / 1e9]
        seen = [sorted(totals), sorted(processors)]
        json.dump([reads, failed, *times, *seen, example], account)
    os.rename("{ACCOUNT}.new", "{ACCOUNT}")
    time.sleep(0.002)
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What a reader has seen since it started. `last_failed_s` is a monotonic time, 0 if never."""

    reads: int
    failed: int
    slowest_s: float
    last_failed_s: float
    totals_kb: tuple[int, ...]
    cpus: tuple[int, ...]
    example: str


class Reader:
    """The pod, which reads from its start to its end."""

    def __init__(self, cluster: Cluster, name: str, namespace: str) -> None:
        self._cluster = cluster
        self._name = name
        self._namespace = namespace
        reader = container("main", "python3", "-c", PROGRAM, image=IMAGE)
        reader["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
        security = {"runAsUser": 65532, "fsGroup": 65532}
        volumes = [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]
        made = pod(name, INJECT, [reader], volumes=volumes, securityContext=security)
        cluster.apply(made, "-n", namespace)
        cluster.wait(f"pod/{name}", "condition=Ready", "-n", namespace)
        self.wait_for(1)

    def account(self) -> Account:
        """What it has seen up to now."""
        said = self._cluster.exec(self._name, "cat", ACCOUNT, namespace=self._namespace)
        reads, failed, slowest_s, last_failed_s, totals_kb, cpus, example = json.loads(said)
        totals, seen = tuple(totals_kb), tuple(cpus)
        return Account(reads, failed, slowest_s, last_failed_s, totals, seen, example)

    def wait_for(self, reads: int, timeout_s: float = 60.0) -> Account:
        """Wait until it has made so many reads more."""
        wanted = None
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                account = self.account()
            except CommandFailedError:
                # The file is not there yet.
                account = None
            if account is not None:
                wanted = wanted or account.reads + reads
                if account.reads >= wanted:
                    return account
            if time.monotonic() > deadline_s:
                raise AssertionError(f"the reader does not go on: {account}")
            time.sleep(0.1)

    def sees_its_limit(self) -> bool:
        """Whether its container sees its own memory now; not while its files are dead."""
        try:
            return self._cluster.total_kb(self._name, namespace=self._namespace) == LIMIT_KB
        except CommandFailedError:
            return False

    @property
    def identity(self) -> object:
        """The container and how often it was started: the same if nobody restarted it."""
        status = self._cluster.get("pod", self._name, "-n", self._namespace)["status"]
        (found,) = status["containerStatuses"]
        return found["containerID"], found["restartCount"]


def assert_unharmed(account: Account) -> None:
    """Not one read failed, and each told the container's own limits, from either tree."""
    assert account.failed == 0, account.example
    assert account.totals_kb == (LIMIT_KB,)
    assert account.cpus == (1,)
