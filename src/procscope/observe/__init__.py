"""Reads what a view needs (host files, the cgroup, its tasks) and calls the view.

Here input meets formula. The formulas are in `procscope.views`, the kernel files of a cgroup in
`procscope.cgroup`.
"""
