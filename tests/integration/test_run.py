"""`procscope run` on this kernel: limits, namespaces, init, signals, the terminal, and no remains.

The views are a plain folder of files: what is in them is the daemon's matter, and where they are
mounted is the sandbox's. The launcher runs in a process of its own, as it changes its namespaces.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from procscope.ids import CgroupPath
from procscope.linux.procfs import UNIFIED
from procscope.sandbox import cgroupfs
from procscope.sandbox.delegation import root_site

LAUNCHER = """
import argparse, ctypes, os, sys
from contextlib import nullcontext
from procscope.cli import run as command
from procscope.errors import ProcscopeError
from procscope.sandbox.launch import find_privileges, run_sandbox
from procscope.sandbox.spec import RunOptions, build_spec, read_host
from procscope.tree.sources import Pinned

views, user = sys.argv[1], int(os.environ.pop("TEST_USER", "0"))
parser = argparse.ArgumentParser()
command.add_arguments(parser)
args = vars(parser.parse_args(sys.argv[2:]))
args["command"] = args["command"][1:]
pinned = Pinned(args.pop("pinned"))
spec = build_spec(RunOptions(**args), read_host())
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after exec(2)
try:
    code = run_sandbox(
        spec,
        find_privileges(()),
        lambda: nullcontext(views),
        lambda line: print(line, file=sys.stderr),
        pinned=pinned,
    )
except ProcscopeError as error:
    print(error, file=sys.stderr)
    code = int(error.exit_code)
sys.exit(code)
"""

USER = 12345
HIERARCHIES = root_site().hierarchies


@pytest.fixture
def views() -> Iterator[Path]:
    """A folder with views that say so, which every user may read."""
    root = Path(tempfile.mkdtemp(prefix="procscope-test-"))
    root.chmod(0o755)
    for name in (
        "proc/meminfo",
        "proc/uptime",
        "proc/no_such_file",
        "sys/devices/system/cpu/online",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"view of {name}\n")
    yield root
    shutil.rmtree(root)


def launcher(views: Path, *args: str) -> list[str]:
    """The command line of `procscope run ARGS` with these views."""
    return [sys.executable, "-c", LAUNCHER, str(views), *args]


def run(
    views: Path, *args: str, given: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `procscope run ARGS` to its end."""
    return subprocess.run(
        launcher(views, *args),
        input=given,
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )


def sh(views: Path, script: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in a sandbox."""
    return run(views, *options, "--", "sh", "-c", script)


@contextmanager
def started(views: Path, script: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sandbox whose script has said a line, so that it is known to run."""
    with subprocess.Popen(
        launcher(views, *options, "--", "sh", "-c", script), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            # A killed launcher could not clear up.
            if process.poll() is None:
                process.terminate()


def cgroup_directories(name: str) -> dict[str, Path]:
    """Where a sandbox's cgroup is or would be, by controller."""
    paths = {}
    for controller in (UNIFIED, "memory", "cpu", "cpuacct", "cpuset", "blkio", "pids"):
        directory = HIERARCHIES.directory(controller, CgroupPath(f"/procscope/{name}"))
        if directory is not None:
            paths[controller] = Path(directory)
    return paths


def value(directory: Path, *files: str) -> str:
    """The text of the first of `files` that is there: v1 and v2 name them differently."""
    return next((directory / file).read_text() for file in files if (directory / file).exists())


LOOP = "while :; do sleep 0.02; done"


def test_the_limits_are_in_the_cgroup_and_the_command_is_too(views: Path) -> None:
    options = ("-m", "64m", "--cpus", "0.5", "--cpuset-cpus", "1", "--name", "t-limits")
    with started(views, f"echo ready; {LOOP}", *options):
        directories = cgroup_directories("t-limits")
        memory, cpu = directories["memory"], directories["cpu"]
        assert value(memory, "memory.max", "memory.limit_in_bytes").strip() == str(64 << 20)
        assert value(cpu, "cpu.max", "cpu.cfs_quota_us").split()[0] == "50000"
        assert value(directories["cpuset"], "cpuset.cpus").strip() == "1"
        for directory in directories.values():
            # init and the shell at least, in every hierarchy
            assert len(cgroupfs.processes(str(directory))) >= 2


def test_a_quota_alone_tells_as_many_cpus_to_those_who_ask_the_kernel(views: Path) -> None:
    assert sh(views, "nproc", "--cpus", "0.5").stdout == b"1\n"


def test_swap_is_limited_where_the_kernel_accounts_it(views: Path) -> None:
    with started(views, f"echo ready; {LOOP}", "-m", "64m", "--name", "t-swap"):
        memory = cgroup_directories("t-swap")["memory"]
        files = {"memory.swap.max": 64 << 20, "memory.memsw.limit_in_bytes": 128 << 20}
        there = {name: size for name, size in files.items() if (memory / name).exists()}
        assert {name: int(value(memory, name)) for name in there} == there


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "exit 3"), 3, ""),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("sh", "-c", "kill -TERM $$"), 143, ""),
        (("no-such-command",), 127, "no-such-command: command not found"),
        (("/no/such/command",), 127, "command not found"),
        (("/etc/passwd",), 126, "cannot be executed: Permission denied"),
        (("/",), 126, "cannot be executed"),
    ],
)
def test_the_exit_code_is_the_commands(
    views: Path, command: tuple[str, ...], code: int, message: str
) -> None:
    ended = run(views, "--", *command)
    assert ended.returncode == code
    assert message in ended.stderr.decode()
    assert len(ended.stderr.splitlines()) == bool(message)


