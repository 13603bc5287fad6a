"""The command `nox -s index`: write, check, export or serve the index of a store.

nox -s index -- [STORE]                     write the store's indexes again, after a change of their format
nox -s index -- [STORE] --check             follow every link of the current index and hash every wheel
nox -s index -- [STORE] --export FOLDER     copy the current index to a folder as plain files, without symbolic links
nox -s index -- [STORE] --nginx ADDRESS     print a configuration for nginx that listens at ADDRESS
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts import console
from scripts.errors import CatalogError
from scripts.index import nginx, site_files, writer
from scripts.index.catalog import CATALOG
from scripts.index.export import export
from scripts.index.store import LINKS, Store
from scripts.model import ROOT
from scripts.support.command_line import run_main


def write_again(root: Path) -> None:
    """Write both indexes of the store ``root`` again and let its links point at the new generations.

    Raises:
        CatalogError: if the store has no index, or one that is damaged.
    """
    store = Store(root)
    if not any(store.generation(link) for link in LINKS):
        raise CatalogError(f"{root} has no index yet", hint="nox -s stage -- WHEEL...")
    with store.exclusive("index"):
        for link in LINKS:
            before = store.generation(link)
            if before is None:
                continue
            generation = site_files.make(store, store.catalog(link), site_files.default())
            if generation != before:
                store.switch(link, generation)
            console.mark("passed", f"{link}: {generation}" + ("" if generation != before else ", unchanged"))


def report_problems(generation: Path) -> None:
    """Check a generation and print its problems.

    Raises:
        CatalogError: if it has a problem, or if there is no index.
    """
    if not (generation / CATALOG).is_file():
        raise CatalogError(f"{generation} is not an index", hint="promote first: nox -s promote")
    problems = writer.check(generation)
    for problem in problems:
        console.mark("failed", problem)
    if problems:
        hint = "restore the files of the pool, then write the pages again: nox -s index"
        raise CatalogError(f"{generation} is damaged", hint=hint)
    console.mark("passed", f"{generation}: every link leads to a file with the announced hash")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="nox -s index --", description="Write, check or export an index.")
    parser.add_argument("store", nargs="?", type=Path, default=ROOT / "index", metavar="STORE")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="follow every link of the current index")
    action.add_argument("--export", type=Path, metavar="FOLDER", help="copy the current index as plain files")
    action.add_argument("--nginx", metavar="ADDRESS", help="print a configuration for nginx that listens at ADDRESS")
    options = parser.parse_args()
    current = options.store.absolute() / "current"
    if options.nginx:
        print(nginx.configuration(current, options.nginx), end="")
    elif options.export:
        export(current, options.export)
        console.mark("passed", f"exported to {options.export.absolute()}")
    elif options.check:
        report_problems(current)
    else:
        write_again(options.store)
    return 0


if __name__ == "__main__":
    run_main(main)
