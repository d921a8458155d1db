"""The long-running side: supervisor, workers and what they share.

One process owns the mount and never touches a request; the workers it forks answer them. Contents
of open files, CPU ledgers and load averages are shared, so that any worker can answer any request.
"""