def test_a_script_without_a_first_line_is_told_what_it_lacks(views: Path) -> None:
    script = views / "script"
    script.write_text("echo\n")
    script.chmod(0o755)
    ended = run(views, "--", str(script))
    assert ended.returncode == 126
    assert b"#!/bin/sh" in ended.stderr
    script.write_text("#!/no/such/shell\n")
    ended = run(views, "--", str(script))
    assert ended.returncode == 127
    assert b"its interpreter is missing" in ended.stderr


def test_what_procscope_cannot_do_is_125(views: Path) -> None:
    for options in (("-w", "/no/such/dir"), ("-w", "/etc/passwd")):
        ended = run(views, *options, "--", "true")
        assert (ended.returncode, len(ended.stderr.splitlines())) == (125, 1)
    ended = run(views / "nowhere", "--", "true")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (125, 1)


def test_the_views_lie_over_the_files_read_only(views: Path) -> None:
    ended = sh(
        views,
        "cat /proc/meminfo /proc/uptime /sys/devices/system/cpu/online;"
        "echo x > /proc/meminfo || grep ' /proc/meminfo ' /proc/self/mountinfo;"
        "ls /proc/no_such_file",
    )
    lines = ended.stdout.decode().splitlines()
    assert lines[:2] == ["view of proc/meminfo", "view of proc/uptime"]
    assert lines[2] == "view of sys/devices/system/cpu/online"
    assert lines[3].split()[5].startswith("ro,nosuid,nodev,noexec")
    assert len(lines) == 4
    assert b"Read-only file system" in ended.stderr


def test_the_host_sees_none_of_the_mounts(views: Path) -> None:
    with started(views, f"echo ready; {LOOP}"):
        assert str(views) not in Path("/proc/self/mountinfo").read_text()
        assert not Path("/proc/meminfo").read_text().startswith("view of")


def test_the_command_is_alone_with_init(views: Path) -> None:
    """PID 1 is the init, the command is its first child, and no process of the host is there."""
    ended = sh(views, "echo $$ $PPID; cat /proc/1/comm; echo /proc/[0-9]*")
    lines = ended.stdout.decode().splitlines()
    assert lines == ["2 1", "procscope-init", "/proc/1 /proc/2"]


def test_hostname_workdir_and_environment(views: Path) -> None:
    options = ("--hostname", "inside", "-w", "/usr", "-e", "A=1 2", "-e", "HOME=/x", "-e", "PATH")
    ended = sh(views, 'uname -n; pwd; echo "$A" "$HOME"', *options)
    assert ended.stdout.decode().splitlines() == ["inside", "/usr", "1 2 /x"]
    assert os.uname().nodename != "inside"


