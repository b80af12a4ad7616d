"""Read runs that were logged to Weights & Biases: offline ones from their files, others from the server."""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.errors import InputError, first_line
from htr_lightning.evidence.runs import Curve
from htr_lightning.evidence.table import Cell, Column, Table

BLOCK, HEADER = 32768, 7  # bytes of a block of a .wandb file, and of the header of the file and of each chunk
KINDS = FULL, FIRST, _, LAST = 1, 2, 3, 4  # of chunks: a whole record, or its first, a middle or its last part
STEP = "trainer/global_step"


class TrackedRun(NamedTuple):
    """A run as a tracker knows it."""

    name: str
    group: str  # its sweep, or ""
    tags: list[str]
    config: dict[str, Any]
    curves: dict[str, Curve]  # keyed by logged name: train/loss, val/cer, ...
    summary: dict[str, Any]


def offline_runs(folder: str | Path) -> list[TrackedRun]:
    """Return the offline W&B runs in a folder, at any depth, the parts of a resumed run as one, sorted by path.

    Raises:
        InputError: if no run is found, or a file is corrupted.
    """
    parts: dict[Path, list[Path]] = {}
    for path in sorted(Path(folder).rglob("offline-run-*/*.wandb")):
        parts.setdefault(path.parent.parent / path.name, []).append(path)  # the name contains the id of the run
    if not parts:
        raise InputError(f"{folder}: contains no offline W&B run; choose a run folder, or log with logger=wandb")
    return [_offline_run(paths) for paths in parts.values()]


def online_runs(path: str, api: Any = None) -> list[TrackedRun]:
    """Return the runs of a W&B project from the server.

    Args:
        path: ENTITY/PROJECT.
        api: a `wandb.Api`; None to log in as `wandb login` has set up.

    Raises:
        InputError: if the server does not answer or knows no such project.
    """
    import wandb

    try:
        runs = (api or wandb.Api()).runs(path)
        found = []
        for run in runs:
            curves: dict[str, Curve] = {}
            for row in run.scan_history():
                _add(curves, row)
            summary = {key: value for key, value in dict(run.summary).items() if not key.startswith("_")}
            found.append(TrackedRun(run.name, run.group or "", list(run.tags), dict(run.config), curves, summary))
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise InputError(f"{path}: {first_line(error).rstrip('.')}; check ENTITY/PROJECT and wandb login") from None
    return found


def table(runs: Iterable[TrackedRun]) -> Table:
    """Return the results of tracked runs, without those that have none, such as the run of a whole sweep."""
    columns = [Column("run"), Column("group"), Column("val CER", "percent"), Column("test CER", "percent"),
               Column("95 % interval"), Column("commit")]  # fmt: skip
    rows: list[list[Cell]] = []
    for run in runs:
        its = run.summary
        if "test_cer" in its:
            interval = its.get("test_cer_interval")
            bounds = f"{100 * interval['low']:.2f} to {100 * interval['high']:.2f} %" if interval else None
            commit = run.config.get("card", {}).get("commit")
            rows.append([run.name, run.group, its.get("val_cer"), its["test_cer"], bounds, commit and commit[:12]])
    return Table("tracked", "Runs", columns, rows)


def _offline_run(paths: list[Path]) -> TrackedRun:
    """Read the parts of a run, the earliest first; later values replace earlier ones of the same step."""
    name = group = ""
    tags: list[str] = []
    config: dict[str, Any] = {}
    curves: dict[str, Curve] = {}
    summary: dict[str, Any] = {}
    for path in paths:
        try:
            for record in _records(path):
                if record.HasField("run"):
                    name, group, tags = record.run.display_name, record.run.run_group, list(record.run.tags)
                for update in (*record.run.config.update, *record.config.update):
                    config[update.key] = json.loads(update.value_json)
                for update in record.summary.update:
                    _set(summary, update.nested_key or [update.key], json.loads(update.value_json))
                row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                _add(curves, {key: json.loads(value) for key, value in row.items()})
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)}); remove the file") from None
    config.pop("_wandb", None)
    return TrackedRun(name, group, tags, config, curves, {k: v for k, v in summary.items() if not k.startswith("_")})


def _set(values: dict[str, Any], keys: Any, value: Any) -> None:
    for key in list(keys)[:-1]:
        values = values.setdefault(key, {}) if isinstance(values.get(key, {}), dict) else {}
    values[list(keys)[-1]] = value


def _add(curves: dict[str, Curve], row: dict[str, Any]) -> None:
    """Add the numbers of a row of the history to the curves, at the optimizer step at which they were logged."""
    step = row.get(STEP)
    if not isinstance(step, int | float):
        return
    for key, value in row.items():
        if key.startswith("_") or key == STEP or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        curve = curves.setdefault(key, Curve([], []))
        while curve.steps and curve.steps[-1] >= step:  # the run was resumed before this step
            curve.steps.pop()
            curve.values.pop()
        curve.steps.append(int(step))
        curve.values.append(float(value))


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file, which is a log in LevelDB's format; an unfinished end is left out."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    data, position, whole = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        if (rest := BLOCK - position % BLOCK) < HEADER:
            position += rest
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        if kind not in KINDS:
            raise ValueError(f"no chunk at byte {position}")
        chunk = data[position + HEADER : position + HEADER + length]
        if len(chunk) < length:
            return  # the run is still being written, or was killed
        whole = chunk if kind in (FULL, FIRST) else whole + chunk
        position += HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            try:
                record.ParseFromString(whole)
            except Exception as error:  # of protobuf, whose class depends on its implementation
                raise ValueError(f"not a record: {first_line(error)}") from None
            yield record
