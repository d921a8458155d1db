"""The supervisor: owns the mount, starts workers and sampler, and never touches a request."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial

from procscope import __version__
from procscope.cgroup.hierarchy import discover
from procscope.daemon import control, guard, readiness, reload
from procscope.daemon.board import Board
from procscope.daemon.children import Child, Children
from procscope.daemon.config import Keeping, ServeConfig
from procscope.daemon.control import ControlSocket, Order
from procscope.daemon.crew import PINNED_WORKER, WORKER, Crew
from procscope.daemon.estate import Estate, is_connected
from procscope.daemon.inheritance import Inheritance
from procscope.daemon.keeper import FUSE
from procscope.daemon.kept import Kept
from procscope.daemon.mountpoint import MountWatch, mounted_at
from procscope.daemon.pinnedmount import MOUNTER, PinnedMount
from procscope.daemon.sampler import run_sampler
from procscope.daemon.state import prepare_state
from procscope.daemon.takeover import end_service, mount_again, mount_anew, take_over
from procscope.daemon.watch import LOOK_EVERY_S
from procscope.errors import ExitCode, ProcscopeError
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.records import RecordStore

_log = logging.getLogger(__name__)
SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD),
    *(control.SIGNAL, guard.SIGNAL),
)
_HEALING_S = 5.0
_LOOK_AROUND_S = 5.0
"""Of all that the supervisor looks after only the mount of the pinned tree can go without a signal,
and below that the live tree has its files too."""
LOCK, _REPLY, _CONTROL = "lock", "reply", "control"


class Supervisor:
    """One mount and the processes that serve it."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        inherited: Inheritance | None = None,
        on_ready: Callable[[], None] | None = None,
        on_look: Callable[[], None] | None = None,
        board: Board | None = None,
    ) -> None:
        """Take the daemon's lock, and find or make its mount.

        `inherited` is what an earlier version has left that executed this one. `on_ready` is
        called once, when the first read would be answered, `on_look` each time that the supervisor
        looks after its processes. Raises ProcscopeError.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._config = config
        self._on_ready = on_ready
        self._on_look = on_look
        self._board = board or Board.create()
        self.has_yielded = False
        """Whether a newer daemon has asked for the mount and got it."""
        self._inherited = inherited or Inheritance()
        self._hierarchies = discover(read_mountinfo(config.proc))
        prepare_state(config)
        inherited_lock_fd = self._inherited.fds.pop(LOCK, None)
        self._lock_fd = control.acquire_lock(
            config.state_directory, config.mountpoint, inherited_lock_fd
        )
        self._children = Children(SIGNALS, self._forget)
        self._control: ControlSocket | None = None
        self._trial: reload.Trial | None = None
        self._to_heal = False
        self._started_at_s = time.time()
        self._mounts = MountWatch(config.proc)
        self._kept = Kept(config)
        estate = take_over(config, self._inherited, self._kept.keeper)
        if estate is None:
            self._kept.let_go_of_useless()
            self._kept.prepare()
        self._estate = estate or self._mount_anew()
        self._pinned = PinnedMount(
            config, self._inherited, self._children, self._start_pinned_worker
        )

    def _mount_anew(self) -> Estate:
        try:
            return mount_anew(self._config)
        except BaseException:
            self._kept.give_up()
            raise

    @property
    def _descriptors(self) -> dict[str, int]:
        """What a successor needs, by name."""
        return self._estate.descriptors | self._pinned.descriptors

    def run(self) -> int:
        """Serve until a stop signal or until the mount is gone; return the exit code.

        Raises ProcscopeError where a process cannot be started.
        """
        try:
            self._control = ControlSocket(
                self._config.state_directory, self._inherited.fds.pop(_CONTROL, None)
            )
            if self._config.cares_for_containers:
                # A planned stop must not import what an upgrade has put in its place; and imported
                # when the others have been forked, it would copy most of what they share.
                importlib.import_module("procscope.daemon.healing")
            self._kept.keep(self._descriptors)
            self._start_children()
            self._announce()
            self._start_healer()
            return self._supervise(self._control)
        except ProcscopeError:
            if not self._kept.is_kept():
                self._end_service()
            raise

    def _forget(self, child: Child) -> None:
        """In a child: close what would make others believe that the supervisor still runs.

        Who waits for an answer from the mount and holds its connection would keep alive what it
        waits for, and wait for ever.
        """
        os.close(self._lock_fd)
        if child.name.startswith(PINNED_WORKER):
            self._estate.close()
        elif child.watch is None:
            os.close(self._estate.fuse_fd)
        if child.name.startswith(WORKER) or child.watch is None:
            self._pinned.forget(keeps_connection=child.name == MOUNTER)
        if self._control is not None:
            self._control.close()
        self._kept.close()

    def _start_children(self) -> None:
        """Start the processes, those that touch the least of what all share one after the other.

        What this process touches between two forks, each of the two has pages of its own for.
        """
        crew = self._crew(self._estate)
        dies_with_supervisor = not self._kept.outlives_supervisor
        crew.start_first(self._children, dies_with_supervisor=dies_with_supervisor)
        if self._pinned.start():
            self._kept.keep(self._descriptors)
        crew.start_others(self._children, dies_with_supervisor=dies_with_supervisor)
        self._start_sampler()

    def _crew(self, estate: Estate, *, pinned: bool = False) -> Crew:
        return Crew(self._config, estate, self._hierarchies, self._board, pinned=pinned)

    def _start_pinned_worker(self, estate: Estate) -> None:
        crew = self._crew(estate, pinned=True)
        crew.start(self._children, dies_with_supervisor=not self._kept.outlives_supervisor)

    def _start_sampler(self) -> None:
        run = partial(run_sampler, self._config, self._hierarchies)
        self._children.start(Child("sampler", run))

    def _start_healer(self) -> None:
        """Look for dead mounts now or, while somebody does so already, when he has ended."""
        self._to_heal = bool(self._children.named("healer"))
        if self._config.cares_for_containers and not self._to_heal:
            from procscope.daemon import healing

            source = healing.source_of(self._config, self._estate.state.device, self._pinned.device)
            run = partial(healing.heal, self._config, source, self._board)
            self._children.start(Child("healer", run, once=True))

    def _announce(self) -> None:
        config = self._config
        _log.info(
            "procscope %s serves %s with %d workers", __version__, config.mountpoint, config.workers
        )
        readiness.notify(f"READY=1\nSTATUS=Serving {config.mountpoint}")
        reply_fd = self._inherited.fds.pop(_REPLY, None)
        if reply_fd is not None:
            Order.from_descriptor("reload", reply_fd).reply(version=__version__)
        if self._on_ready is not None:
            self._on_ready()

    def _supervise(self, control_socket: ControlSocket) -> int:
        while True:
            received = self._children.wait_for_signal(self._wait_s(), self._config.deadline_s)
            number = None if received is None else received.si_signo
            if number in (signal.SIGTERM, signal.SIGINT):
                _log.info("stopping on %s", signal.Signals(number).name)
                return self._stop(for_good=number == signal.SIGINT)
            if number == signal.SIGHUP:
                self._start_trial(None)
            if not self._look_after_mount():
                return self._unmounted()
            self._kept.look_after(self._descriptors)
            self._look_after_trial()
            if self._on_look is not None:
                self._on_look()
            # One signal may tell of several.
            while (order := control_socket.next_order()) is not None:
                if (code := self._carry_out(order)) is not None:
                    return code

    def _wait_s(self) -> float:
        """Return how long to wait, at the most, for a signal: of what no signal tells."""
        # The node's mounts, and whoever tries the newer version.
        return LOOK_EVERY_S if self._config.yields or self._trial else _LOOK_AROUND_S

    def _look_after_mount(self) -> bool:
        """Replace workers that died, and the mount where it has; False where it has been taken."""
        if self._children.replace_dead() and not is_connected(self._estate.fuse_fd):
            if not self._config.yields and not self._is_mounted():
                return False
            self._renew()
            return True
        changed = self._mounts.have_changed()
        if self._config.yields and changed and not self._is_mounted():
            self._mount_again()
        if renewed := self._pinned.look_after(changed):
            self._kept.keep(self._descriptors)
        if renewed or self._to_heal:
            self._start_healer()
        return True

    def _is_mounted(self) -> bool:
        return mounted_at(self._config.mountpoint, self._config.proc) is not None

    def _unmounted(self) -> int:
        _log.error("%s was unmounted by somebody else", self._config.mountpoint)
        self._end_service()
        return ExitCode.FAILED

    def _renew(self) -> None:
        """Mount anew what was aborted (/sys/fs/fuse/connections), and heal the containers."""
        _log.error("the connection was aborted; mounting %s anew", self._config.mountpoint)
        self._children.stop()
        self._estate.close()
        self._estate = mount_anew(self._config)
        self._kept.keep(self._descriptors)
        self._start_children()
        self._start_healer()

    def _mount_again(self) -> None:
        """Mount what somebody has unmounted, for the pods that are started from now on."""
        _log.error("%s was unmounted by somebody else; mounting it again", self._config.mountpoint)
        try:
            mount_again(self._estate, self._config)
            self._pinned.look_again()
        except ProcscopeError as error:
            _log.error("it stays unmounted: %s", error)

    def _yield(self, order: Order) -> int:
        """Leave the mount, with the workers that serve it, to the daemon that asks for it."""
        _log.info("handing %s over to a newer agent", self._config.mountpoint)
        # The healer may be between taking a dead file away and putting a living one there.
        self._children.stop("sampler")
        self._children.leave()
        if self._control is not None:
            self._control.close()
        self._kept.close()
        self._mounts.close()
        self._pinned.close()
        self._estate.close()
        os.close(self._lock_fd)
        self.has_yielded = True
        order.reply(pid=os.getpid())
        return ExitCode.OK

    def _carry_out(self, order: Order) -> int | None:
        """Do what is asked; return an exit code where that is the end."""
        if order.operation == "stop":
            _log.info("stopping, as `procscope stop` asks")
            code = self._stop(for_good=True)
            order.reply()
            return code
        if order.operation == "yield" and self._config.yields:
            return self._yield(order)
        if order.operation == "status":
            order.reply(**self._status())
        elif order.operation == "reload":
            self._start_trial(order)
        else:
            order.refuse(f"version {__version__} does not know {order.operation!r}")
        return None

    def _status(self) -> dict[str, object]:
        workers = self._children.named("worker")
        return {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": self._config.mountpoint,
            "device": self._estate.state.device,
            "started_at_s": self._started_at_s,
            "reloads": self._inherited.reloads,
            "workers": [
                {"index": int(child.name.partition(" ")[2]), "pid": child.pid} for child in workers
            ],
            "deaths": self._children.deaths,
            "keeper": None if self._kept.keeper is None else {"pid": self._kept.keeper.pid},
            "containers": len(RecordStore(self._config.records_directory).names()),
            "healed_files": self._board.healed_files,
            "given_back_files": self._board.given_back_files,
            "fallbacks": self._board.fallbacks,
            "pinned": self._pinned.status(self._board.outsiders),
        }

    def _start_trial(self, order: Order | None) -> None:
        if self._config.yields:
            self._refuse(order, "an agent is replaced by starting a newer one beside it")
            return
        if self._trial is not None:
            self._refuse(order, "a reload is under way already")
            return
        _log.info("trying the version that is installed now")
        readiness.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._trial = reload.Trial(self._inheritance(), order)
        except OSError as error:
            self._reject(order, str(error))

    def _look_after_trial(self) -> None:
        trial = self._trial
        reason = None if trial is None else trial.outcome()
        if trial is None or reason is None:
            return
        self._trial = None
        if reason:
            self._reject(trial.order, reason)
            return
        _log.info("reloading")
        # The workers go on serving; each is replaced when the newer code is there to do it.
        self._children.stop("sampler")
        inheritance = self._inheritance()
        inheritance.fds[LOCK] = self._lock_fd
        if self._control is not None:
            inheritance.fds[_CONTROL] = self._control.fileno()
        if trial.order is not None:
            inheritance.fds[_REPLY] = trial.order.connection.fileno()
        try:
            reload.execute(inheritance)
        except OSError as error:
            self._start_sampler()
            self._reject(trial.order, str(error))

    def _inheritance(self) -> Inheritance:
        return Inheritance(self._descriptors, reloads=self._inherited.reloads + 1)

    def _reject(self, order: Order | None, reason: str) -> None:
        _log.error("the installed version did not come up, and %s stays: %s", __version__, reason)
        readiness.notify("READY=1")
        self._refuse(
            order, f"the installed version did not come up, and {__version__} stays: {reason}"
        )

    def _refuse(self, order: Order | None, why: str) -> None:
        if order is not None:
            order.refuse(why)

    def _stop(self, *, for_good: bool) -> int:
        readiness.notify("STOPPING=1")
        if self._trial is not None:
            self._trial.abandon()
        self._children.stop("sampler")
        self._children.let_finish("healer", _HEALING_S)
        if not for_good and self._leaves_to_keeper():
            _log.info(
                "%s is left to its keeper until the next daemon; `procscope stop` ends it",
                self._config.mountpoint,
            )
            return ExitCode.OK
        self._end_service()
        return ExitCode.OK

    def _leaves_to_keeper(self) -> bool:
        """Tell whether this process may end and leave the mount as it is.

        An external keeper may be told to end at the same moment. It hangs up first, and then looks
        whether a daemon has the lock; so here the lock is let go of first. Whatever the order, one
        of the two sees that the other is going, and takes everything away.
        """
        if self._config.keeper is not Keeping.EXTERNAL:
            return self._kept.is_kept()
        if self._kept.has_left():
            return False
        os.close(self._lock_fd)
        if not self._kept.has_left():
            return True
        try:
            self._lock_fd = control.acquire_lock(
                self._config.state_directory, self._config.mountpoint
            )
        except control.AlreadyServedError:
            return True
        return False

    def _end_service(self) -> None:
        """Leave nothing behind: neither process nor mount nor descriptor, nor a dead file."""
        _log.info("unmounting %s", self._config.mountpoint)
        if self._config.cares_for_containers:
            from procscope.daemon import healing

            fuse_fds = [fd for name, fd in self._descriptors.items() if name.startswith(FUSE)]
            source = healing.source_of(self._config, self._estate.state.device, self._pinned.device)
            healing.take_away(self._config, source, fuse_fds)
        self._children.stop()
        readiness.remove_descriptors(self._descriptors)
        end_service(self._config, self._estate, self._pinned.estate, self._kept.keeper)
        self._kept.give_up()
        self._kept.close()
