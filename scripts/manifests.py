"""Writes what is generated in deploy/: the chart's policy, and the plain manifests.

  deploy/chart/templates/policy.yaml      from procscope.kubernetes.policy
  deploy/manifests/procscope.yaml         from the chart, mode webhook
  deploy/manifests/procscope-policy.yaml  from the chart, mode policy

Needs helm: HELM names it, else the one of the cluster tests is taken, else that of PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from procscope.kubernetes import policy
from procscope.kubernetes.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CHART = "deploy/chart"
POLICY = f"{CHART}/templates/policy.yaml"
MANIFESTS = {
    "deploy/manifests/procscope.yaml": "webhook",
    "deploy/manifests/procscope-policy.yaml": "policy",
}
NAME = "procscope"
MOUNTPOINT = "/the/mountpoint/of/the/values"
OBJECT_NAME = "the-name-of-the-values"
"""These two stand in the policy for what the chart's values say."""
IN_THE_TEMPLATE = {
    f"  name: {OBJECT_NAME}\n": """\
  name: {{ include "procscope.name" . }}
  labels:
    {{- include "procscope.labels" (dict "root" . "component" "policy") | nindent 4 }}
""",
    OBJECT_NAME: '{{ include "procscope.name" . }}',
    MOUNTPOINT: "{{ .Values.mountpoint }}",
}
NOT_OUR_OWN = {
    "matchExpressions": [
        {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["procscope"]}
    ]
}
"""Never the pods that all the others depend on."""

HEADER = """\
# procscope, mode {mode}: kubectl apply -f {name}
#
# Made from deploy/chart by `make manifests`; the chart has the options, and docs/kubernetes.md
# tells how to use either.
"""
POLICY_HEAD = """\
{{/* Made from procscope.kubernetes.policy by `make manifests`. */ -}}
{{- if eq .Values.mode "policy" }}
{{- if semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version }}
{{- fail "mode policy needs Kubernetes 1.36 or newer: choose webhook" }}
{{- end }}
{{- $made := `DEFAULTS` | fromJson }}
{{- if ne (toJson .Values.injection) (toJson $made) }}
{{- fail "mode policy knows only the default values of injection: leave them, or choose webhook" }}
{{- end }}
"""
# What is true of a release of Helm only.
_HELMS_OWN = re.compile(r"^ +(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n", re.MULTILINE)
_SOURCES = re.compile(r"^# Source: .*\n", re.MULTILINE)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def policy_template() -> str:
    """The chart's template for mode policy."""
    documents = policy.documents(Settings(mountpoint=MOUNTPOINT), name=OBJECT_NAME)
    for document in documents:
        if constraints := document["spec"].get("matchConstraints"):
            constraints["objectSelector"] = NOT_OUR_OWN
    texts = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100) for document in documents
    ]
    # Go's templates read two opening braces as their own.
    body = "---\n".join(texts).replace("{{", '{{ "{{" }}')
    for found, replacement in IN_THE_TEMPLATE.items():
        body = body.replace(found, replacement)
    values = yaml.safe_load((ROOT / CHART / "values.yaml").read_text(encoding="utf-8"))
    head = POLICY_HEAD.replace("DEFAULTS", json.dumps(values["injection"], sort_keys=True))
    return head + body + "{{- end }}\n"


def find_helm() -> str:
    """The helm to call. Raises SystemExit if there is none."""
    cache = Path(os.environ.get("PROCSCOPE_CACHE") or "~/.cache/procscope").expanduser()
    built = [str(path) for path in (cache / "cluster").glob("kubernetes-*/helm")]
    for candidate in (os.environ.get("HELM"), *built, "helm"):
        if candidate and (found := shutil.which(candidate)):
            return found
    sys.exit("procscope: there is no helm here: name one with HELM=/path/to/helm")


def plain_manifest(helm: str, chart: Path, name: str, mode: str) -> str:
    """The chart's objects without what only Helm understands."""
    command = [helm, "template", NAME, str(chart), "--namespace", NAME, "--no-hooks"]
    command += ["--set", f"mode={mode}", "--set", "createNamespace=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"procscope: helm template fails for mode {mode}: {done.stderr.strip()}")
    text = _SOURCES.sub("", _HELMS_OWN.sub("", done.stdout))
    documents = [part.strip() for part in re.split(r"^---$", text, flags=re.MULTILINE)]
    body = "".join(f"---\n{part}\n" for part in documents if part)
    return HEADER.format(mode=mode, name=name) + body


def write_all(output: Path, helm: str) -> None:
    """Write every generated file below `output`, a folder that may be the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / NAME
        shutil.copytree(ROOT / CHART, chart)
        (chart / Path(POLICY).relative_to(CHART)).write_text(policy_template(), encoding="utf-8")
        files = {POLICY: policy_template()}
        for name, mode in MANIFESTS.items():
            files[name] = plain_manifest(helm, chart, name, mode)
    for name, text in files.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="scripts/manifests", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT, help="another folder than this clone")
    args = parser.parse_args()
    write_all(args.output, find_helm())


if __name__ == "__main__":
    main()
