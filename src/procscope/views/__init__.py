"""The virtual files: one module each, every one a pure function from plain data to bytes.

No I/O, no clock, no globals: each formula is tested with recorded data and without root.
"""
