"""Debian archives: which mirror this host uses, and downloads that do not touch its state."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.machine.harness.errors import MachineError, MachineUnavailableError

# A mirror of sid that lags behind, or a host's clock that is ahead, makes its Release file too old.
# Its signature is checked all the same.
ANY_AGE = ("Acquire::Check-Valid-Until", "false")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def _deb822_uris(text: str) -> list[str]:
    """The URIs of the `deb` stanzas with component main in a .sources file."""
    uris: list[str] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ", "\t")):
                fields[name.strip().lower()] = value.strip()
        is_binary = "deb" in fields.get("types", "").split()
        if is_binary and "main" in fields.get("components", "").split():
            uris += fields.get("uris", "").split()
    return uris


def _one_line_uris(text: str) -> list[str]:
    """The URIs of the `deb` lines with component main in a sources.list file."""
    pattern = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+\S+\s+(.*)$", re.MULTILINE)
    return [uri for uri, components in pattern.findall(text) if "main" in components.split()]


def debian_mirror(apt_dir: Path = Path("/etc/apt")) -> str:
    """The URI of the Debian archive that this host's apt is configured with.

    PROCSCOPE_DEBIAN_MIRROR comes first, for hosts that are not Debian. The archive of security
    updates is another archive and is passed over. Raises MachineUnavailableError if there is none.
    """
    override = os.environ.get("PROCSCOPE_DEBIAN_MIRROR")
    if override:
        return override
    uris: list[str] = []
    for path in sorted(apt_dir.glob("sources.list.d/*.sources")):
        uris += _deb822_uris(path.read_text(encoding="utf-8"))
    for path in [apt_dir / "sources.list", *sorted(apt_dir.glob("sources.list.d/*.list"))]:
        if path.is_file():
            uris += _one_line_uris(path.read_text(encoding="utf-8"))
    for uri in uris:
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    raise MachineUnavailableError(
        "no Debian mirror in this host's apt sources; set PROCSCOPE_DEBIAN_MIRROR to its URI"
    )


def source_line(suite: str) -> str:
    """The line of a sources.list for the main component of a Debian suite."""
    if not KEYRING.is_file():
        raise MachineUnavailableError(f"{KEYRING} is missing; install debian-archive-keyring")
    return f"deb [arch=amd64 signed-by={KEYRING}] {debian_mirror()} {suite} main"


@dataclass(frozen=True, slots=True)
class PrivateApt:
    """An apt with lists and archives of its own, below `directory`, for one suite."""

    directory: Path
    suite: str

    def update(self) -> None:
        """Make the directories and fetch the suite's package lists."""
        for name in ("lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        (self.directory / "sources.list").write_text(source_line(self.suite) + "\n")
        self._run("apt-get", "update", "-qq")

    def depends(self, package: str) -> list[str]:
        """The names in the package's Depends, alternatives included."""
        text = self._run("apt-cache", "depends", package)
        return re.findall(r"^\s*\|?(?:Pre)?Depends: ([^<\s]+)", text, re.MULTILINE)

    def download(self, packages: list[str], into: Path) -> list[Path]:
        """Fetch the packages' .deb files, checked by apt, and return their paths."""
        self._run("apt-get", "download", *packages, cwd=into)
        return sorted(into.glob("*.deb"))

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        here = self.directory
        options = {
            "Dir::Etc::sourcelist": here / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": here,
            "Dir::State::status": here / "status",
            "Dir::Cache": here / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            ANY_AGE[0]: ANY_AGE[1],
        }
        command = [program, *(f"-o{name}={value}" for name, value in options.items()), *words]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MachineError(f"{program} {' '.join(words)} failed:\n{done.stderr}")
        return done.stdout
