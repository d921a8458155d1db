"""`/sys/devices/system/cpu`: what is hidden and which files are cut to the visible CPUs.

Paths are relative to that folder and have no leading slash. What no rule names is the host's.
The files are described in the kernel's `Documentation/ABI/testing/sysfs-devices-system-cpu` and
`Documentation/admin-guide/cputopology.rst`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from procscope.ids import CpuId
from procscope.linux.cpulist import cut_cpumask, format_cpulist, parse_cpulist
from procscope.views.text import unsigned

_Visible = Collection[CpuId]
_CPU_FOLDER = re.compile(r"cpu(\d+)(?:/|\Z)", re.ASCII)
_POLICY_FOLDER = re.compile(r"(cpufreq/policy\d+)(?:/|\Z)", re.ASCII)


def is_hidden(relative_path: str, visible: _Visible, related_cpus: bytes | None = None) -> bool:
    """Return whether the container has no such path: the folder of a CPU that it does not see.

    A frequency policy (`cpufreq/policyN`) belongs to all CPUs in its file `related_cpus`, whose
    path `related_cpus_path` gives; it is hidden when none of them is visible. Where the file is
    not given or no list of CPUs, the policy stays, so that a visible CPU's link to it is not left
    dangling.
    """
    if folder := _CPU_FOLDER.match(relative_path):
        return int(folder[1]) not in visible
    if related_cpus is not None and _POLICY_FOLDER.match(relative_path):
        try:
            return not any(cpu in visible for cpu in _parse_words(related_cpus))
        except ValueError:
            return False
    return False


def related_cpus_path(relative_path: str) -> str | None:
    """Return the path of the file that tells whose frequency policy this is, None if none's."""
    policy = _POLICY_FOLDER.match(relative_path)
    return f"{policy[1]}/related_cpus" if policy else None


def visible_list(relative_path: str, visible: _Visible) -> bytes | None:
    """Return the content of a file that tells of the visible CPUs alone; None for all others."""
    return _visible_list(b"", visible) if relative_path in _VISIBLE_LISTS else None


def render(relative_path: str, host: bytes, visible: _Visible) -> bytes:
    """Return the container's content of a file that the host has with content `host`.

    Raises ValueError where the file is one of those that are cut and `host` is not in its format.
    """
    for pattern, rule in _RULES:
        if pattern.fullmatch(relative_path):
            return rule(host, visible)
    return host


def _visible_list(host: bytes, visible: _Visible) -> bytes:
    del host  # The container's machine has these CPUs whatever the host's has.
    return f"{format_cpulist(visible)}\n".encode()


def _nothing(host: bytes, visible: _Visible) -> bytes:
    del host, visible
    return b"\n"


def _cut_list(host: bytes, visible: _Visible) -> bytes:
    cpus = parse_cpulist(host.decode("ascii"))
    return f"{format_cpulist(cpu for cpu in cpus if cpu in visible)}\n".encode()


def _cut_optional_list(host: bytes, visible: _Visible) -> bytes:
    """Kernels without nohz_full= print an unallocated mask, which reads `(null)`."""
    return host if host.strip() == b"(null)" else _cut_list(host, visible)


def _cut_mask(host: bytes, visible: _Visible) -> bytes:
    return f"{cut_cpumask(host.decode('ascii'), visible)}\n".encode()


def _cut_words(host: bytes, visible: _Visible) -> bytes:
    return b" ".join(b"%d" % cpu for cpu in _parse_words(host) if cpu in visible) + b"\n"


def _parse_words(text: bytes) -> list[CpuId]:
    return [CpuId(unsigned(word)) for word in text.split()]


_GROUP = "(?:core|thread|book|drawer)_siblings|(?:core|cluster|die|package)_cpus"
_POLICY = r"(?:cpufreq/policy\d+|cpu\d+/cpufreq)"

_VISIBLE_LISTS = ("online", "present", "possible")
_RULES: tuple[tuple[re.Pattern[str], Callable[[bytes, _Visible], bytes]], ...] = (
    (re.compile("|".join(_VISIBLE_LISTS)), _visible_list),
    (re.compile("offline"), _nothing),
    (re.compile("enabled|isolated"), _cut_list),
    (re.compile("nohz_full"), _cut_optional_list),
    (re.compile(rf"cpu\d+/topology/(?:{_GROUP})_list"), _cut_list),
    (re.compile(rf"cpu\d+/topology/(?:{_GROUP})"), _cut_mask),
    (re.compile(r"cpu\d+/cache/index\d+/shared_cpu_list"), _cut_list),
    (re.compile(r"cpu\d+/cache/index\d+/shared_cpu_map"), _cut_mask),
    (re.compile(rf"{_POLICY}/(?:affected|related|freqdomain)_cpus"), _cut_words),
)
