"""Builds the image `procscope:VERSION` and writes it to build/procscope-image.tar.

Everything is prepared here, so that the build itself runs without a network: the wheel of this
checkout, and those of uv.lock that fit the Python of the base image.

BASE names the base image. `local` makes one from Debian's packages with mmdebstrap, and so does a
default base that no registry gives out. It is kept in ~/.cache/procscope/image, together with the
wheels; remove that for newer packages. ENGINE chooses docker, podman or buildah; unless given, the
first one that works does it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "image"
WHEELS = BUILD / "wheels"
ARCHIVE = ROOT / "build" / "procscope-image.tar"
IMAGE_FILES = ROOT / "deploy" / "image"
BIN = ROOT / ".venv" / "bin"

DEFAULT_BASE = "docker.io/library/python:3.13-slim"
LOCAL_BASE = "procscope-base:local"
RECIPE_LABEL = "io.procscope.base-recipe"
ENGINES = ("docker", "podman", "buildah")
PULL_PATIENCE_S = 300

SUITE = "trixie"
PACKAGES = "python3,ca-certificates"
NOT_UNPACKED = ("doc", "info", "locale", "man", "lintian", "bug")
"""Of /usr/share; the copyright files of packages stay."""
REMOVED = (
    # Character sets other than UTF-8, for iconv(3).
    *("usr/lib/*/gconv", "usr/lib/*/perl-base", "usr/bin/perl*"),
    *(f"usr/lib/python3*/{name}" for name in ("test", "idlelib", "pydoc_data", "turtledemo")),
    # What runs as another user than its caller.
    *("usr/bin/su", "usr/sbin/unix_chkpwd"),
    *("usr/sbin/mkfs*", "usr/sbin/fsck*", "var/cache/*", "var/log/*"),
)

FACTS = """
import json, os, platform, sys
print(json.dumps({
    "implementation_name": sys.implementation.name,
    "implementation_version": platform.python_version(),
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": "",
    "platform_system": platform.system(),
    "platform_version": "",
    "python_full_version": platform.python_version(),
    "python_version": "%d.%d" % sys.version_info[:2],
    "sys_platform": sys.platform,
    "libc": (os.confstr("CS_GNU_LIBC_VERSION") or "") if "CS_GNU_LIBC_VERSION" in os.confstr_names
            else "",
}))
"""


class ImageError(Exception):
    """Why there is no image, in one line."""


def run(
    *words: str | Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    quiet: bool = False,
) -> str:
    """Run a command and return what it prints. Raises ImageError where it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        cwd=cwd,
        env=env,
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write((done.stdout + (done.stderr or ""))[-3000:])
        raise ImageError(f"{' '.join(map(str, words[:3]))} … failed with {done.returncode}")
    return done.stdout


