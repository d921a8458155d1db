"""What a node agent tells over HTTP: whether it lives, whether its files are right, and counts.

A process of its own, with threads: nothing of it can keep the supervisor from its work.
"""
