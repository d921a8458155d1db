"""How another runtime is told to mount the views before a container starts."""
