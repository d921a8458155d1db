"""A real keeper process, and what it gives back to who comes later."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon import keeper, sockets
from procscope.daemon.keeping import KeeperLink, StartingKeeper, find_keeper

MOUNTPOINT = "/somewhere"


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A path that does not fit into a socket's address."""
    long = tmp_path / ("d" * 100)
    long.mkdir()
    return str(long)


@pytest.fixture
def link(state: str) -> Iterator[KeeperLink]:
    one = StartingKeeper(state, MOUNTPOINT).link()
    yield one
    one.close()
    last = find_keeper(state, MOUNTPOINT)
    if last is not None:
        last.drop()


def memfd(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


def test_what_one_process_has_given_the_next_one_gets(state: str, link: KeeperLink) -> None:
    given = memfd(b"kept")
    link.put({"thing": given})
    os.close(given)
    link.close()
    later = find_keeper(state, MOUNTPOINT)
    assert later is not None
    assert later.pid == link.pid
    got = later.get()
    assert list(got) == ["thing"]
    assert os.pread(got["thing"], 10, 0) == b"kept"
    assert not os.get_inheritable(got["thing"])
    os.close(got["thing"])
    later.close()


def test_it_is_nobodys_child_and_in_a_session_of_its_own(link: KeeperLink) -> None:
    """Neither the end of the daemon nor that of its terminal is told to it."""
    assert os.getsid(link.pid) not in (0, os.getsid(0))
    stat = Path(f"/proc/{link.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != os.getpid()
    assert Path(f"/proc/{link.pid}/comm").read_text() == "procscope-keep\n"


def test_it_holds_nothing_that_it_was_not_given(link: KeeperLink) -> None:
    names = {os.readlink(f"/proc/{link.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{link.pid}/fd")}
    kinds = {name.partition(":")[0] for name in names}
    assert kinds <= {"/dev/null", "socket", "anon_inode"}, names


def test_it_is_not_for_another_mountpoint(state: str, link: KeeperLink) -> None:
    assert find_keeper(state, "/elsewhere") is None


def test_its_end_is_seen(state: str, link: KeeperLink) -> None:
    assert not link.has_ended()
    os.kill(link.pid, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while not link.has_ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link.has_ended()
    with pytest.raises(OSError, match=r"."):
        link.get()
    assert find_keeper(state, MOUNTPOINT) is None


def test_told_to_drop_it_ends(state: str, link: KeeperLink) -> None:
    pidfd = os.pidfd_open(link.pid)
    link.drop()
    assert find_keeper(state, MOUNTPOINT) is None
    os.close(pidfd)


def test_a_signal_tells_of_its_end(link: KeeperLink) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
    try:
        link.signal_its_end()
        assert not link.has_ended()
        os.kill(link.pid, signal.SIGKILL)
        assert signal.sigtimedwait([signal.SIGIO], 60) is not None
        assert link.has_ended()
    finally:
        while signal.sigtimedwait([signal.SIGIO], 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_while_somebody_is_connected_nothing_wakes_it(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_MS", 1)
    listener = sockets.listen(state, keeper.SOCKET_NAME)
    pid = os.fork()
    if pid == 0:
        keeper.serve(listener, keeper.Keeper(MOUNTPOINT))
        os._exit(0)
    listener.close()
    link = find_keeper(state, MOUNTPOINT)
    assert link is not None
    counts = []
    for _ in range(2):
        time.sleep(0.2)
        status = Path(f"/proc/{pid}/status").read_text()
        counts.append(int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0]))
    link.drop()
    os.waitpid(pid, 0)
    assert counts[1] - counts[0] < 10, "without a look there is one for each millisecond"
