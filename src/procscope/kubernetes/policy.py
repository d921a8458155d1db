"""Injection with no webhook: a MutatingAdmissionPolicy, which the API server carries out itself.

For clusters of Kubernetes 1.36 and later (admissionregistration.k8s.io/v1). Who decides, which
files there are and what is in a mount's way are the rules of `decision`, `refusals` and `mounts`,
written in CEL and made from the same `Settings`. What a policy cannot do, and the webhook can:

- warn the person at kubectl: a pod that cannot be injected just is not, without a status. An
  unknown name in `procscope.io/files` is left out in silence, an unknown word in
  `procscope.io/pinned` means none;
- carry annotations from a workload: they have to be on the template of the pods;
- tell which containers keep mounts of their own, or leave out a volume that none of them uses;
- give its volume another name where a pod has one of that name: the file is left out then;
- see through `..` in a mount's path;
- ephemeral containers: they would need a policy of their own.

Webhook and policy may be installed together: what the one has added, the other leaves alone.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from procscope.inject.docker import MOUNTABLE
from procscope.kubernetes import mounts
from procscope.kubernetes.refusals import (
    MIRROR_ANNOTATION,
    NODE_CRITICAL,
    OS_LABELS,
    POD_SECURITY_LABEL,
    glob_expression,
)
from procscope.kubernetes.settings import FILES, INJECT, PINNED, STATUS, Settings
from procscope.tree.sources import Pinned

API_VERSION: Final = "admissionregistration.k8s.io/v1"

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def documents(settings: Settings, name: str = "procscope") -> list[dict[str, Any]]:
    """The policy and its binding, as objects for YAML."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": _spec(settings),
        },
        {
            "apiVersion": API_VERSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    ]


def _spec(settings: Settings) -> dict[str, Any]:
    return {
        # A pod is never kept from starting.
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": _constraints(settings),
        "matchConditions": _named(_conditions(settings)),
        "variables": _named(_variables(settings)),
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": expression},
            }
            for expression in (_POD, _containers("containers"), _containers("initContainers"))
        ],
    }


def _named(expressions: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "expression": text} for name, text in expressions.items()]


def _constraints(settings: Settings) -> dict[str, Any]:
    constraints: dict[str, Any] = {
        "resourceRules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
            }
        ]
    }
    if settings.excluded_namespaces:
        excluded = {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": sorted(settings.excluded_namespaces),
        }
        constraints["namespaceSelector"] = {"matchExpressions": [excluded]}
    return constraints


def _conditions(settings: Settings) -> dict[str, str]:
    """What the pod alone tells; the namespace cannot be asked here."""
    is_windows = f"e.key in {_cel(OS_LABELS)} && e.operator == 'In' && e.values == ['windows']"
    conditions = {
        "not-windows": "object.spec.?os.?name.orValue('') != 'windows'",
        "not-selecting-windows": (
            f"!{_cel(OS_LABELS)}.exists(l, object.spec.?nodeSelector[?l].orValue('') == 'windows')"
        ),
        "not-affine-to-windows": (
            f"!object.spec.?affinity.?nodeAffinity.?{_REQUIRED}.hasValue()"
            f" || !object.spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms.all(t,"
            f" t.?matchExpressions.orValue([]).exists(e, {is_windows}))"
        ),
        "not-a-mirror": f"!object.metadata.?annotations[?{_cel(MIRROR_ANNOTATION)}].hasValue()",
    }
    if settings.sandboxed_runtime_classes:
        sandboxes = _cel(glob_expression(settings.sandboxed_runtime_classes))
        conditions["not-a-sandbox"] = (
            f"!object.spec.?runtimeClassName.orValue('').matches({sandboxes})"
        )
    if not settings.allow_user_namespaces:
        conditions["not-in-a-user-namespace"] = "object.spec.?hostUsers.orValue(true) != false"
    return conditions


