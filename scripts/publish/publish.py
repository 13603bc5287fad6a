"""The command line of publishing: stage wheels, promote what was proven, yank, upload; `status` shows the store.

nox -s publish -- stage WHEEL... [--records DIR] [--replace] [--allow-partial]
nox -s publish -- promote [--waive-gpu REASON] [--records DIR] [--export FOLDER] [--upload TARGET]
nox -s publish -- yank WHEEL --reason REASON
nox -s publish -- unyank WHEEL [--reason REASON]
nox -s publish -- upload TARGET [--index URL] [--staged]
nox -s publish -- status

All commands take --store DIR (default: index), --by NAME (default: git's user.name), --json, and --wait SECONDS for
another publisher. A refused command changes nothing; an interrupted one is completed by running it again.
"""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts import console
from scripts.index.export import export
from scripts.publish import promotion, staging, status, store_upload, upload, yanking
from scripts.publish.generations import DEFAULT_STORE, LOCK_TIMEOUT_SECONDS
from scripts.publish.names import count, shorten
from scripts.support.command_line import run_main


def _stage(options: Namespace) -> staging.Staged:
    result = staging.stage(
        options.store,
        options.wheels,
        options.records,
        by=options.by,
        allow_partial=options.allow_partial,
        replace_staged=options.replace,
        wait=options.wait,
    )
    _print(
        options, [*(f"staged {name}" for name in result.added), *(f"already staged: {name}" for name in result.already)]
    )
    return result


def _promote(options: Namespace) -> promotion.Promoted:
    target = upload.target(options.upload, options.index) if options.upload else None
    result = promotion.promote(
        options.store, waive_gpu=options.waive_gpu, by=options.by, records=options.records, wait=options.wait
    )
    _print(options, [f"promoted {name}" for name in result.new])
    _print(options, [f"no GPU has run {name}: waived" for name in result.waived], "untested")
    _print(options, [f"readers see {count(result.wheels)}, as expected: none missing, none unexpected"])
    if options.export:
        export(options.store / "current", options.export)
        _print(options, [f"exported to {options.export.absolute()}"])
    if target:
        _print_sent(options, store_upload.send_store(options.store, target, by=options.by), target)
    return result


def _yank(options: Namespace) -> dict[str, Any]:
    changed = yanking.yank(options.store, options.wheel, reason=options.reason, by=options.by, wait=options.wait)
    _print(options, [f"{'yanked' if changed else 'already yanked:'} {options.wheel}"])
    return {"wheel": options.wheel, "changed": changed}


def _unyank(options: Namespace) -> dict[str, Any]:
    changed = yanking.unyank(options.store, options.wheel, reason=options.reason, by=options.by, wait=options.wait)
    _print(options, [f"{'unyanked' if changed else 'is not yanked:'} {options.wheel}"])
    return {"wheel": options.wheel, "changed": changed}


def _upload(options: Namespace) -> upload.Sent:
    target = upload.target(options.target, options.index)
    sent = store_upload.send_store(options.store, target, by=options.by, staged=options.staged)
    _print_sent(options, sent, target)
    return sent


def _print_sent(options: Namespace, sent: upload.Sent, target: upload.Target) -> None:
    _print(options, [f"uploaded {name}" for name in sent.uploaded])
    _print(options, [f"{target.shown} has {count(len(sent.uploaded) + len(sent.already))} of this store"])


def _status(options: Namespace) -> status.Status:
    found = status.read(options.store)
    if found.empty:
        _print(options, [f"{found.store}: empty, nothing was staged yet; next: nox -s stage -- WHEEL..."], "info")
    elif not options.json:
        rows = [
            ("staged", f"{count(found.staged)}, {'proven' if found.proven else 'not proven yet'}"),
            ("current", count(found.current)),
            ("not promoted yet", shorten(found.pending) or "nothing"),
            ("neither run on a GPU nor waived", shorten(found.waiting) or "nothing"),
            ("waived", shorten(found.waived) or "nothing"),
            ("yanked", shorten(found.yanked) or "nothing"),
            *((event["time"], f"{event['what']} by {event['by']}") for event in found.last),
        ]
        console.table(f"{found.store}{' (for rehearsals)' if found.rehearsal else ''}", ("", ""), rows)
    return found


def _print(options: Namespace, lines: Iterable[str], outcome: str = "passed") -> None:
    for line in lines:
        if not options.json:
            console.mark(outcome, line)


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help="the store's folder (default: index)"
    )
    common.add_argument("--by", metavar="NAME", help="the person to log (default: git's user.name)")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--wait", type=float, default=LOCK_TIMEOUT_SECONDS, metavar="S", help="seconds to wait for another publisher"
    )
    return common


def _parser() -> argparse.ArgumentParser:
    """Return the parser; the option ``run`` that it sets is the function of the chosen command."""
    parser = argparse.ArgumentParser(prog="nox -s publish --", description="Publish wheels to an index.")
    commands, common = parser.add_subparsers(dest="command", required=True), [_common()]

    staging_command = commands.add_parser("stage", parents=common, help="put audited wheels into the staged index")
    staging_command.set_defaults(run=_stage)
    staging_command.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    staging_command.add_argument("--records", type=Path, metavar="DIR", help="read records/ below DIR, not the wheel's")
    staging_command.add_argument("--allow-partial", action="store_true", help="take partial wheels, for a rehearsal")
    staging_command.add_argument("--replace", action="store_true", help="take the name of a never promoted wheel")

    promote_command = commands.add_parser("promote", parents=common, help="show readers the staged, proven index")
    promote_command.set_defaults(run=_promote)
    promote_command.add_argument("--waive-gpu", metavar="REASON", help="accept wheels that no GPU has run")
    promote_command.add_argument("--records", type=Path, metavar="DIR", help="read GPU records below DIR")
    promote_command.add_argument("--export", type=Path, metavar="FOLDER", help="then write the index there, as files")
    promote_command.add_argument("--upload", metavar="TARGET", help="then upload to this URL or .pypirc repository")
    promote_command.add_argument("--index", metavar="URL", help="the simple index of --upload (TARGET/simple/)")

    yank_command = commands.add_parser("yank", parents=common, help="have installers ignore a wheel unless pinned")
    yank_command.set_defaults(run=_yank)
    yank_command.add_argument("wheel", metavar="WHEEL")
    yank_command.add_argument("--reason", required=True)

    unyank_command = commands.add_parser("unyank", parents=common, help="undo a yank")
    unyank_command.set_defaults(run=_unyank)
    unyank_command.add_argument("wheel", metavar="WHEEL")
    unyank_command.add_argument("--reason")

    upload_command = commands.add_parser("upload", parents=common, help="upload to an index, with twine's credentials")
    upload_command.set_defaults(run=_upload)
    upload_command.add_argument("target", metavar="TARGET", help="URL of the upload API, or a repository of .pypirc")
    upload_command.add_argument("--index", metavar="URL", help="the target's simple index (TARGET/simple/)")
    upload_command.add_argument("--staged", action="store_true", help="the staged wheels, to an index on this machine")

    status_command = commands.add_parser("status", parents=common, help="show the state of the store")
    status_command.set_defaults(run=_status)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name."""
    options = _parser().parse_args(arguments)
    result = options.run(options)
    if options.json:
        print(json.dumps(result if isinstance(result, dict) else asdict(result), indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    run_main(main)
