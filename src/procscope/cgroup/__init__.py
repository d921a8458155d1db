"""Limits, usage and counters of a cgroup, the same frozen data for v1, v2 and hybrid.

Reads kernel files only. No formula is here: what a value means for a view is not known to this
layer. `model` is pure data and is all that views may import.
"""
