"""What newer code does before it takes the place of the code that runs: everything but serve."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice

from procscope import __version__
from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.containers.container import Container
from procscope.containers.identity import Identifier
from procscope.containers.listing import list_containers
from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import Estate
from procscope.daemon.inheritance import Inheritance
from procscope.daemon.worker import make_tree
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import Pid
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory

_MAX_CONTAINERS = 3


def run(config: ServeConfig, inherited: Inheritance) -> int:
    """Read every file, from what the running supervisor would leave, and say the version.

    Raises ProcscopeError where this version could not take over.
    """
    estate = Estate.adopt(inherited.fds)
    if not estate.serves(config):
        raise ProcscopeError(f"version {__version__} would not take over {config.mountpoint}")
    hierarchies = discover(read_mountinfo(config.proc))
    make_tree(config, hierarchies, estate.handles).close()
    observatory = Observatory(
        hierarchies,
        HostFiles(config.proc, config.sys),
        None,
        cpu_count=config.cpu_count,
        on_fallback=_refuse_bugs,
    )
    with closing(observatory):
        for container in _some_containers(hierarchies, config.proc):
            _render_all(observatory, config, container)
    print(__version__)
    return ExitCode.OK


def _some_containers(hierarchies: Hierarchies, proc: str) -> Iterator[Container | None]:
    """Yield the host, this process's own container, and a few others."""
    yield None
    with closing(Identifier(proc)) as identifier:
        yield identifier.container_of(Pid(os.getpid()))
    yield from islice(list_containers(hierarchies), _MAX_CONTAINERS)


def _render_all(observatory: Observatory, config: ServeConfig, container: Container | None) -> None:
    for view in config.views.values():
        # What the kernel does not have, such as the pressure of a kernel without PSI, is no fault
        # of this version.
        with suppress(OSError):
            observatory.render(view, container)


def _refuse_bugs(fallback: Fallback) -> None:
    """A container that ends falls back rightly; what is no error of the kernel is one of ours."""
    if not isinstance(fallback.error, OSError):
        raise ProcscopeError(
            f"version {__version__} cannot render {fallback.view}: {fallback.error!r}"
        )
