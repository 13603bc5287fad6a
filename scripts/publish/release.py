"""Publish audited wheels in one command: stage, prove, promote. Run it again to continue after an interruption."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts import console
from scripts.index.export import export
from scripts.publish import promotion, prove, staging
from scripts.publish.generations import DEFAULT_STORE
from scripts.support.command_line import run_main


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s release --", description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help="the store (default: index)")
    parser.add_argument("--records", type=Path, metavar="DIR", help="read records/ below DIR, not the wheel's folder")
    parser.add_argument("--by", metavar="NAME", help="the person to log (default: git's user.name)")
    parser.add_argument("--real", action="store_true", help="also prove beside the real, locked torch")
    parser.add_argument("--waive-gpu", metavar="REASON", help="accept wheels that no GPU has run")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="then write the index there, as plain files")
    return parser.parse_args()


def main() -> int:
    """Stage, prove and promote the wheels that the command line names."""
    parsed = _parse()
    with console.step("stage"):
        staging.stage(parsed.store, parsed.wheels, parsed.records, by=parsed.by)
    with console.step("prove"):
        prove.prove(parsed.store, real=parsed.real, by=parsed.by)
    with console.step("promote"):
        done = promotion.promote(parsed.store, waive_gpu=parsed.waive_gpu, by=parsed.by, records=parsed.records)
    if parsed.export:
        export(parsed.store / "current", parsed.export)
        console.mark("passed", f"exported to {parsed.export.absolute()}")
    console.mark("passed", f"readers of {parsed.store} see {done.wheels} wheels")
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
