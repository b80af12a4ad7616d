"""The `export` command."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htr_lightning.cli.arguments import Checkpoint, Overrides, progress_bar, progress_text, typer_app
from htr_lightning.errors import InputError
from htr_lightning.output import check_copy, writing

if TYPE_CHECKING:
    from htr_lightning.evidence.parity import Parity

MAX_KEPT = 8  # layers that INT8 may leave in float32 before it gives up


@typer_app.command()
def export(
    checkpoint: Checkpoint,
    to: Annotated[
        Literal["onnx", "fp16", "int8", "int8-exact", "openvino", "tensorrt"],
        typer.Option(help="onnx: the same text; fp16: half the size; int8: a quarter, fastest on a CPU; int8-exact: "
                     "closer to the checkpoint, as large, slower; openvino, tensorrt: for these runtimes"),
    ],
    out: Annotated[Path, typer.Option(help="Output file, NAME.onnx")],
    overrides: Overrides = None,
    budget: Annotated[float, typer.Option(min=0, help="CER that may be lost, in percentage points")] = 0.1,
    lines: Annotated[int | None, typer.Option(min=1, help="Number of lines to check (default: all)")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to check on")] = "val",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:  # fmt: skip
    """Export a checkpoint to a file that reads without PyTorch, and check on lines of a data set what changes."""
    if out.suffix != ".onnx":
        raise InputError(f"--out {out}: exported files are ONNX models; choose a name that ends in .onnx")
    check_copy(out, checkpoint)  # fail early, before the work starts
    from htr_lightning.build import check_whole, data_for
    from htr_lightning.evidence import parity
    from htr_lightning.export import build
    from htr_lightning.export.session import provider_of
    from htr_lightning.reading.open import load_one

    check_whole(overrides or [], split)
    recognizer = load_one(checkpoint, "cpu")
    data = data_for(recognizer, overrides or [])
    images = parity.calibration_images(data) if to in build.MEASURED else []
    beside, keep = out.with_name(f".{out.stem}.unchecked.onnx"), list[str]()
    try:
        while True:
            with progress_text("exporting") as tell:
                content = build.export(checkpoint, recognizer, to, images, keep, tell)
            with writing(out):
                beside.write_bytes(content)
            if to == "tensorrt":
                print(f"to build an engine: {build.trtexec(beside, out)}", file=sys.stderr)
                try:
                    provider_of(to, "auto")
                except InputError as error:
                    beside.replace(out)
                    print(f"note: {out} is written but not checked, since {error}", file=sys.stderr)
                    return
            with progress_bar("checking", lines or len(data.lines(split))) as advance:
                found = parity.measure(recognizer, checkpoint, beside, data, split, lines, advance)
            fault = found.fault(budget)
            if not fault or to != "int8" or len(keep) >= MAX_KEPT:
                break
            with progress_text("looking for sensitive layers"):
                keep += build.sensitive_layers(recognizer, images, keep)
            print(f"note: {fault}; trying again with {len(keep)} layers in float32", file=sys.stderr)
        if as_json:
            print(json.dumps(found.to_plain(), indent=1))
        else:
            _print(found)
        if fault:
            raise InputError(f"{out}: not written, since {fault}; check more lines, use --to int8-exact or onnx, or "
                             "raise --budget")  # fmt: skip
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    if not as_json:
        print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def _print(found: "Parity") -> None:
    """Print what an export changes: the text of lines, and the speed of reading."""
    change, interval = found.difference, ""
    if change.low is not None and change.high is not None:
        interval = f", {100 * change.low:+.3f} to {100 * change.high:+.3f} over {change.units} {change.over}"
    names = list(found.speed)
    changes = {
        "lines": f"{found.lines}",
        "lines with another text": f"{found.other_texts}",
        "texts that vary by batch": f"{found.in_batches}",
        "largest score difference": f"{found.largest_difference:.2g}",
        "CER": f"{found.before.cer:.2%} -> {found.after.cer:.2%}",
        "change, 95% interval": f"{100 * change.value:+.3f} points{interval}",
    }
    for name, value in changes.items():
        print(f"{name:26}{value}")
    print(f"\n{'':26}{names[0]:>10}{names[1]:>12}{'ratio':>8}")
    ours, theirs = (found.speed[name] for name in names)
    rates, latencies = ours.lines_per_second, ours.latency_ms
    rows = [(f"lines/s, {key}", rate, theirs.lines_per_second[key]) for key, rate in rates.items()]
    rows += [(f"latency {key}, ms", value, theirs.latency_ms[key]) for key, value in latencies.items()]
    rows += [
        ("start, s", ours.start_seconds, theirs.start_seconds),
        ("memory, MB", ours.memory_mb, theirs.memory_mb),
        ("file, MB", ours.file_mb, theirs.file_mb),
    ]
    for name, one, other in rows:
        digits = 0 if one >= 100 else 1 if one >= 10 else 2
        print(f"{name:26}{one:10.{digits}f}{other:12.{digits}f}{other / one:8.2f}")
    print()
