"""Prometheus' text format 0.0.4: facts in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from procscope.values import frozen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class Metric:
    """One number, and what it means."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] | None = None

    @property
    def type(self) -> str:
        """`counter` by its name, as the format's conventions have it; else `gauge`."""
        return "counter" if self.name.endswith("_total") else "gauge"


_OF_STATUS = (
    ("procscope_process_deaths_total", "deaths", "Processes of the agent that had to be replaced."),
    ("procscope_containers", "containers", "Containers that are known."),
    ("procscope_start_time_seconds", "started_at_s", "When this agent began to serve."),
    ("procscope_healed_files_total", "healed_files", "Dead files of containers replaced."),
    (
        "procscope_given_back_files_total",
        "given_back_files",
        "Files that containers got back after a planned stop.",
    ),
    (
        "procscope_fallbacks_total",
        "fallbacks",
        "Files of containers that were answered with the host's bytes.",
    ),
)


def collect(version: str, *, ready: bool, status: Mapping[str, object] | None) -> list[Metric]:
    """Return what is to be told; `status` is the supervisor's own, None while it does not serve."""
    found = [
        Metric("procscope_build_info", "The version that runs.", 1, {"version": version}),
        Metric("procscope_serving", "Whether this agent serves the mount.", status is not None),
        Metric("procscope_ready", "Whether reads through the mount are right.", ready),
    ]
    if status is None:
        return found
    workers = status.get("workers")
    if isinstance(workers, list):
        found.append(Metric("procscope_workers", "Processes that answer requests.", len(workers)))
    connected = status.get("keeper") is not None
    found.append(
        Metric("procscope_keeper_connected", "Whether a keeper holds the descriptors.", connected)
    )
    pinned = status.get("pinned")
    found.append(
        Metric("procscope_pinned_serving", "Whether there is a pinned tree.", pinned is not None)
    )
    if isinstance(pinned, Mapping):
        found.append(
            Metric(
                "procscope_pinned_outside_lookups_total",
                "Paths into the pinned tree that were walked from no container.",
                int(pinned["outsiders"]),
            )
        )
    for name, key, help_ in _OF_STATUS:
        value = status.get(key)
        if isinstance(value, (int, float)):
            found.append(Metric(name, help_, value))
    return found


def render(metrics: Iterable[Metric]) -> str:
    """Return the text."""
    return "".join(_lines(metric) for metric in metrics)


def _lines(metric: Metric) -> str:
    labels = ",".join(f'{name}="{_quoted(text)}"' for name, text in (metric.labels or {}).items())
    series = f"{metric.name}{{{labels}}}" if labels else metric.name
    value = int(metric.value) if float(metric.value).is_integer() else metric.value
    return (
        f"# HELP {metric.name} {metric.help}\n"
        f"# TYPE {metric.name} {metric.type}\n"
        f"{series} {value}\n"
    )


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
