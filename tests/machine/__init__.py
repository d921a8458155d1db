"""The machine level: tests that boot a real Debian machine with pure cgroup v2."""
