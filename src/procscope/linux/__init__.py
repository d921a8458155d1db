"""What Linux gives: system calls by ctypes, and parsers of small /proc and /sys formats.

The root of /proc, /sys or cgroupfs is always a parameter.
"""
