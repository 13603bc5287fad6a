"""Runs checks in the environment of the wheel, one after the other, and writes each result before the next check.

A check can kill the process, and a failed kernel leaves the device unusable. Therefore each line is flushed to disk
before the next check starts, and the process ends after a failed GPU check so that a new process runs the rest.
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

from . import (
    checks_install,
    checks_reference,
    checks_render_gradients,
    checks_render_process,
    checks_render_raster,
    checks_render_sampling,
    faults,
    machine,
)
from .bench import Bench, Check, Outcome, describe_error
from .record import Result

# Every check of the gate, in the order in which they run.
CHECKS = (
    *checks_install.CHECKS,
    *checks_reference.CHECKS,
    *checks_render_raster.CHECKS,
    *checks_render_sampling.CHECKS,
    *checks_render_gradients.CHECKS,
    *checks_render_process.CHECKS,
)
# The name of the result of importing nvdiffrast.
IMPORT = "import"
# A check takes a few seconds, most of them for the reference.
CHECK_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Setup:
    """The bench, or the reasons why checks cannot run.

    Attributes:
        bench: The bench; None if nvdiffrast cannot be imported.
        gpu_missing: Why checks that need a GPU cannot run; empty if they can.
        import_failed: Why no check can run; empty if checks can run.
    """

    bench: Bench | None
    gpu_missing: str = ""
    import_failed: str = ""


def run_checks(folder: Path, checks: Iterable[Check]) -> None:
    """Run the checks; write results to `results.jsonl` in ``folder``, and images to `CHECK--NAME.npy` beside it."""
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        torch = importlib.import_module("torch")
        gpu = machine.gpu(torch)
        write({"machine": gpu, "versions": machine.versions(torch, np)})
        write({"start": IMPORT})
        setup, import_result = _import_nvdiffrast(torch, gpu)
        write({"result": dataclasses.asdict(import_result)})
        for check in checks:
            write({"start": check.name})
            result, images = run_check(check, setup)
            for name, image in images.items():
                np.save(folder / f"{check.name}--{name.replace('/', ' ')}.npy", image)
            write({"result": dataclasses.asdict(result)})
            if result.state == "failed" and check.needs_gpu:
                break


def _import_nvdiffrast(torch: Any, gpu: dict[str, str]) -> tuple[Setup, Result]:
    """Import nvdiffrast and find out which checks can run."""
    begin = time.monotonic()
    try:
        dr = importlib.import_module("nvdiffrast.torch")
        info = json.loads((Path(str(dr.__file__)).parent.parent / "build_info.json").read_text(encoding="utf-8"))
        release, kernels = str(info["release"]), info["architectures"]
        missing = gpu.get("missing") or _missing_kernels(gpu["capability"], kernels["sass"], kernels["ptx"])
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        setup = Setup(None, import_failed="nvdiffrast.torch cannot be imported")
        return setup, Result(IMPORT, "failed", detail, needs_gpu=False)
    seconds = time.monotonic() - begin
    device = "cuda:0"
    known_faults = faults.known_faults(release)
    bench = Bench(dr, torch, device, lambda: dr.RasterizeCudaContext(device=device), release, known_faults)
    detail = f"nvdiffrast.torch of release {release}, after torch"
    return Setup(bench, missing), Result(IMPORT, "passed", detail, seconds, needs_gpu=False)


def _missing_kernels(capability: str, sass: list[str], ptx: list[str]) -> str:
    if machine.supports(capability, sass, ptx):
        return ""
    wheel = f"SASS {', '.join(sass) or '-'}, PTX {', '.join(ptx) or '-'}"
    return f"the wheel has no kernels for compute capability {capability}, only {wheel}"


def run_check(check: Check, setup: Setup) -> tuple[Result, dict[str, Any]]:
    """Run one check and return its result and images.

    The result is "failed" if the check raises an exception, and "untested" if the check cannot run on this machine.
    """
    missing = setup.import_failed or (setup.gpu_missing if check.needs_gpu else "")
    begin = time.monotonic()
    if setup.bench is None or missing:
        outcome = Outcome("untested", missing)
    else:
        faulthandler.dump_traceback_later(CHECK_TIMEOUT_SECONDS, exit=True)
        try:
            outcome = check.run(setup.bench)
        except Exception as error:
            outcome = Outcome("failed", describe_error(error))
        faulthandler.cancel_dump_traceback_later()
    figures = {name: float(value) for name, value in outcome.figures.items()}
    seconds = round(time.monotonic() - begin, 3)
    result = Result(check.name, outcome.state, outcome.detail, seconds, check.needs_gpu, check.optional, figures)
    return result, outcome.images


def main(job_file: Path) -> None:
    """Run the job in ``job_file``.

    The file is JSON with "folder", the directory for the results, "site", a directory to add to sys.path or null, and
    "checks", the names of the checks to run.
    """
    faulthandler.enable()
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if job["site"]:
        sys.path.insert(0, job["site"])
    run_checks(Path(job["folder"]), [check for check in CHECKS if check.name in job["checks"]])
