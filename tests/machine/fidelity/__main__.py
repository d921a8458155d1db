"""python3 -m tests.machine.fidelity: measure and write docs/fidelity.md."""

import json
import sys
from pathlib import Path

from tests.machine.fidelity.subjects import measure

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measure()))
