"""procscope in a real Kubernetes of one node, which `tests.cluster.harness` starts here."""
