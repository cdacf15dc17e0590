"""Wait for an adapter: a store's pointer (current.json) or an adapter's manifest.

    python3 wait_for_adapter.py PATH

Standard library only: it runs in any image with Python 3.
"""

import sys
import time
from pathlib import Path

_POLL_S, _LOG_S = 2.0, 60.0


def main(path: Path) -> None:
    """Return when ``path`` has an adapter. Until then, print a line once a minute."""
    logged = -_LOG_S
    while not any((path / name).is_file() for name in ("current.json", "manifest.json")):
        if time.monotonic() - logged >= _LOG_S:
            logged = time.monotonic()
            print(
                f"{path} has no adapter yet (neither current.json nor manifest.json): waiting for "
                f"clerk-trainer publish RUN --store {path}",
                flush=True,
            )
        time.sleep(_POLL_S)
    print(f"{path} has an adapter")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