def _variables(settings: Settings) -> dict[str, str]:
    inject, files, pinned = _cel(INJECT), _cel(FILES), _cel(PINNED)
    level = (
        f"variables.labels[?{_cel(POD_SECURITY_LABEL)}]"
        f".orValue({_cel(settings.default_pod_security_level)}) == 'privileged'"
    )
    if settings.pod_security_exempt:
        exempt = _cel(glob_expression(settings.pod_security_exempt))
        level += f" || namespaceObject.metadata.name.matches({exempt})"
    return {
        "annotations": "object.metadata.?annotations.orValue({})",
        "labels": "namespaceObject.metadata.?labels.orValue({})",
        "own": f"{_cel(settings.inject_annotations)}.filter(n, n in variables.annotations)",
        "word": (
            "variables.own.size() > 0 ? variables.annotations[variables.own[0]]"
            f" : variables.labels[?{inject}].orValue("
            f"{_cel('false' if settings.require_annotation else 'true')})"
        ),
        "allowed": level,
        # What the agent itself may have to wait for must not wait for it.
        "waitable": (
            "variables.own.size() > 0"
            f" || object.spec.?priorityClassName.orValue('') != {_cel(NODE_CRITICAL)}"
        ),
        "wanted": "variables.word == 'true' && variables.allowed && variables.waitable",
        "named": (
            f"[variables.annotations[?{files}].orValue(''),"
            f" namespaceObject.metadata.?annotations[?{files}].orValue('')]"
            ".map(s, s.split(',').map(n, n.trim()).filter(n, n != ''))"
            ".filter(l, l.size() > 0)"
        ),
        "served": _cel([_row(file, settings) for file in MOUNTABLE]),
        "chosen": (
            "variables.served.filter(f, variables.named.size() > 0"
            " ? variables.named[0].exists(n, n.matches(f.pattern))"
            f" : f.file in {_cel(settings.files)})"
        ),
        "said": (
            f"[variables.annotations[?{pinned}].orValue(''),"
            f" namespaceObject.metadata.?annotations[?{pinned}].orValue('')]"
            ".map(s, s.trim()).filter(s, s != '')"
        ),
        "pinned": (
            f"variables.said.size() == 0 ? {_cel(settings.pinned.value)}"
            f" : variables.said[0] in {_cel([which.value for which in Pinned])}"
            f" ? variables.said[0] : {_cel(Pinned.NONE.value)}"
        ),
        "files": (
            "variables.wanted ? variables.chosen.filter(f,"
            " !object.spec.?volumes.orValue([]).exists(v, v.name == f.volume"
            " && !(v.?hostPath.?path.orValue('') == f[variables.pinned]"
            " && v.?hostPath.?type.orValue('') == f.type))) : []"
        ),
    }


def _row(file: str, settings: Settings) -> dict[str, str]:
    name = re.escape(file.removeprefix("proc/"))
    sources = {which: mounts.host_path(file, settings.mountpoint, which) for which in Pinned}
    return {
        "file": file,
        "pattern": f"^/*(?:proc/)?{name}/*$" if file.startswith("proc/") else f"^/*{name}/*$",
        "volume": mounts.volume_name(file),
        # By what is pinned, where the file comes from.
        **{which.value: source["path"] for which, source in sources.items()},
        "type": sources[Pinned.NONE]["type"],
        "target": mounts.mount_path(file),
    }


_POD: Final = f"""\
variables.files.size() == 0 ? Object{{}} : Object{{
  metadata: Object.metadata{{
    annotations: {{
      "{STATUS}": "injected: " + variables.files.map(f, f.file).join(",")
    }}
  }},
  spec: Object.spec{{
    volumes: variables.files.map(f, Object.spec.volumes{{
      name: f.volume,
      hostPath: Object.spec.volumes.hostPath{{path: f[variables.pinned], type: f.type}}
    }})
  }}
}}"""


def _containers(field: str) -> str:
    """The mounts of one list of containers.

    Paths are compared with a slash at both ends: one contains the other if it begins with it.
    """
    return f"""\
variables.files.size() == 0 || !has(object.spec.{field}) ? Object{{}} : Object{{
  spec: Object.spec{{
    {field}: object.spec.{field}.map(c, Object.spec.{field}{{
      name: c.name,
      volumeMounts: variables.files.filter(f,
        !c.?volumeMounts.orValue([])
          .map(m, ("/" + m.mountPath + "/").replace("//", "/").replace("//", "/"))
          .exists(p, (f.target + "/").startsWith(p) || p.startsWith(f.target + "/"))
      ).map(f, Object.spec.{field}.volumeMounts{{
        name: f.volume,
        mountPath: f.target,
        readOnly: true
      }})
    }})
  }}
}}"""


def _cel(value: object) -> str:
    """A literal of CEL, for whose strings, lists and maps JSON is the same."""
    return json.dumps(value)
