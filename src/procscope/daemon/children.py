"""The supervisor's child processes: started, looked after, replaced when they die."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from procscope.daemon import guard
from procscope.daemon.slots import WorkerSlots
from procscope.daemon.watch import IDLE_LOOK_EVERY_S, LOOK_EVERY_S, DeadlineWatch
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import Pid
from procscope.linux import syscalls

_log = logging.getLogger(__name__)
_QUICK_DEATH_S = 1.0
_PAUSE_S = 0.2
"""Before a process that died at once is started again."""
_STOP_PATIENCE_S = 2.0


class Child:
    """A process that is started again when it dies, unless it runs `once`."""

    def __init__(
        self,
        name: str,
        run: Callable[[], None],
        watch: DeadlineWatch | None = None,
        *,
        dies_with_supervisor: bool = True,
        once: bool = False,
    ) -> None:
        """`watch` is of one that serves the mount.

        All others may read from it, and must not hold it open.
        """
        self.name = name
        self.run = run
        self.watch = watch
        self.dies_with_supervisor = dies_with_supervisor
        self.once = once
        self.pid = 0
        self.started_at_s = 0.0
        self.stopped_at_s: float | None = None
        """Since when it is stopped by a signal, None while it runs."""
        self.was_overdue = False
        """Whether it was killed because it did not answer."""


class Children:
    """All of them."""

    def __init__(
        self,
        signals: Iterable[signal.Signals],
        forget: Callable[[Child], None] = lambda child: None,
    ) -> None:
        """`signals` are those that the supervisor has blocked; a child gets them as usual.

        `forget` is called in each child first: it closes what is not the child's.
        """
        self._signals = tuple(signals)
        self._forget = forget
        self._children: list[Child] = []
        self._guard = guard.Guard()
        self.deaths = 0
        """How many died unasked, since the supervisor was started."""

    def start(self, child: Child) -> None:
        """Start a new one. Raises ProcscopeError."""
        self._children.append(child)
        self._fork(child)

    def named(self, prefix: str) -> list[Child]:
        """Return those that run and whose name starts with `prefix`."""
        return [one for one in self._children if one.pid and one.name.startswith(prefix)]

    def replace_dead(self) -> bool:
        """Start again what died; tell whether anything did."""
        dead = self._reap()
        for child, status in dead:
            if child.once:
                self._children.remove(child)
                continue
            self.deaths += 1
            _log.error("%s %s; starting another", child.name, _describe(status))
            if child.watch is not None and _was_killed(status) and not child.was_overdue:
                child.watch.count_kill()
            if _failed_at_once(child, status):
                time.sleep(_PAUSE_S)
            self._fork(child)
        return any(not child.once for child, _ in dead)

    def let_finish(self, prefix: str, patience_s: float) -> None:
        """Wait for those whose name starts with `prefix` and that end by themselves, not longer."""
        deadline_s = time.monotonic() + patience_s
        while (ending := self.named(prefix)) and time.monotonic() < deadline_s:
            _reap_all(ending)
            signal.sigtimedwait((signal.SIGCHLD,), 0.05)

    def leave(self) -> None:
        """Forget all that run; they go on, and whoever has taken over looks after them."""
        self._children = []

    def wait_for_signal(self, at_most_s: float, deadline_s: float) -> signal.struct_siginfo | None:
        """Wait for one of the signals, and meanwhile kill who does not answer.

        It costs little to look for those: while nobody asks for anything, nothing else is done.
        """
        now_s = time.monotonic()
        until_s, kill_at_s = now_s + at_most_s, now_s + self.next_look_s()
        try:
            while True:
                look_s = self._guard.next_look_s(self._serving())
                wait_s = min(until_s - now_s, kill_at_s - now_s, look_s)
                received = signal.sigtimedwait(self._signals, max(0.0, wait_s))
                now_s = time.monotonic()
                self._guard.look(self._serving())
                if received is not None and received.si_signo == guard.SIGNAL:
                    received = None
                if received is not None or now_s >= min(until_s, kill_at_s):
                    self.kill_overdue(deadline_s)
                    kill_at_s = now_s + self.next_look_s()
                if received is not None or now_s >= until_s:
                    return received
        finally:
            # Whatever this process does or starts next may run where it could run before.
            self._guard.stand_down()

    def _serving(self) -> Iterator[tuple[Pid, WorkerSlots]]:
        for child in self._children:
            if child.pid and child.watch is not None:
                yield Pid(child.pid), child.watch.slots

    def kill_overdue(self, deadline_s: float) -> None:
        """A worker that does not answer costs its life; its successor answers for it."""
        now_s = time.monotonic()
        for child in self._children:
            if not child.pid or child.watch is None:
                continue
            overdue = child.watch.overdue(now_s)
            # Of a worker that is stopped while it waits, the slot tells nothing.
            since_s = now_s if child.stopped_at_s is None else child.stopped_at_s
            if overdue or now_s - since_s > deadline_s:
                _log.error("%s has not answered for %.1f s; killing it", child.name, deadline_s)
                child.was_overdue = True
                os.kill(child.pid, signal.SIGKILL)

    def next_look_s(self) -> float:
        """Return how soon to look for those that do not answer."""
        watched = [child for child in self._children if child.watch is not None]
        if any(child.stopped_at_s is not None for child in watched):
            return LOOK_EVERY_S
        looks = [child.watch.next_look_s() for child in watched if child.watch is not None]
        return min(looks, default=IDLE_LOOK_EVERY_S)

    def stop(self, prefix: str = "") -> None:
        """End all, or those whose name starts with `prefix`, and wait for them."""
        ending = self.named(prefix)
        self._children = [one for one in self._children if one not in ending]
        _send(ending, signal.SIGTERM)
        deadline_s = time.monotonic() + _STOP_PATIENCE_S
        while any(child.pid for child in ending):
            _reap_all(ending)
            if time.monotonic() > deadline_s:
                _send(ending, signal.SIGKILL)
                deadline_s = float("inf")
            signal.sigtimedwait((signal.SIGCHLD,), 0.05)

    def _reap(self) -> list[tuple[Child, int]]:
        return _reap_all(self._children)

    def _fork(self, child: Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        child.started_at_s = time.monotonic()
        child.stopped_at_s = None
        child.was_overdue = False
        if child.watch is not None:
            child.watch.start_over()
        # What there is now is never garbage: to look for some would copy the pages that both share.
        gc.freeze()
        try:
            child.pid = os.fork()
        except OSError as error:
            raise ProcscopeError(
                f"cannot start {child.name}: {error.strerror}", hint="see `ulimit -u` and memory"
            ) from None
        if child.pid == 0:
            _be_child(child, supervisor, self._signals, self._forget)


def _reap_all(children: Iterable[Child]) -> list[tuple[Child, int]]:
    """Note which of them have ended, been stopped or gone on; return those that ended."""
    dead: list[tuple[Child, int]] = []
    for child in children:
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


def _send(children: Iterable[Child], number: signal.Signals) -> None:
    for child in children:
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)


def _failed_at_once(child: Child, status: int) -> bool:
    """Tell whether starting another is likely to end alike; being killed says nothing of that."""
    age_s = time.monotonic() - child.started_at_s
    return not _was_killed(status) and age_s < _QUICK_DEATH_S


def _was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _be_child(
    child: Child,
    supervisor: int,
    signals: tuple[signal.Signals, ...],
    forget: Callable[[Child], None],
) -> NoReturn:
    """Run the child's function in this forked process, and end it."""
    code = ExitCode.FAILED
    try:
        forget(child)
        if child.dies_with_supervisor:
            syscalls.set_pdeathsig(signal.SIGKILL)
        if os.getppid() == supervisor or not child.dies_with_supervisor:
            for number in signals:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C and the end of a terminal reach the whole group; the supervisor decides.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            child.run()
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