def say(text: str) -> None:
    """Tell of a step."""
    print(f"image: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Engine:
    """What builds images here: Docker's client, podman or buildah."""

    program: str

    def works(self) -> bool:
        """Whether it is installed and answers."""
        if shutil.which(self.program) is None:
            return False
        asked = subprocess.run(
            [self.program, "images", "--quiet"], capture_output=True, check=False
        )
        return asked.returncode == 0

    def has(self, image: str, recipe: str = "") -> bool:
        """Whether an image is here, made by that recipe if one is named."""
        kind = ("--type", "image") if self.program != "podman" else ()
        done = subprocess.run(
            [self.program, "inspect", *kind, image], capture_output=True, text=True, check=False
        )
        return done.returncode == 0 and recipe in done.stdout

    def pull(self, image: str) -> bool:
        """Fetch an image; return whether that worked."""
        try:
            done = subprocess.run(
                [self.program, "pull", "--quiet", image],
                capture_output=True,
                timeout=PULL_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def import_root(self, archive: Path, image: str, recipe: str) -> None:
        """Make an image of a root file system."""
        if self.program != "buildah":
            changes = ("--change", f"LABEL {RECIPE_LABEL}={recipe}")
            run(self.program, "import", *changes, archive, image)
            return
        container = run("buildah", "from", "scratch").strip()
        try:
            run("buildah", "add", "--quiet", container, archive, "/")
            run("buildah", "config", "--label", f"{RECIPE_LABEL}={recipe}", container)
            run("buildah", "commit", "--quiet", container, image)
        finally:
            run("buildah", "rm", container)

    def python(self, image: str, program: str) -> str:
        """Run a program in the image's Python; return what it prints."""
        if self.program != "buildah":
            command = (self.program, "run", "--rm", "--network=none", "--entrypoint", "python3")
            return run(*command, image, "-c", program)
        container = run("buildah", "from", image).strip()
        try:
            return run("buildah", "run", container, "--", "python3", "-c", program)
        finally:
            run("buildah", "rm", container)

    def full_name(self, tag: str) -> str:
        """The tag with what Docker and containerd add to it, where this engine does not."""
        return tag if self.program == "docker" or "/" in tag else f"docker.io/library/{tag}"

    def build(self, base: str, tag: str, arguments: dict[str, str]) -> None:
        """Build the image, with no network."""
        tag = self.full_name(tag)
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        if self.program == "docker":
            # Nothing here needs BuildKit, and its client is a package of its own.
            environment = {**os.environ, "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")}
            command = ["docker", "build", "--network=none"]
        else:
            environment = dict(os.environ)
            command = [self.program, "build", "--layers", "--format=docker", "--network=none"]
        file = IMAGE_FILES / "Containerfile"
        run(
            *(*command, f"--build-arg=BASE={base}", *options),
            *("--tag", tag, "--file", file, BUILD),
            env=environment,
            quiet=True,
        )

    def save(self, tag: str, archive: Path) -> None:
        """Write the image as a docker-archive."""
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        if self.program == "docker":
            run("docker", "save", "--output", partial, tag)
        elif self.program == "podman":
            options = ("--quiet", "--format=docker-archive", "--output")
            run("podman", "save", *options, partial, self.full_name(tag))
        else:
            name = self.full_name(tag)
            run("buildah", "push", "--quiet", name, f"docker-archive:{partial}:{name}")
        partial.rename(archive)


def find_engine(wanted: str) -> Engine:
    """The engine that is wanted, or the first that works."""
    for program in (wanted,) if wanted else ENGINES:
        engine = Engine(program)
        if engine.works():
            return engine
    raise ImageError(
        f"{wanted or 'none of docker, podman and buildah'} works here: start dockerd, or install "
        "buildah, which needs no daemon"
    )


def cache_folder() -> Path:
    """Where what is made once is kept."""
    base = os.environ.get("PROCSCOPE_CACHE") or "~/.cache/procscope"
    folder = Path(base).expanduser() / "image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian_mirror() -> str:
    """The archive that this machine's apt uses, if it is a Debian; else the public one."""
    if override := os.environ.get("PROCSCOPE_DEBIAN_MIRROR"):
        return override
    if shutil.which("apt-get"):
        targets = ("indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
        for uri in run("apt-get", *targets).split():
            if uri.rstrip("/").endswith("/debian"):
                return uri.rstrip("/")
    return "http://deb.debian.org/debian"


def local_base(engine: Engine) -> str:
    """Make a base of Debian's packages, if it is not there yet; return its name."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, NOT_UNPACKED, REMOVED)).encode()).hexdigest()[
        :16
    ]
    if engine.has(LOCAL_BASE, recipe):
        return LOCAL_BASE
    archive = cache_folder() / f"base-{SUITE}-{recipe}.tar"
    if not archive.exists():
        if shutil.which("mmdebstrap") is None:
            raise ImageError("a local base needs mmdebstrap: install the package mmdebstrap")
        say(f"making a base from the packages of Debian {SUITE}")
        partial = archive.with_suffix(".partial.tar")
        unpack = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_UNPACKED]
        remove = 'cd "$1" && rm -rf ' + " ".join(REMOVED)
        run(
            *("mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}"),
            *(*unpack, "--dpkgopt=path-include=/usr/share/doc/*/copyright"),
            *(f"--customize-hook={remove}", SUITE, partial, debian_mirror()),
        )
        partial.rename(archive)
    engine.import_root(archive, LOCAL_BASE, recipe)
    return LOCAL_BASE


def choose_base(engine: Engine, wanted: str) -> str:
    """The base image, which is in the engine then."""
    if wanted == "local":
        return local_base(engine)
    base = wanted or DEFAULT_BASE
    if engine.has(base) or engine.pull(base):
        return base
    if wanted:
        raise ImageError(f"the base image {base} cannot be pulled: BASE=local makes one here")
    say(f"{base} cannot be pulled")
    return local_base(engine)


def platforms(libc: str, machine: str) -> list[str]:
    """The wheel platforms that a C library takes, newest first (PEP 600, PEP 656)."""
    name, _, version = libc.partition(" ")
    if name == "glibc":
        minor = int(version.split(".")[1])
        old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        numbers = [f"manylinux_2_{number}_{machine}" for number in range(minor, 4, -1)]
        return numbers + [f"{name}_{machine}" for glibc, name in old.items() if glibc <= minor]
    return [f"musllinux_1_{number}_{machine}" for number in (2, 1, 0)]


def locked_requirements(target: dict[str, str]) -> str:
    """The lines of uv.lock for the extra `kubernetes` that hold for the base's Python."""
    exported = run(
        *(BIN / "uv", "export", "--quiet", "--frozen", "--no-dev", "--extra", "kubernetes"),
        *("--no-emit-project", "--no-annotate", "--no-header"),
        cwd=ROOT,
    )
    kept = []
    for line in exported.replace("\\\n", " ").splitlines():
        words, *hashes = line.split("--hash=")
        marker = Requirement(words).marker
        if marker is None or marker.evaluate(environment=dict(target)):
            name = words.partition(";")[0].strip()
            kept.append(" ".join([name, *(f"--hash={hash_.strip()}" for hash_ in hashes)]))
    return "".join(f"{line}\n" for line in kept)


def download(requirements: Path, folder: Path, options: list[str]) -> None:
    """Fetch the wheels that a file of requirements names; their hashes are checked."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(
        *(str(BIN / "python"), "-m", "pip", "download", "--quiet", "--no-deps"),
        *("--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", *options),
        *("--dest", str(partial), "--requirement", str(requirements)),
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def fetched_wheels(target: dict[str, str], requirements: str) -> Path:
    """The folder with the wheels of uv.lock for the base, and pip's own; made once."""
    version = target["python_version"]
    tags = platforms(target["libc"], target["platform_machine"])
    installer = IMAGE_FILES / "installer.txt"
    made_from = json.dumps([requirements, version, tags, installer.read_text()])
    done = cache_folder() / f"wheels-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    if done.is_dir():
        return done
    say(f"fetching the wheels of uv.lock for Python {version} on {tags[0]}")
    partial = done.with_name(done.name + ".making")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    listed = partial / "locked.txt"
    listed.write_text(requirements)
    abis = ("cp" + version.replace(".", ""), "abi3", "none")
    options = ["--implementation=cp", f"--python-version={version}"]
    options += [f"--abi={abi}" for abi in abis] + [f"--platform={tag}" for tag in tags]
    download(listed, partial / "wheels", options)
    download(installer, partial / "installer", [])
    partial.rename(done)
    return done


def project_wheel(folder: Path) -> Path:
    """Make the wheel of this checkout; the same sources give the same bytes."""
    run(BIN / "uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (folder / ".gitignore").unlink(missing_ok=True)
    return next(folder.glob("procscope-*.whl"))


def prepare_context(engine: Engine, base: str, version: str) -> None:
    """Fill the folder that the build sees."""
    target: dict[str, str] = json.loads(engine.python(base, FACTS))
    requirements = locked_requirements(target)
    fetched = fetched_wheels(target, requirements)
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(fetched / "wheels", WHEELS)
    shutil.copytree(fetched / "installer", WHEELS / "installer")
    digest = hashlib.sha256(project_wheel(WHEELS).read_bytes()).hexdigest()
    own = f"procscope[kubernetes]=={version} --hash=sha256:{digest}\n"
    (WHEELS / "requirements.txt").write_text(requirements + own)


def revision() -> str:
    """The commit, if this is a clone."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def version_here() -> str:
    """The version of this checkout."""
    code = "import procscope; print(procscope.__version__)"
    return run(
        BIN / "python", "-c", code, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ).strip()


def main() -> int:
    """Build the image."""
    parser = argparse.ArgumentParser(prog="scripts/image", description=__doc__)
    parser.add_argument("--base", default=os.environ.get("BASE", ""))
    parser.add_argument("--engine", default=os.environ.get("ENGINE", ""), choices=("", *ENGINES))
    parser.add_argument("--output", type=Path, default=ARCHIVE, help="where the archive goes")
    parser.add_argument("--tag", default="", help="name and tag; procscope:VERSION unless given")
    args = parser.parse_args()
    started_s = time.monotonic()
    try:
        engine = find_engine(args.engine)
        version = version_here()
        tag = args.tag or f"procscope:{version}"
        base = choose_base(engine, args.base)
        prepare_context(engine, base, version)
        say(f"building {tag} on {base} with {engine.program}")
        engine.build(base, tag, {"VERSION": version, "REVISION": revision()})
        args.output.parent.mkdir(parents=True, exist_ok=True)
        engine.save(tag, args.output)
    except ImageError as error:
        print(f"procscope: {error}", file=sys.stderr)
        return 1
    size_mb = args.output.stat().st_size / 1e6
    say(f"{tag} and {args.output}: {size_mb:.0f} MB, {time.monotonic() - started_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
