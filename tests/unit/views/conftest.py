"""Properties are judged by their answer, not by the clock: a busy machine must not fail them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("views", deadline=None)
settings.load_profile("views")
