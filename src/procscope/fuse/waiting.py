"""Waiting for a descriptor beside other processes, and being woken by a signal."""

from __future__ import annotations

import contextlib
import os
import select

_DRAIN_BYTES = 4096
_MOST_EVENTS = 2


class Waiter:
    """Waits until `fd` can be read, or `wake` is called."""

    def __init__(self, fd: int) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = select.epoll()
        self._rest.register(self._reader, select.EPOLLIN)
        self._epoll = select.epoll()
        self._epoll.register(self._reader, select.EPOLLIN)
        self._fd = fd
        self._join()

    def _join(self) -> None:
        """Be one of those that wait for `fd`, the last of them.

        The first of them that waits at this moment is woken, and no other (ep_poll_callback() in
        fs/eventpoll.c).
        """
        self._epoll.register(self._fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    @property
    def wakeup_fd(self) -> int:
        """A byte written here ends `wait`, also one that comes before it."""
        return self._writer

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait, for ever where nothing comes without a timeout; tell whether `fd` is ready."""
        is_ready = False
        for fd, _ in self._epoll.poll(timeout_s, _MOST_EVENTS):
            if fd == self._reader:
                os.read(self._reader, _DRAIN_BYTES)
            else:
                is_ready = True
        return is_ready

    def rest(self, duration_s: float) -> None:
        """Leave `fd` to other processes for so long, or until `wake` is called.

        Who waits again afterwards is woken only where none of the others waits.
        """
        if self._rest.poll(duration_s):
            os.read(self._reader, _DRAIN_BYTES)
        self._epoll.unregister(self._fd)
        self._join()

    def wake(self) -> None:
        """End `wait`, or the next one."""
        # A pipe that is full wakes as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def close(self) -> None:
        """Close everything but the descriptor that was waited for."""
        self._epoll.close()
        self._rest.close()
        os.close(self._reader)
        os.close(self._writer)
