"""Which container a process is in, and what people call that container."""
