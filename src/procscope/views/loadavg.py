"""`/proc/loadavg`: the kernel's fixed-point averages, over a container's tasks.

The arithmetic is that of calc_load(), fixed_power_int() and calc_load_n() in the kernel's
`include/linux/sched/loadavg.h` and `kernel/sched/loadavg.c`, the text that of
loadavg_proc_show() in `fs/proc/loadavg.c`.
"""

from __future__ import annotations

from procscope.values import frozen

SAMPLE_INTERVAL_SECONDS = 5
"""The constants below hold for one sample in this interval."""

_FSHIFT = 11
_FIXED_1 = 1 << _FSHIFT
_EXP_1 = 1884
_EXP_5 = 2014
_EXP_15 = 2037
_ROUNDING = _FIXED_1 // 200
"""Half of 0.01, so that two decimals are rounded and not cut off."""


@frozen
class Load:
    """The averages over 1, 5 and 15 minutes; 2048 is a load of 1."""

    one: int = 0
    five: int = 0
    fifteen: int = 0


def decay(load: Load, active: int) -> Load:
    """Return the averages one interval later, `active` tasks having run or waited in it."""
    return decay_n(load, active, 1)


def decay_n(load: Load, active: int, intervals: int) -> Load:
    """Return the averages `intervals` later, with `active` tasks in each of them."""
    if intervals <= 0:
        return load
    fixed_active = max(0, active) * _FIXED_1
    return Load(
        _calc_load(load.one, _fixed_power(_EXP_1, intervals), fixed_active),
        _calc_load(load.five, _fixed_power(_EXP_5, intervals), fixed_active),
        _calc_load(load.fifteen, _fixed_power(_EXP_15, intervals), fixed_active),
    )


def render(load: Load, running: int, total: int, newest_pid: int) -> bytes:
    """Return the file: three averages, running/all threads, the newest pid.

    The reader itself is running, so `running` and `total` are shown as at least 1.
    """
    running = max(1, running)
    return b"%s %s %s %d/%d %d\n" % (
        _two_decimals(load.one),
        _two_decimals(load.five),
        _two_decimals(load.fifteen),
        running,
        max(running, total),
        newest_pid,
    )


def _calc_load(load: int, exp: int, active: int) -> int:
    new_load = load * exp + active * (_FIXED_1 - exp)
    if active >= load:
        # Rounds up while rising, so that the average reaches a steady load.
        new_load += _FIXED_1 - 1
    return new_load // _FIXED_1


def _fixed_power(base: int, exponent: int) -> int:
    """Return `base` to the power of `exponent`, both sides in fixed point."""
    result = _FIXED_1
    while True:
        if exponent & 1:
            result = _fixed_multiply(result, base)
        exponent >>= 1
        if not exponent:
            return result
        base = _fixed_multiply(base, base)


def _fixed_multiply(a: int, b: int) -> int:
    return (a * b + (1 << (_FSHIFT - 1))) >> _FSHIFT


def _two_decimals(average: int) -> bytes:
    rounded = average + _ROUNDING
    fraction = ((rounded & (_FIXED_1 - 1)) * 100) >> _FSHIFT
    return b"%d.%02d" % (rounded >> _FSHIFT, fraction)
