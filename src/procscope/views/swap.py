"""How much swap space a container has: the fact that `meminfo` and `swaps` share."""

from __future__ import annotations

from procscope.cgroup.model import Missing, Swap, SwapV1, SwapV2
from procscope.values import frozen
from procscope.views.text import clamp


@frozen
class SwapSpace:
    """Swap space of the container's machine; `used_bytes` is never above `total_bytes`."""

    total_bytes: int
    used_bytes: int


def swap_space(swap: Swap, host_total_bytes: int) -> SwapSpace:
    """Return the container's swap space, never above what the host has.

    cgroup v2 limits swap itself. cgroup v1 limits memory and swap together, so the space is
    what that limit leaves above the memory limit; with `swappiness` 0 the kernel swaps nothing
    out anew, so the space is what is used already.

    Where swap is not accounted, how much is used is not known and the space is 0.
    """
    if isinstance(swap, Missing):
        return SwapSpace(0, 0)
    if isinstance(swap, SwapV2):
        used_bytes = swap.usage_bytes
        total_bytes = _total_v2(swap, host_total_bytes)
    else:
        used_bytes = swap.memsw_usage_bytes - swap.memory_usage_bytes
        total_bytes = _total_v1(swap, used_bytes, host_total_bytes)
    total_bytes = clamp(total_bytes, host_total_bytes)
    return SwapSpace(total_bytes, clamp(used_bytes, total_bytes))


def _total_v2(swap: SwapV2, host_total_bytes: int) -> int:
    if isinstance(swap.limit_bytes, Missing):
        return host_total_bytes
    return swap.limit_bytes


def _total_v1(swap: SwapV1, used_bytes: int, host_total_bytes: int) -> int:
    if swap.swappiness == 0:
        return used_bytes
    if isinstance(swap.memsw_limit_bytes, Missing):
        return host_total_bytes
    if isinstance(swap.memory_limit_bytes, Missing):
        # Memory alone may fill the common limit, so none of it is surely swap.
        return used_bytes
    return swap.memsw_limit_bytes - swap.memory_limit_bytes
