"""Wait until there is an adapter: a store's pointer, or an adapter's own manifest.

    python3 wait_for_adapter.py PATH

Standard library alone: it runs in whatever image has Python 3.
"""

import sys
import time
from pathlib import Path

_LOOK_S, _TELL_S = 2.0, 60.0


def main(path: Path) -> None:
    """Return when ``path`` has one; say once a minute that it has none."""
    told = -_TELL_S
    while not any((path / name).is_file() for name in ("current.json", "manifest.json")):
        if time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            print(
                f"{path} has no adapter yet (neither current.json nor manifest.json): waiting for "
                f"clerk-trainer publish RUN --store {path}",
                flush=True,
            )
        time.sleep(_LOOK_S)
    print(f"{path} has an adapter")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
