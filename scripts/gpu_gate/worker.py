"""Makes checks in the environment of the wheel, one after the other, and writes down each as it goes.

A check may take the whole process with it, and a kernel that failed leaves the device unusable: so every line is on
disk before the next check begins, and after a failed one on the device the process ends for a fresh one to go on.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import importlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import faults, machine
from .bench import Bench, Check, Outcome
from .checks import CHECKS
from .record import Result

IMPORT = "import"
# Seconds; a check takes a few, the reference being slow.
PATIENCE = 600.0


@dataclass(frozen=True)
class Place:
    """Where checks are made; ``why`` says what lacks for those that need a GPU, ``broken`` what lacks for all."""

    bench: Bench | None
    why: str = ""
    broken: str = ""


def work(folder: Path, checks: Iterable[Check]) -> None:
    """Make the checks; results go to `results.jsonl` in ``folder``, pictures beside it as `CHECK--NAME.npy`."""
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:

        def tell(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        torch = importlib.import_module("torch")
        found = machine.gpu(torch)
        tell({"machine": found, "versions": machine.versions(torch, np)})
        tell({"start": IMPORT})
        place, imported = _enter(torch, found)
        tell({"result": dataclasses.asdict(imported)})
        for check in checks:
            tell({"start": check.name})
            result, images = perform(check, place)
            for name, image in images.items():
                np.save(folder / f"{check.name}--{name.replace('/', ' ')}.npy", image)
            tell({"result": dataclasses.asdict(result)})
            if result.state == "failed" and check.needs_gpu:
                break


def _enter(torch: Any, found: dict[str, str]) -> tuple[Place, Result]:
    """Import nvdiffrast, and see what of the checks can be made here."""
    begin = time.monotonic()
    try:
        dr = importlib.import_module("nvdiffrast.torch")
        info = json.loads((Path(str(dr.__file__)).parent.parent / "build_info.json").read_text(encoding="utf-8"))
        release, kernels = str(info["release"]), info["architectures"]
        why = found.get("why") or _unserved(found["capability"], kernels["sass"], kernels["ptx"])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return Place(None, broken="nvdiffrast.torch does not import"), Result(IMPORT, "failed", said, needs_gpu=False)
    seconds = time.monotonic() - begin
    device = "cuda:0"
    bench = Bench(dr, torch, device, lambda: dr.RasterizeCudaContext(device=device), release, faults.known(release))
    said = f"nvdiffrast.torch of {release}, after torch"
    return Place(bench, why), Result(IMPORT, "passed", said, seconds, needs_gpu=False)


def _unserved(capability: str, sass: list[str], ptx: list[str]) -> str:
    if machine.served(capability, sass, ptx):
        return ""
    return f"the wheel has no kernels for compute capability {capability}: {', '.join(sass)}, PTX {', '.join(ptx)}"


def perform(check: Check, place: Place) -> tuple[Result, dict[str, Any]]:
    """One check and its pictures; what it raises is what failed, what cannot be made here is untested."""
    lacking = place.broken or (place.why if check.needs_gpu else "")
    begin = time.monotonic()
    if place.bench is None or lacking:
        outcome = Outcome("untested", lacking)
    else:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            outcome = check.run(place.bench)
        except Exception as error:
            outcome = Outcome("failed", f"{type(error).__name__}: {error}".strip().splitlines()[-1])
        faulthandler.cancel_dump_traceback_later()
    figures = {name: float(value) for name, value in outcome.figures.items()}
    seconds = round(time.monotonic() - begin, 3)
    made = Result(check.name, outcome.state, outcome.detail, seconds, check.needs_gpu, check.optional, figures)
    return made, outcome.images


def main(order: Path) -> None:
    """Do what the file ``order`` says: {"folder", "site" (to be put on sys.path) or null, "checks"}."""
    faulthandler.enable()
    wanted = json.loads(order.read_text(encoding="utf-8"))
    if wanted["site"]:
        sys.path.insert(0, wanted["site"])
    work(Path(wanted["folder"]), [check for check in CHECKS if check.name in wanted["checks"]])
