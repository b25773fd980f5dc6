"""Runs the named benchmarks, or all: each module ``bench_NAME`` has a function ``run`` that returns results.

Owns: finding them, printing a table for each, and writing all figures to build/benchmarks.json. Must not
know: what is measured.
"""

import importlib
import json
import sys
from pathlib import Path

from benchmarks.pairs import figures, markdown

_HERE = Path(__file__).resolve().parent


def main() -> None:
    found = (path.stem.removeprefix("bench_") for path in _HERE.glob("bench_*.py"))
    # Publishing comes first: ext4 is slow at reusing inodes that another benchmark has just freed.
    names = sys.argv[1:] or sorted(found, reverse=True)
    results = {}
    for name in names:
        measured = importlib.import_module(f"benchmarks.bench_{name}").run()
        print(f"{name}\n\n{markdown(measured)}\n", flush=True)
        results[name] = figures(measured)
    target = _HERE.parent / "build" / "benchmarks.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
