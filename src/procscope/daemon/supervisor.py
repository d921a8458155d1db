"""The supervisor: owns the mount, starts workers and sampler, and never touches a request."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.cgroup.io_accounting import IoAccounting
from procscope.daemon import readiness
from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.daemon.mountpoint import mount_name, mounted_at, prepare
from procscope.daemon.sampler import Sampler
from procscope.daemon.slots import RequestSlot
from procscope.daemon.state import prepare_state, store_connection
from procscope.daemon.watch import LOOK_EVERY_S, DeadlineWatch
from procscope.daemon.worker import run_worker
from procscope.errors import ExitCode, ProcscopeError
from procscope.fuse import device
from procscope.fuse.negotiation import ConnectionState
from procscope.linux import syscalls
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.records import RecordStore

_log = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)
_QUICK_DEATH_S = 1.0
_PAUSE_S = 0.2
"""Before a process that died at once is started again."""
_STOP_PATIENCE_S = 2.0


@dataclass(slots=True)
class _Child:
    """A process that is started again when it dies."""

    name: str
    run: Callable[[], None]
    watch: DeadlineWatch | None = None
    pid: int = 0
    started_at_s: float = 0.0
    stopped_at_s: float | None = None
    """Since when it is stopped by a signal, None while it runs."""


class Supervisor:
    """One mount and the processes that serve it."""

    def __init__(self, config: ServeConfig, *, on_ready: Callable[[], None] | None = None) -> None:
        """`on_ready` is called once, when the first read would be answered."""
        self._config = config
        self._on_ready = on_ready
        self._children: list[_Child] = []

    def run(self) -> int:
        """Mount, serve until a stop signal or until the mount is gone; return the exit code.

        Raises ProcscopeError where the mount cannot be made.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        hierarchies = discover(read_mountinfo(self._config.proc))
        prepare(self._config.mountpoint, self._config.proc)
        prepare_state(self._config)
        fd = device.open_device()
        device.mount(
            fd,
            self._config.mountpoint,
            mount_name(self._config.mountpoint),
            context=self._config.selinux_context,
        )
        try:
            state = device.exchange_init(fd)
            store_connection(self._config, state)
            handles = HandleStore(self._config.workers)
            self._prepare_children(hierarchies, fd, state, handles)
            for child in self._children:
                self._start(child)
            self._announce()
            return self._supervise()
        finally:
            self._stop_children()
            device.unmount(self._config.mountpoint)
            os.close(fd)

    def _prepare_children(
        self, hierarchies: Hierarchies, fd: int, state: ConnectionState, handles: HandleStore
    ) -> None:
        config = self._config
        for index in range(config.workers):
            slot = RequestSlot()
            run = partial(run_worker, config, hierarchies, fd, state, handles, index, slot)
            watch = DeadlineWatch(slot, config.deadline_s)
            self._children.append(_Child(f"worker {index}", run, watch))
        self._children.append(_Child("sampler", partial(_run_sampler, config, hierarchies)))

    def _announce(self) -> None:
        _log.info("serving %s with %d workers", self._config.mountpoint, self._config.workers)
        readiness.notify(f"READY=1\nSTATUS=Serving {self._config.mountpoint}")
        if self._on_ready is not None:
            self._on_ready()

    def _supervise(self) -> int:
        while True:
            received = signal.sigtimedwait(_SIGNALS, LOOK_EVERY_S)
            if received is None:
                self._kill_overdue_workers()
                continue
            if received.si_signo in _STOP_SIGNALS:
                _log.info("stopping on %s", signal.Signals(received.si_signo).name)
                readiness.notify("STOPPING=1")
                return ExitCode.OK
            if not self._replace_dead_children():
                _log.error("%s was unmounted by somebody else", self._config.mountpoint)
                return ExitCode.FAILED

    def _replace_dead_children(self) -> bool:
        """Start again what died; False where the mount is gone, so that there is nothing to do."""
        for child, status in self._reap():
            if mounted_at(self._config.mountpoint, self._config.proc) is None:
                return False
            _log.error("%s %s; starting another", child.name, _describe(status))
            if _failed_at_once(child, status):
                time.sleep(_PAUSE_S)
            self._start(child)
        return True

    def _kill_overdue_workers(self) -> None:
        """A worker that does not answer costs its life; its successor answers for it."""
        now_s = time.monotonic()
        for child in self._children:
            if not child.pid or child.watch is None:
                continue
            overdue = child.watch.overdue(now_s)
            # Of a worker that is stopped while it waits, the slot tells nothing.
            since_s = now_s if child.stopped_at_s is None else child.stopped_at_s
            if overdue or now_s - since_s > self._config.deadline_s:
                _log.error(
                    "%s has not answered for %.1f s; killing it",
                    child.name,
                    self._config.deadline_s,
                )
                os.kill(child.pid, signal.SIGKILL)

    def _reap(self) -> list[tuple[_Child, int]]:
        dead: list[tuple[_Child, int]] = []
        for child in self._children:
            if not child.pid:
                continue
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
                if not pid:
                    continue
                if os.WIFSTOPPED(status):
                    child.stopped_at_s = time.monotonic()
                elif os.WIFCONTINUED(status):
                    child.stopped_at_s = None
                else:
                    child.pid = 0
                    dead.append((child, status))
        return dead

    def _start(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        child.started_at_s = time.monotonic()
        child.stopped_at_s = None
        if child.watch is not None:
            child.watch.start_over()
        try:
            child.pid = os.fork()
        except OSError as error:
            raise ProcscopeError(
                f"cannot start {child.name}: {error.strerror}", hint="see `ulimit -u` and memory"
            ) from None
        if child.pid == 0:
            _be_child(child.run, supervisor)

    def _stop_children(self) -> None:
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + _STOP_PATIENCE_S
        while any(child.pid for child in self._children):
            self._reap()
            if time.monotonic() > deadline_s:
                for child in self._children:
                    if child.pid:
                        os.kill(child.pid, signal.SIGKILL)
                deadline_s = float("inf")
            signal.sigtimedwait((signal.SIGCHLD,), 0.05)


def _failed_at_once(child: _Child, status: int) -> bool:
    """Tell whether starting another is likely to end alike; being killed says nothing of that."""
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return not killed and time.monotonic() - child.started_at_s < _QUICK_DEATH_S


def _run_sampler(config: ServeConfig, hierarchies: Hierarchies) -> None:
    syscalls.set_name("procscope-load")
    io_accounting = IoAccounting(hierarchies, config.sys)
    io_accounting.switch_on()
    records = RecordStore(config.records_directory)
    Sampler(hierarchies, records, config.proc, io_accounting).run()


def _be_child(run: Callable[[], None], supervisor: int) -> None:
    """Run `run` in this forked process, and end it."""
    code = ExitCode.FAILED
    try:
        # A supervisor that dies takes its mount with it: nobody is left to hold the descriptor.
        syscalls.set_pdeathsig(signal.SIGKILL)
        if os.getppid() == supervisor:
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C reaches the whole group; the supervisor stops its children in order.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            run()
            code = ExitCode.OK
    except BaseException:  # noqa: BLE001 - the process ends here whatever it was
        _log.exception("a process of the daemon failed")
    finally:
        logging.shutdown()
        os._exit(code)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
