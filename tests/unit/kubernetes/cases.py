"""What pods are given: one table, for the webhook and for the policy, whose rules are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from procscope.inject.docker import DEFAULT_FILES
from procscope.kubernetes.settings import Settings
from procscope.tree.sources import Pinned
from tests.unit.kubernetes.objects import OPT_IN, container, pod

EVERY: Final = tuple("/" + file for file in DEFAULT_FILES)
PROC: Final = tuple(path for path in EVERY if path.startswith("/proc/"))
CPU: Final = ("/sys/devices/system/cpu",)
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
INJECT: Final = "procscope.io/inject"
LXCFS: Final = "initializer.kubernetes.io/lxcfs"
FILES: Final = "procscope.io/files"
PINNED: Final = "procscope.io/pinned"

DEFAULT: Final = Settings()
ALL: Final = Settings(require_annotation=False)
STRICT: Final = Settings(
    default_pod_security_level="baseline", pod_security_exempt=("exempt-*", "trusted")
)
OTHER: Final = Settings(
    mountpoint="/srv/views",
    files=("proc/slabinfo", "proc/stat"),
    pinned=Pinned.NONE,
    annotations=("example.com/views", "views"),
    sandboxed_runtime_classes=("vm.*",),
    allow_user_namespaces=True,
)


@dataclass(frozen=True)
class Case:
    """A pod that is created, and the paths that are mounted into each of its containers."""

    name: str
    pod: dict[str, Any]
    given: dict[str, Sequence[str]]
    settings: Settings = DEFAULT
    namespace: str = "shop"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    pinned: Pinned | None = None
    """What comes from the pinned tree; None: what the settings say."""

    @property
    def pinned_paths(self) -> set[str]:
        """Where files of the pinned tree are mounted."""
        pinned = self.settings.pinned if self.pinned is None else self.pinned
        paths = {path for given in self.given.values() for path in given}
        return {path for path in paths if pinned.source(path[1:]) != path[1:]}


def _spec(name: str, given: Sequence[str], settings: Settings = DEFAULT, **spec: object) -> Case:
    return Case(name, pod(OPT_IN, **spec), {"web": given}, settings)


def _asked(
    name: str,
    given: Sequence[str],
    asked: dict[str, str],
    settings: Settings = DEFAULT,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    namespace: str = "shop",
) -> Case:
    return Case(
        name, pod(asked), {"web": given}, settings, namespace, labels or {}, annotations or {}
    )


def _pinning(
    name: str, pinned: Pinned, asked: dict[str, str], annotations: dict[str, str] | None = None
) -> Case:
    given = ("/proc/cpuinfo", "/proc/stat", *CPU)
    chosen = {**OPT_IN, FILES: "cpuinfo,stat,sys/devices/system/cpu", **asked}
    return Case(name, pod(chosen), {"web": given}, annotations=annotations or {}, pinned=pinned)


def _mounting(name: str, given: Sequence[str], *paths: str) -> Case:
    mounts = [{"name": "data", "mountPath": path} for path in paths]
    spec = {
        "containers": [container(volumeMounts=mounts)],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    return Case(name, pod(OPT_IN, **spec), {"web": given})


def _required(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def _node(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


def _volume(name: str, path: str, kind: str) -> dict[str, Any]:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


_WINDOWS: Final = _node("kubernetes.io/os", "windows")
_LINUX: Final = _node("kubernetes.io/os", "linux")
_RESTRICTED: Final = container(
    securityContext={
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
)
_STAT: Final = "/var/lib/procscope/mount/proc/stat"

CASES: Final = [
    Case(
        "every kind of container",
        pod(
            OPT_IN,
            initContainers=[container("setup"), container("sidecar", restartPolicy="Always")],
            containers=[container("web"), container("log")],
        ),
        dict.fromkeys(("setup", "sidecar", "web", "log"), EVERY),
    ),
    Case("nobody asks", pod(), {"web": ()}),
    Case("everybody is injected", pod(), {"web": EVERY}, ALL),
    # Who decides.
    _asked("the article's annotation", EVERY, {LXCFS: "true"}),
    _asked("an opt-out", (), {INJECT: "false"}, ALL),
    _asked("an opt-out by the article's annotation", (), {LXCFS: "false"}, ALL),
    _asked("the first annotation decides", (), {INJECT: "false", LXCFS: "true"}),
    _asked("a value that is no word", (), {INJECT: "yes"}, ALL),
    _asked("a value that is no word, before one that is", (), {INJECT: "", LXCFS: "true"}),
    _asked("a namespace that asks", EVERY, {}, labels={INJECT: "true"}),
    _asked("a namespace that is opted out", (), {}, ALL, {INJECT: "false"}),
    _asked("a label that is no word", (), {}, ALL, {INJECT: "on"}),
    _asked("a pod against its namespace", (), {INJECT: "false"}, labels={INJECT: "true"}),
    _asked("a pod against its namespace's no", EVERY, OPT_IN, labels={INJECT: "false"}),
    _asked("a namespace that is left out", (), OPT_IN, namespace="kube-system"),
    _asked("other annotations", ("/proc/stat", "/proc/slabinfo"), {"views": "true"}, OTHER),
    _asked("and the first of them", (), {"example.com/views": "0", "views": "true"}, OTHER),
    _asked("an annotation that is not accepted", (), {LXCFS: "true"}, OTHER),
    # Which files.
    _asked(
        "chosen files", ("/proc/cpuinfo", "/proc/meminfo"), {**OPT_IN, FILES: "meminfo,cpuinfo"}
    ),
    _asked(
        "names as people write them",
        ("/proc/meminfo", "/proc/stat", "/proc/uptime", *CPU),
        {**OPT_IN, FILES: " /proc/stat ,, proc/uptime/,meminfo, /sys/devices/system/cpu/"},
    ),
    _asked("unknown files", ("/proc/stat",), {**OPT_IN, FILES: "vmstat,stat,cpu,.*,proc//swaps"}),
    _asked("unknown files alone", (), {**OPT_IN, FILES: "vmstat"}),
    _asked("an empty choice", EVERY, {**OPT_IN, FILES: " , "}),
    _asked("a choice of the namespace", ("/proc/stat",), OPT_IN, annotations={FILES: "stat"}),
    _asked(
        "the pod's before the namespace's",
        ("/proc/swaps",),
        {**OPT_IN, FILES: "swaps"},
        annotations={FILES: "stat"},
    ),
    # From where.
    _pinning("what follows the limits is pinned", Pinned.LIMITS, {}),
    _pinning("everything pinned", Pinned.ALL, {PINNED: "all"}),
    _pinning("nothing pinned", Pinned.NONE, {PINNED: " none "}),
    _pinning("a word for pinning that there is not", Pinned.NONE, {PINNED: "ALL"}),
    _pinning("no word for pinning", Pinned.ALL, {PINNED: " "}, {PINNED: "all"}),
    _pinning("pinning, by the namespace", Pinned.NONE, {}, {PINNED: "none"}),
    _pinning("pinning, the pod first", Pinned.LIMITS, {PINNED: "limits"}, {PINNED: "all"}),
    # What is in the way.
    _mounting("a file of its own", tuple(p for p in EVERY if p != "/proc/stat"), "/proc/stat"),
    _mounting("a needless slash", tuple(p for p in EVERY if p != "/proc/stat"), "/proc/stat/"),
    _mounting("no leading slash", tuple(p for p in EVERY if p != "/proc/stat"), "proc/stat"),
    _mounting("all of /proc", CPU, "/proc"),
    _mounting("all of /sys", PROC, "/sys"),
    _mounting("a file below the CPU folder", PROC, "/sys/devices/system/cpu/online"),
    _mounting("the root", (), "/"),
    _mounting(
        "names that only begin alike", EVERY, "/process", "/proc/stat2", "/sys/devices/system/c"
    ),
    Case(
        "each container by itself",
        pod(
            OPT_IN,
            containers=[
                container("a", volumeMounts=[{"name": "data", "mountPath": "/proc"}]),
                container("b"),
            ],
            volumes=[{"name": "data", "emptyDir": {}}],
        ),
        {"a": CPU, "b": EVERY},
    ),
    _spec("a volume that is ours", EVERY, volumes=[_volume("procscope-proc-stat", _STAT, "File")]),
    # What could not start.
    _spec("Windows", (), os={"name": "windows"}),
    _spec("Linux", EVERY, os={"name": "linux"}),
    _spec("a Windows node", (), nodeSelector={"kubernetes.io/os": "windows"}),
    _spec(
        "a Windows node, as it was called", (), nodeSelector={"beta.kubernetes.io/os": "windows"}
    ),
    _spec("a Linux node", EVERY, nodeSelector={"kubernetes.io/os": "linux", "a": "windows"}),
    _spec("affine to Windows", (), affinity=_required([_node("a", "b"), _WINDOWS], [_WINDOWS])),
    _spec("affine to both", EVERY, affinity=_required([_WINDOWS], [_LINUX])),
    _spec(
        "affine to either",
        EVERY,
        affinity=_required([_node("kubernetes.io/os", "linux", "windows")]),
    ),
    _spec("affine to nodes", EVERY, affinity=_required([_node("a", "b")])),
    _spec("affine to pods", EVERY, affinity={"podAffinity": {}}),
    _spec("Kata", (), runtimeClassName="kata-qemu"),
    _spec("gVisor", (), runtimeClassName="gvisor"),
    _spec("another runtime class", EVERY, runtimeClassName="not-kata"),
    _spec("a configured sandbox", (), OTHER, runtimeClassName="vm.small"),
    _spec(
        "not a configured sandbox", ("/proc/stat", "/proc/slabinfo"), OTHER, runtimeClassName="kata"
    ),
    _spec("a user namespace", (), hostUsers=False),
    _spec("the host's user namespace", EVERY, hostUsers=True),
    _spec("an allowed user namespace", ("/proc/stat", "/proc/slabinfo"), OTHER, hostUsers=False),
    _spec("the host's namespaces", EVERY, hostPID=True, hostNetwork=True, hostIPC=True),
    _spec("a shared process namespace", EVERY, shareProcessNamespace=True),
    _spec("node-critical", EVERY, priorityClassName="system-node-critical"),
    Case(
        "node-critical by default", pod(priorityClassName="system-node-critical"), {"web": ()}, ALL
    ),
    _asked("a namespace that enforces baseline", (), OPT_IN, labels={ENFORCE: "baseline"}),
    Case(
        "a namespace that enforces restricted",
        pod(OPT_IN, containers=[_RESTRICTED]),
        {"web": ()},
        labels={ENFORCE: "restricted"},
    ),
    _asked("a privileged namespace", EVERY, OPT_IN, STRICT, {ENFORCE: "privileged"}),
    _asked("a strict default", (), OPT_IN, STRICT),
    _asked("an exempt namespace", EVERY, OPT_IN, STRICT, namespace="trusted"),
    _asked("an exempt pattern", EVERY, OPT_IN, STRICT, namespace="exempt-1"),
    _asked("not an exempt pattern", (), OPT_IN, STRICT, namespace="exempt"),
]
