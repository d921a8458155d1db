"""Measurements of procscope beside lxcfs and the kernel, on the machine that runs them.

Nothing here fails by the clock: the programs report.
"""
