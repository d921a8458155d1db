"""The supervisor: owns the mount, starts workers and sampler, and never touches a request."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial

from procscope import __version__
from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.cgroup.io_accounting import IoAccounting
from procscope.daemon import control, healing, readiness, reload
from procscope.daemon.children import Child, Children
from procscope.daemon.config import ServeConfig
from procscope.daemon.control import ControlSocket, Order
from procscope.daemon.estate import is_connected
from procscope.daemon.inheritance import Inheritance
from procscope.daemon.keeping import KeeperLink, find_keeper, start_keeper
from procscope.daemon.leases import HeldOpen
from procscope.daemon.mountpoint import mounted_at
from procscope.daemon.sampler import Sampler
from procscope.daemon.state import prepare_state
from procscope.daemon.stopping import end_service
from procscope.daemon.takeover import mount_anew, stop_worker, take_over
from procscope.daemon.watch import LOOK_EVERY_S, DeadlineWatch
from procscope.daemon.worker import run_worker
from procscope.errors import ExitCode, ProcscopeError
from procscope.fuse import device
from procscope.linux import syscalls
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.processes import identity_of
from procscope.observe.records import RecordStore

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, control.SIGNAL)
_LOCK, _REPLY, _CONTROL = "lock", "reply", "control"


class Supervisor:
    """One mount and the processes that serve it."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        inherited: Inheritance | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Take the daemon's lock, and find or make its mount.

        `inherited` is what an earlier version has left that executed this one. `on_ready` is
        called once, when the first read would be answered. Raises ProcscopeError.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._config = config
        self._on_ready = on_ready
        self._inherited = inherited or Inheritance()
        self._hierarchies = discover(read_mountinfo(config.proc))
        prepare_state(config)
        self._lock_fd = self._acquire_lock()
        self._children = Children(_SIGNALS, self._forget)
        self._control: ControlSocket | None = None
        self._trial: reload.Trial | None = None
        self._started_at_s = time.time()
        keeper = find_keeper(config.state_directory, config.mountpoint)
        estate = take_over(config, self._inherited, keeper)
        if estate is None and keeper is not None:
            # It keeps what is of no use any more.
            keeper.drop()
            keeper = None
        self._keeper: KeeperLink | None = keeper
        self._estate = estate or mount_anew(config)

    def run(self) -> int:
        """Serve until a stop signal or until the mount is gone; return the exit code.

        Raises ProcscopeError where a process cannot be started.
        """
        try:
            self._control = ControlSocket(
                self._config.state_directory, self._inherited.fds.pop(_CONTROL, None)
            )
            self._have_estate_kept()
            self._start_children()
            self._announce()
            self._start_healer()
            return self._supervise(self._control)
        except ProcscopeError:
            if not self._is_kept():
                self._end_service()
            raise

    def _acquire_lock(self) -> int:
        try:
            return control.acquire_lock(
                self._config.state_directory, self._inherited.fds.pop(_LOCK, None)
            )
        except control.AlreadyServedError:
            raise ProcscopeError(
                f"{self._config.mountpoint} is already served by another daemon",
                hint="stop that one first, or give another mountpoint",
            ) from None

    def _forget(self, child: Child) -> None:
        """In a child: close what would make others believe that the supervisor still runs.

        Who waits for an answer from the mount and holds its connection would keep alive what it
        waits for, and wait for ever.
        """
        os.close(self._lock_fd)
        if child.watch is None:
            os.close(self._estate.fuse_fd)
        if self._control is not None:
            self._control.close()
        if self._keeper is not None:
            self._keeper.close()

    def _is_kept(self) -> bool:
        """Tell whether the mount lives on when this process ends."""
        return self._keeper is not None or readiness.has_descriptor_store()

    def _have_estate_kept(self) -> None:
        """Have somebody else hold the descriptors too: keeper and service manager."""
        readiness.store_descriptors(self._estate.descriptors)
        if not self._config.keeper:
            if self._keeper is not None:
                self._keeper.drop()
                self._keeper = None
            return
        try:
            if self._keeper is None:
                self._keeper = start_keeper(self._config.state_directory, self._config.mountpoint)
            self._keeper.put(self._estate.descriptors)
        except OSError as error:
            _log.error("there is no keeper, so that a crash would end the mount: %s", error)
            self._keeper = None

    def _start_children(self) -> None:
        for index in range(self._estate.slots.workers):
            self._start_worker(index)
        if self._estate.needs_resend:
            device.ask_for_resend(self._estate.fuse_fd)
        self._start_sampler()

    def _start_worker(self, index: int) -> None:
        """Start a worker in the place of the predecessor's.

        A place that is not needed any more gets one for as long as it takes to answer what was
        left there.
        """
        config, estate = self._config, self._estate
        stop_worker(estate, config, index)
        slots = estate.slots.worker(index)
        needed = index < config.workers
        if not needed and not slots.pending():
            return

        def run() -> None:
            me = identity_of(os.getpid(), config.proc)
            if me is not None:
                slots.set_owner(me.pid, me.start_ticks)
            run_worker(
                config,
                self._hierarchies,
                estate.fuse_fd,
                estate.state.connection,
                estate.handles,
                index,
                slots,
                only_left_over=not needed,
            )

        watch = DeadlineWatch(slots, config.deadline_s)
        child = Child(
            f"worker {index}",
            run,
            watch,
            dies_with_supervisor=not self._is_kept(),
            once=not needed,
        )
        self._children.start(child)

    def _start_sampler(self) -> None:
        run = partial(_run_sampler, self._config, self._hierarchies)
        self._children.start(Child("sampler", run))

    def _start_healer(self) -> None:
        if self._config.cares_for_containers:
            source = healing.source_of(self._config, self._estate.state.device)
            run = partial(healing.heal, self._config, source)
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
            received = signal.sigtimedwait(_SIGNALS, LOOK_EVERY_S)
            number = None if received is None else received.si_signo
            if number in (signal.SIGTERM, signal.SIGINT):
                _log.info("stopping on %s", signal.Signals(number).name)
                return self._stop(for_good=number == signal.SIGINT)
            if number == signal.SIGHUP:
                self._start_trial(None)
            if self._children.replace_dead() and not is_connected(self._estate.fuse_fd):
                if not self._is_mounted():
                    return self._unmounted()
                self._renew()
            self._children.kill_overdue(self._config.deadline_s)
            self._look_after_keeper()
            self._look_after_trial()
            order = control_socket.next_order()
            if order is not None and order.operation == "stop":
                _log.info("stopping, as `procscope stop` asks")
                code = self._stop(for_good=True)
                order.reply()
                return code
            if order is not None:
                self._carry_out(order)

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
        self._have_estate_kept()
        self._start_children()
        self._start_healer()

    def _look_after_keeper(self) -> None:
        if self._keeper is not None and self._keeper.has_ended():
            _log.error("the keeper has ended; starting another")
            self._keeper.close()
            self._keeper = None
            self._have_estate_kept()

    def _carry_out(self, order: Order) -> None:
        if order.operation == "status":
            order.reply(**self._status())
        elif order.operation == "reload":
            self._start_trial(order)
        else:
            order.refuse(f"version {__version__} does not know {order.operation!r}")

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
            "keeper": None if self._keeper is None else {"pid": self._keeper.pid},
            "containers": len(RecordStore(self._config.records_directory).names()),
        }

    def _start_trial(self, order: Order | None) -> None:
        if self._trial is not None:
            if order is not None:
                order.refuse("a reload is under way already")
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
        inheritance.fds[_LOCK] = self._lock_fd
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
        return Inheritance(dict(self._estate.descriptors), self._inherited.reloads + 1)

    def _reject(self, order: Order | None, reason: str) -> None:
        _log.error("the installed version did not come up, and %s stays: %s", __version__, reason)
        readiness.notify("READY=1")
        if order is not None:
            order.refuse(
                f"the installed version did not come up, and {__version__} stays: {reason}"
            )

    def _stop(self, *, for_good: bool) -> int:
        readiness.notify("STOPPING=1")
        if self._trial is not None:
            self._trial.abandon()
        self._children.stop("sampler")
        if not for_good and self._is_kept():
            _log.info(
                "the workers go on serving %s until the next `procscope serve`; "
                "`procscope stop` ends them",
                self._config.mountpoint,
            )
            return ExitCode.OK
        self._end_service()
        return ExitCode.OK

    def _end_service(self) -> None:
        """Leave nothing behind: neither process nor mount nor descriptor, nor a dead file."""
        if self._config.cares_for_containers:
            source = healing.source_of(self._config, self._estate.state.device)
            healing.take_away(self._config, source, self._estate.fuse_fd)
        self._children.stop()
        readiness.remove_descriptors(self._estate.descriptors)
        end_service(self._config, self._estate, self._keeper)
        self._keeper = None


def _run_sampler(config: ServeConfig, hierarchies: Hierarchies) -> None:
    syscalls.set_name("procscope-load")
    io_accounting = IoAccounting(hierarchies, config.sys)
    io_accounting.switch_on()
    records = RecordStore(config.records_directory)
    held = HeldOpen(config.mountpoint)
    Sampler(hierarchies, records, config.proc, io_accounting).run(held.refresh)