def test_stdio_is_passed_through_untouched(views: Path) -> None:
    given = bytes(range(256)) * 4096
    ended = run(views, "--", "cat", given=given)
    assert ended.stdout == given


def test_the_end_of_an_output_is_seen_while_the_sandbox_runs_on(views: Path) -> None:
    """Neither init nor the launcher keeps a pipe of the command's open: `head` ends, `yes` dies."""
    ended = sh(views, "yes | head -1; exec >&-; echo done >&2")
    assert (ended.stdout, ended.stderr) == (b"y\n", b"done\n")


def test_no_descriptor_leaks_into_the_command(views: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.set_inheritable(reader, True)
        ended = subprocess.run(
            launcher(views, "--", "ls", "/proc/self/fd"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            pass_fds=(reader, writer),
        )
    finally:
        os.close(reader)
        os.close(writer)
    # 3 is the folder that ls has open.
    assert ended.stdout.split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT"])
def test_a_signal_to_the_launcher_reaches_the_command_once(views: Path, name: str) -> None:
    """The trap counts; USR1's comes last, after whatever was sent, and ends it."""
    other = "USR1" if name != "USR1" else "USR2"
    script = f"trap 'n=$((n+1))' {name}; trap 'exit $((10+n))' {other}; echo ready; n=0; {LOOP}"
    with started(views, script.replace("echo ready; n=0", "n=0; echo ready")) as process:
        process.send_signal(getattr(signal, f"SIG{name}"))
        # The shell is in `sleep` 0.02 s long: the second one waits for the first one's trap.
        process.send_signal(getattr(signal, f"SIG{other}"))
        assert process.wait() in (11, 10 + (name == other))


def test_orphans_are_reaped(views: Path) -> None:
    """Whatever loses its parent becomes init's, and leaves no zombie."""
    script = """
        for i in 1 2 3 4 5 6 7 8; do (sh -c true & ) ; done
        n=0
        while cat /proc/[0-9]*/status 2>/dev/null | grep -q '^State:.Z'; do
            n=$((n+1)); [ $n -lt 200 ] || exit 1; sleep 0.01
        done
    """
    assert sh(views, script).returncode == 0


def test_what_the_command_leaves_running_ends_with_it(views: Path) -> None:
    ended = sh(views, "setsid sleep 86.421 >/dev/null 2>&1 & exit 4")
    assert ended.returncode == 4
    assert "86.421" not in running()


def test_a_command_that_runs_out_of_memory_is_told_of(views: Path) -> None:
    options = ("-m", "16m", "--memory-swap", "16m", "--")
    ended = run(views, *options, sys.executable, "-c", "bytearray(10**8)")
    assert ended.returncode == 137
    assert b"for lack of memory: the limit is 16 MiB" in ended.stderr


def test_init_charges_the_sandbox_with_little(views: Path) -> None:
    """A 256 MiB machine must not look used when it starts: with init and a shell, below 4 MiB."""
    with started(views, f"echo ready; {LOOP}", "-m", "64m", "--name", "t-charge"):
        memory = cgroup_directories("t-charge")["memory"]
        assert int(value(memory, "memory.current", "memory.usage_in_bytes")) < 4 << 20


def test_a_name_in_use_is_refused_and_free_again_afterwards(views: Path) -> None:
    with started(views, f"echo ready; {LOOP}", "--name", "t-name"):
        ended = run(views, "--name", "t-name", "--", "true")
        assert ended.returncode == 125
        assert b"'t-name' is in use" in ended.stderr
        assert cgroup_directories("t-name")[UNIFIED].is_dir()
    assert run(views, "--name", "t-name", "--", "true").returncode == 0


@pytest.mark.parametrize("same_name", [True, False])
def test_a_killed_launcher_takes_the_sandbox_along_and_the_next_run_clears_up(
    views: Path, same_name: bool
) -> None:
    with started(views, "setsid sleep 86.422 & echo ready; wait", "--name", "t-killed") as process:
        process.kill()
        process.wait()
    directories = cgroup_directories("t-killed")
    # The kernel kills a PID namespace with its init; its end is not waited for by the kill.
    while any(cgroupfs.processes(str(directory)) for directory in directories.values()):
        os.sched_yield()
    assert "86.422" not in running()
    assert all(directory.is_dir() for directory in directories.values())
    name = "t-killed" if same_name else "t-other"
    assert run(views, "--name", name, "--", "true").returncode == 0
    assert not any(directory.exists() for directory in directories.values())


def test_many_at_once_do_not_disturb_each_other(views: Path) -> None:
    """Each run makes and removes the shared parent, and clears stale cgroups away."""
    processes = [
        subprocess.Popen(launcher(views, "-m", "32m", "--", "sh", "-c", f"exit {code}"))
        for code in range(12)
    ]
    assert [process.wait() for process in processes] == list(range(12))


def test_nothing_is_left(views: Path) -> None:
    assert run(views, "-m", "64m", "--name", "t-left", "--", "true").returncode == 0
    assert not any(directory.exists() for directory in cgroup_directories("t-left").values())
    assert str(views) not in Path("/proc/self/mountinfo").read_text()


def running() -> str:
    """The command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


class Terminal:
    """A program on a terminal of its own, as its session's leader."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            settings = {"PS1": "", "TERM": "dumb", "ENV": "", "HISTFILE": ""}
            os.execve(command[0], command, os.environ | settings | environment)
        self._output = b""
        self._code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            # The terminal hangs up, and whoever is left on it gets SIGHUP.
            os.close(self._master)
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)

    def until(self, text: str) -> None:
        """Read on until `text` is in what came since the last call."""
        while text.encode() not in self._output:
            self._output += os.read(self._master, 4096)
        self._output = self._output.split(text.encode(), 1)[1]

    def until_twice(self, text: str) -> None:
        """Read on until the echo of `text` and its copy have come, whatever is between them."""
        self.until(text)
        self.until(text)

    def type(self, text: str) -> None:
        """Type this."""
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """Read to the end and return the exit code."""
        with suppress(OSError):  # EIO: the last process has closed the terminal
            while os.read(self._master, 4096):
                pass
        self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._master)
        return self._code


