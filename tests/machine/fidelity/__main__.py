"""python3 -m tests.machine.fidelity: measure, and write docs/fidelity.md.

With the name of a file that is not there, what was measured is kept in it as JSON; with one that is
there, the page is written from it, and only what is not as expected is measured.
"""

import json
import sys
from pathlib import Path

from tests.machine.fidelity.repeat import settled
from tests.machine.fidelity.report import PAGE, agreement, page
from tests.machine.fidelity.subjects import kernel_of, measure


def main() -> None:
    """Write the page, and print its table."""
    kept = Path(sys.argv[1]) if sys.argv[1:] else None
    if kept is not None and kept.exists():
        records = json.loads(kept.read_text())
    else:
        records = measure()
        if kept is not None:
            kept.write_text(json.dumps(records))
    measured = settled(records)
    PAGE.write_text(page(measured, kernel_of(records)))
    print(agreement(measured))


if __name__ == "__main__":
    main()
