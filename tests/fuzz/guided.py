"""One entry, fuzzed with the guidance of code coverage (atheris; ``make fuzz`` installs it).

python -m tests.fuzz.guided decode|manifest|settings [seconds] [seed]

Interesting inputs are kept in .cache/fuzz for the next run; a failure is written there too, and the
command that repeats it is printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit(
        "atheris is not installed: make fuzz installs it if there is a wheel (Linux on x86-64, "
        "Python before 3.14); elsewhere python -m tests.fuzz, and hypothesis in the unit tests"
    )

ROOT = Path(__file__).parents[2]
_FOLDER = ROOT / ".cache" / "fuzz"

_PAYLOADS = [
    b'{"message": "where is my order 48-1123?", "id": "T-1"}',
    b'{"subject": "lamp", "ticket": {"body": "broken"}, "parts": [{"text": null}]}',
    b"\xef\xbb\xbfplain text \xf0\x9f\x99\x8f e\xcc\x81",
]
_FLAGS = b"kafka.client.ssl.key.password=x\nloop.max_in_flight=3\nmodel.engine_args={a = [1]}"
_VARIABLES = b'KAFKA__CLIENT={"debug": "all"}\nKAFKA__INPUT_TOPICS=["a", "^b"]'


def seeds(entry: str) -> list[bytes]:
    """Valid inputs to start from."""
    if entry == "decode":
        return _PAYLOADS
    if entry == "manifest":
        folder = ROOT / "worker" / "demo"
        return [(folder / name / "manifest.json").read_bytes() for name in ("adapter", "encoder")]
    shipped = (ROOT / "config" / "worker.toml").read_bytes()
    return [b"\0".join((shipped.replace(b"\n# ", b"\n"), _FLAGS, _VARIABLES)), shipped]


def main(entry: str, seconds: int, seed: int) -> None:
    """Fuzz one entry. Ends the process, with 0 if nothing was found."""
    with atheris.instrument_imports(include=["worker", "json", "tomllib"]):
        from tests.fuzz.entries import ENTRIES
    target = ENTRIES[entry]
    corpus = _FOLDER / entry
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(entry)):
        (corpus / f"seed-{number}").write_bytes(content)
    options = [
        f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=50000", "-timeout=10",
        "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={_FOLDER}/{entry}-",
    ]  # fmt: skip

    def check(data: bytes) -> None:
        target(data)

    print(f"fuzzing {entry} for {seconds} s, seed {seed}", flush=True)
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    _more = [int(argument) for argument in sys.argv[2:]]
    main(sys.argv[1], _more[0] if _more else 60, _more[1] if len(_more) > 1 else 1)