def test_ctrl_c_reaches_the_command_once_and_the_launcher_lives(views: Path) -> None:
    script = f"trap 'n=$((n+1)); echo int' INT; trap 'exit $((20+n))' QUIT; n=0; echo ready; {LOOP}"
    with Terminal(launcher(views, "--", "sh", "-c", script)) as terminal:
        terminal.until("ready")
        terminal.type("\x03")
        terminal.until("int\r\n")
        terminal.type("\x1c")  # Ctrl-\\, SIGQUIT
        assert terminal.wait() == 21


def test_ctrl_c_in_a_pipeline_reaches_the_command_once(views: Path) -> None:
    """There the launcher and init are in the command's process group, and drop their copies."""
    loop = f"trap 'n=$((n+1))' INT; trap 'echo $((20+n)); exit' QUIT; n=0; echo ready; {LOOP}"
    script = f'{sys.executable} -c "$LAUNCHER" {views} -- sh -c "$LOOP" | (trap "" INT QUIT; cat)'
    with Terminal(["/bin/sh", "-ic", script], LAUNCHER=LAUNCHER, LOOP=loop) as terminal:
        terminal.until("ready")
        terminal.type("\x03")
        terminal.type("\x1c")
        terminal.until("21\r\n")


def test_an_interactive_shell_has_job_control(views: Path) -> None:
    with Terminal(launcher(views, "--", "sh", "-i")) as terminal:
        terminal.type("set -o | grep monitor\n")
        terminal.until("on\r\n")
        terminal.type("cat\n")
        terminal.type("one\n")
        terminal.until_twice("one\r\n")
        terminal.type("\x1a")  # Ctrl-Z stops cat, and only cat
        terminal.until("Stopped")
        terminal.type("echo $((50+3)); fg\n")
        terminal.until("53\r\n")
        terminal.until("cat\r\n")  # fg says what it goes on with
        terminal.type("two\n")
        terminal.until_twice("two\r\n")
        terminal.type("\x04")
        terminal.type("echo $((60+4))\n")
        terminal.until("64\r\n")
        terminal.type("exit 6\n")
        assert terminal.wait() == 6


