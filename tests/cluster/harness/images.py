"""Images made on this machine, as archives that `docker save` could have written.

No registry is used. Programs are those of this machine, with the libraries that they load.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

from tests.cluster.harness.errors import ClusterUnavailableError
from tests.docker.images import SEARCH, tools_root

PAUSE = "procscope.test/pause:1"
WEB = "httpd:2"
"""The image of the walk-through's application: a web server, and the tools to look around with."""

WEB_COMMAND = ["httpd", "-f", "-p", "80", "-h", "/srv"]


def archive(name: str, root: bytes, command: list[str]) -> bytes:
    """An archive with one image of one layer, the tar archive `root`."""
    digest = hashlib.sha256(root).hexdigest()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for file, content in (
            (config_name, config),
            (layer_name, root),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(packed, file, content, 0o644)
    return buffer.getvalue()


def pause_image(program: Path) -> bytes:
    """The image of the process that holds a pod's namespaces: one static program."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as root:
        _add(root, "pause", program.read_bytes(), 0o755)
    return archive(PAUSE, buffer.getvalue(), ["/pause"])


def web_image() -> bytes:
    """The tools of the `docker` level's image, and busybox as web server.

    `free` is that of procps, which reads /proc/meminfo; busybox's asks sysinfo(2).
    """
    busybox = shutil.which("busybox", path=SEARCH)
    if busybox is None:
        raise ClusterUnavailableError("the images need busybox; install busybox-static")
    root = io.BytesIO(tools_root())
    with tarfile.open(fileobj=root, mode="a") as packed:
        _add(packed, "usr/bin/busybox", Path(busybox).read_bytes(), 0o755)
        for name in ("httpd", "wget", "nc"):
            link = tarfile.TarInfo(f"usr/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            packed.addfile(link)
        _add(packed, "srv/index.html", b"It works!\n", 0o644)
    return archive(WEB, root.getvalue(), WEB_COMMAND)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _add(packed: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    packed.addfile(file, io.BytesIO(content))
