"""Run each job of a sweep in a process of its own, and record how it ended.

A job may run out of memory, lose a rank or leave the GPU unusable: the sweep and its other jobs then go on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from htr_lightning.config import external_rank, is_sweep, varying
from htr_lightning.errors import InputError, chain, first_line
from htr_lightning.output import beside
from htr_lightning.training.signals import handled

RECORD = "job.json"  # in the folder of a job
# SLURM and submitit send the last one before a job is requeued.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
GRACE = 10  # seconds that other ranks and loading processes have to end after the first process of a job
FINISHED = ("done", "pruned")


def read_record(folder: Path) -> dict[str, Any]:
    """Return what is known about a job: its `state`, `overrides`, `value`, `seconds` and `error`, as far as it got."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def record(folder: Path, **fields: Any) -> None:
    """Add fields to the record of a job."""
    fields = read_record(folder) | fields
    with beside(folder / RECORD) as new:
        new.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")


class SweepJob(Callback):
    """A Hydra callback that records the value or error of a job, and leaves nothing of a run in its process."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if HydraConfig.get().mode is RunMode.MULTIRUN:  # the record was made by the process of the job
            return
        if wandb := sys.modules.get("wandb"):
            wandb.finish()  # otherwise, the next run in this process would log to the W&B run of this one
        torch = sys.modules.get("torch")  # not imported if the run failed early
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if is_sweep():
            folder = Path(HydraConfig.get().runtime.output_dir)
            if job_return.status is JobStatus.FAILED:
                if "error" not in read_record(folder):  # other ranks fail because the first one did
                    record(folder, error=described(job_return._return_value))
            elif external_rank() == 0 and os.environ.get("LOCAL_RANK", "0") == "0":
                record(folder, value=job_return.return_value)


def described(error: BaseException) -> str:
    """Return an error as one line, with its class unless it was written for the user."""
    for link in chain(error):
        if isinstance(link, InputError):
            return str(link)
    return f"{type(error).__name__}: {first_line(error)}"


def lost_process(error: BaseException) -> bool:
    """Return whether a launcher reports that one of its processes has died."""
    return type(error).__module__.startswith(("submitit.", "joblib."))


def run_apart(command: Sequence[str]) -> float | None:
    """Run the current job of a sweep in another process, and return its value, or None if it failed.

    The job continues from its last checkpoint if it was stopped before, e.g. by the scheduler, and is not repeated if
    it has already finished.

    Args:
        command: arguments of `htr` that precede the overrides.

    Raises:
        SystemExit: with 128 plus the number of the signal, if a signal stopped the sweep.
    """
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    name = f"job {hydra.job.num}: {' '.join(varying(overrides, Path(hydra.sweep.dir)))}".rstrip(": ")
    known = read_record(folder)
    if known and known["overrides"] != overrides:
        raise InputError(f"{folder}: contains another job ({' '.join(known['overrides'])}); choose another "
                         "hydra.sweep.dir")  # fmt: skip
    if known.get("state") in FINISHED:
        print(f"{name} (already {known['state']})", flush=True)
        return known["value"]
    last = folder / "checkpoints" / "last.ckpt"
    resume = [f'resume="{last}"'] if known and last.is_file() else []
    print(f"{name}{' (continued)' * bool(resume)}", flush=True)
    known.pop("error", None)
    first = external_rank() == 0
    if first:
        (folder / RECORD).unlink(missing_ok=True)
        record(folder, **known | {"state": "running", "overrides": overrides})
    options = [f"--config-name={hydra.job.config_name}"]
    added = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    options += [f"--config-dir={path}" for path in added]
    place = [f'hydra.run.dir="{folder}"', f'hydra.sweep.dir="{Path(hydra.sweep.dir).absolute()}"']
    place += [f"hydra.job.num={hydra.job.num}"]
    others = [one for one in hydra.overrides.hydra if not one.startswith(("hydra.mode=", "hydra/launcher="))]
    others = [one for one in others if not one.startswith("hydra.launcher.")]
    program = [sys.executable, "-m", "htr_lightning", *command]
    since = time.time()
    try:
        code = _run([*program, *options, *overrides, *others, *place, *resume])
    finally:
        if first:
            record(folder, seconds=known.get("seconds", 0.0) + time.time() - since)
    if not first:
        return None
    known = read_record(folder)
    outcome = {"state": "pruned" if known["state"] == "pruned" else "done"}
    if code != 0 or "value" not in known:
        outcome = {"state": "failed", "error": known.get("error") or ending(code)}
        print(f"job {hydra.job.num} failed: {outcome['error']}", file=sys.stderr, flush=True)
    record(folder, **outcome)
    return known["value"] if outcome["state"] in FINISHED else None


def _run(arguments: Sequence[str]) -> int:
    """Run a program in a session of its own to its end, and return its exit code, after which no process is left."""
    root = str(Path(__file__).resolve().parents[2])  # the package may not be installed
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    if environment.get("SLURM_NTASKS") == "1":
        del environment["SLURM_NTASKS"]  # otherwise, Lightning would wait for SLURM to start the other ranks
    child = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        with _forwarding(child) as (received, before):
            code = child.wait()
    finally:
        _end(child)
    if received:
        number, handler = received[0], before[received[0]]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)  # submitit requeues the job
        raise SystemExit(128 + number)
    return code


@contextmanager
def _forwarding(child: subprocess.Popen) -> Iterator[tuple[list[int], dict[int, Any]]]:
    """Send signals on to a process, and yield a list of those received, and the handlers that they had before."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        saves = number != getattr(signal, "SIGUSR2", None)  # of which a run knows nothing
        child.send_signal(number if saves else signal.SIGTERM)

    with handled(SIGNALS, receive) as before:
        yield received, before


def _end(child: subprocess.Popen) -> None:
    """Wait for the processes that a job has started, and kill those that do not end."""
    if not hasattr(os, "killpg"):  # Windows
        child.kill()
        return
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    until = time.monotonic() + GRACE
    with suppress(ProcessLookupError, PermissionError):  # none is left; macOS says so of one that is ending
        while time.monotonic() < until:
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)


def ending(code: int) -> str:
    """Return how a process ended that has recorded neither a value nor an error."""
    if code < 0 or 128 < code < 128 + 64:
        return f"ended by {signal.Signals(-code if code < 0 else code - 128).name}"
    return f"ended with exit code {code}; see the messages above or train.log"


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a scheduler's signals end this process as exceptions do, so that launchers end the processes they started."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with handled(("SIGTERM", "SIGHUP"), stop):
        yield
