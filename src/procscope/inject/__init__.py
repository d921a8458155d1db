"""How containers get the views: before they start, and while they run.

`docker` makes the options for a container that is to be started. `attach` is for those that run:
it mounts the views in them from outside, takes them away, and repairs what a dead daemon left.
"""