def test_the_terminal_is_given_back_after_an_interactive_shell(views: Path) -> None:
    """Else the script that called it could not read from the terminal any more."""
    script = f'{sys.executable} -c "$LAUNCHER" {views} -- sh -i; echo ended $?; read x; echo got $x'
    with Terminal(["/bin/sh", "-c", script], LAUNCHER=LAUNCHER) as terminal:
        terminal.type("echo $((60+4)); exit 3\n")
        terminal.until("64\r\n")
        terminal.until("ended 3\r\n")
        terminal.type("yes\n")
        terminal.until("got yes")
        assert terminal.wait() == 0


def test_ctrl_z_stops_the_whole_job_and_fg_goes_on(views: Path) -> None:
    with Terminal(["/bin/sh", "-i"], LAUNCHER=LAUNCHER) as terminal:
        terminal.type(f'{sys.executable} -c "$LAUNCHER" {views} -- cat\n')
        terminal.type("one\n")
        terminal.until_twice("one\r\n")
        terminal.type("\x1a")
        terminal.until("Stopped")
        terminal.type("echo $((70+5)); fg\n")
        terminal.until("75\r\n")
        terminal.type("two\n")
        terminal.until_twice("two\r\n")
        terminal.type("\x04")
        terminal.type("exit 0\n")
        assert terminal.wait() == 0


def test_without_root_there_are_views_and_a_line_about_the_limits(views: Path) -> None:
    script = "cat /proc/meminfo; id -u; cat /proc/self/uid_map; echo $$; exit 9"
    ended = run(views, "-m", "64m", "--", "sh", "-c", script, TEST_USER=str(USER))
    assert ended.returncode == 9
    lines = ended.stdout.decode().split()
    assert lines == ["view", "of", "proc/meminfo", "0", "0", str(USER), "1", "2"]
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith("not limited: --memory: ")
    if HIERARCHIES.version("memory") == 1:
        assert line.endswith("the limits are in cgroup v1 hierarchies, which only root may change")
    else:
        assert line.endswith("is not delegated to this user")


def test_without_root_the_exit_codes_are_the_same(views: Path) -> None:
    for command, code in (
        (["no-such"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill $$"], 143),
    ):
        assert run(views, "--", *command, TEST_USER=str(USER)).returncode == code


def test_without_root_a_delegated_cgroup_is_used_where_it_can_limit(views: Path) -> None:
    top = HIERARCHIES.directory(UNIFIED, CgroupPath("/"))
    own = HIERARCHIES.directory(UNIFIED, CgroupPath("/t-delegated"))
    assert top is not None
    assert own is not None
    os.mkdir(own)
    try:
        for controller in cgroupfs.read(top, "cgroup.controllers").split():
            cgroupfs.write(top, "cgroup.subtree_control", f"+{controller}")
        for path in (own, f"{own}/cgroup.procs", f"{own}/cgroup.subtree_control"):
            os.chown(path, USER, USER)
        enter = ["/bin/sh", "-c", f'echo $$ > {own}/cgroup.procs; exec "$@"', "-"]
        script = "sed -n 's/^0:://p' /proc/self/cgroup"
        ended = subprocess.run(
            [*enter, *launcher(views, "-m", "64m", "--name", "t-user", "--", "sh", "-c", script)],
            capture_output=True,
            check=False,
            env=os.environ | {"TEST_USER": str(USER)},
        )
    finally:
        cgroupfs.remove(own)
    assert ended.returncode == 0
    if HIERARCHIES.version("memory") == 2:
        assert ended.stdout == b"/t-delegated/procscope/t-user\n"
        assert ended.stderr == b""
    else:
        assert ended.stdout == b"/t-delegated\n"
        assert b"cgroup v1 hierarchies" in ended.stderr
