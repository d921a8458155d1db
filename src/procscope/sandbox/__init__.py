"""`procscope run`: a command in its own cgroup and namespaces, the views mounted over its /proc."""
