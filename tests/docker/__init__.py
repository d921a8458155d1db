"""Containers of a real Docker engine, with the views mounted as `docker run -v` mounts them."""
