"""`python -m tests.fuzz.run TARGET|all --seconds N`: look for inputs that break a promise.

Needs the dependency group `fuzz`. What reaches new code is added to the corpus of the repository,
smallest inputs first. An input that breaks a promise is written to `--found`, with what it broke
in the log beside it, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.minimise import minimised
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CORPUS, TARGETS, corpus

MOST_BYTES = 48 << 10
"""Of one target's corpus; the tests read all of it."""
LONGEST_INPUT_BYTES = 4096
_ROOT = Path(__file__).parents[2]


def main() -> int:
    """Fuzz one target or all in turn; return 1 where one broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("all", *TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument(
        "--found", type=Path, default=Path("fuzz-found"), help="default: %(default)s"
    )
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    seconds = max(1, arguments.seconds // len(names))
    arguments.found.mkdir(parents=True, exist_ok=True)
    broken = [name for name in names if not fuzz(name, seconds, arguments.found)]
    print(f"broken: {', '.join(broken)}" if broken else "no promise was broken", flush=True)
    return 1 if broken else 0


def fuzz(name: str, seconds: int, found: Path) -> bool:
    """Fuzz one target, add to its corpus, and return whether every promise held."""
    with tempfile.TemporaryDirectory(prefix="procscope-fuzz-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        for data in seeds().get(name, ()):
            (new / _file_name(data)).write_bytes(data)
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.engine", name),
                f"-max_total_time={seconds}",
                f"-max_len={LONGEST_INPUT_BYTES}",
                *("-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=1"),
                f"-artifact_prefix={found.resolve()}/{name}-",
                str(new),
                *([str(CORPUS / name)] if corpus(name) else []),
            ],
            check=False,
            cwd=_ROOT,
            # The engine ends without cleaning up; what it makes goes with this folder.
            env=os.environ | {"TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        (found / f"{name}.log").write_bytes(ended.stdout)
        kept = keep(name, [path.read_bytes() for path in new.iterdir()])
    word = "held" if ended.returncode == 0 else "BROKEN"
    runs = _final_stat(ended.stdout, b"stat::number_of_executed_units:")
    print(f"{name}: {word}, {runs} inputs in {seconds} s, {kept} kept", flush=True)
    return ended.returncode == 0


def keep(name: str, new: list[bytes]) -> int:
    """Replace the corpus of a target by the best of it and of `new`; return how many those are."""
    old = corpus(name)
    kept = minimised(TARGETS[name], [*new, *(path.read_bytes() for path in old)], MOST_BYTES)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    names = {_file_name(data): data for data in kept}
    for path in old:
        if path.name not in names:
            path.unlink()
    for file_name, data in names.items():
        (CORPUS / name / file_name).write_bytes(data)
    return len(kept)


def _file_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _final_stat(output: bytes, key: bytes) -> str:
    """A number of libFuzzer's `-print_final_stats`; a question mark where it did not get so far."""
    return next(
        (line.split()[-1].decode() for line in output.splitlines() if line.startswith(key)), "?"
    )


if __name__ == "__main__":
    sys.exit(main())
