"""Runs the benchmarks named, or all: each module ``bench_NAME`` prints its own table and returns its figures.

Owns: finding them, and writing all figures as JSON to build/benchmarks.json. Must not know: what is measured.
"""

import importlib
import json
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem.removeprefix("bench_") for path in _HERE.glob("bench_*.py"))
    results = {name: importlib.import_module(f"benchmarks.bench_{name}").run() for name in names}
    target = _HERE.parent / "build" / "benchmarks.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
