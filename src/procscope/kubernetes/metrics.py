"""What the webhook counts and measures, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# A second series for each, that says when it was made, and that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_KINDS: Final = frozenset(
    ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
)
_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The metrics of one process. Names begin with `procscope_webhook_`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        # Memory, CPU time and descriptors, as `process_…`.
        ProcessCollector(registry=registry)
        self._registry = registry
        self._admissions = Counter(
            "procscope_webhook_admissions",
            "Admission requests answered, by kind of object, what became of it, and why.",
            ("kind", "outcome", "reason"),
            registry=registry,
        )
        self._duration = Histogram(
            "procscope_webhook_admission_duration_seconds",
            "Time from a whole request to its response.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "procscope_webhook_errors",
            "Things that went wrong: review (object admitted unchanged), request (answered 4xx), "
            "namespace (facts unknown), cluster (API server did not do what was asked), "
            "certificate (could not be used).",
            ("what",),
            registry=registry,
        )
        for what in ("review", "request", "namespace", "cluster", "certificate"):
            self._errors.labels(what)
        self._expiry = Gauge(
            "procscope_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends; 0 while there is none.",
            registry=registry,
        )
        self._reloads = Counter(
            "procscope_webhook_certificate_reloads",
            "Certificates that were taken into use, the first one included.",
            registry=registry,
        )
        self._leader = Gauge(
            "procscope_webhook_leader",
            "1 on the replica that makes and renews the certificates.",
            registry=registry,
        )
        self._ready = Gauge(
            "procscope_webhook_ready", "1 while /readyz says so.", registry=registry
        )

    def admitted(self, kind: str, outcome: str, reason: str, duration_s: float) -> None:
        """Count an admission; kinds that no rule asks for are counted as `other`."""
        self._admissions.labels(kind if kind in _KINDS else "other", outcome, reason).inc()
        self._duration.observe(duration_s)

    def failed(self, what: str) -> None:
        """Count something that went wrong."""
        self._errors.labels(what).inc()

    def certificate_loaded(self, expiry_s: float) -> None:
        """Note the certificate that is served from now on, by the time of its end."""
        self._expiry.set(expiry_s)
        self._reloads.inc()

    def set_leader(self, leading: bool) -> None:
        """Note whether this replica leads."""
        self._leader.set(1 if leading else 0)

    def render(self, *, ready: bool) -> bytes:
        """Return everything in Prometheus' text format."""
        self._ready.set(1 if ready else 0)
        return generate_latest(self._registry)
