"""Commands that train recognizers, and that improve or convert checkpoints."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from htr_lightning.cli.arguments import (
    Checkpoint,
    Device,
    Overrides,
    Views,
    Weights,
    numbers,
    progress_bar,
    progress_text,
    split_checkpoints,
    typer_app,
)
from htr_lightning.errors import InputError
from htr_lightning.output import check_copy


@typer_app.command()
def calibrate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Output checkpoint (default: CHECKPOINT-calibrated.ckpt)")] = None,
    weights: Weights = None,
    tta: Views = 1,
    device: Device = "auto",
) -> None:
    """Calibrate confidences on the validation lines; transcriptions stay the same.

    A single checkpoint is copied to --out with its calibration. For an ensemble, the calibration and the best weights
    are printed as values for --calibration and --weights.
    """
    from htr_lightning.adapt import calibrate as verb
    from htr_lightning.build import check_whole, data_for
    from htr_lightning.card import describe
    from htr_lightning.reading.open import load_all

    others, given = split_checkpoints(overrides or [])
    checkpoints = [checkpoint, *others]
    check_whole(given, "val")
    is_ensemble = len(checkpoints) > 1 or tta > 1
    if is_ensemble and out is not None:
        raise InputError(f"--out {out}: the calibration of an ensemble is printed, not written; remove --out")
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-calibrated.ckpt")
    recognizer = load_all(checkpoints, device, False, tta, (1.0, 0.0), numbers("--weights", weights), exported=False)
    if not is_ensemble:
        check_copy(out, checkpoint)  # fail early, before the work starts
    data = data_for(recognizer, given)
    lines = describe(data, "val")
    with progress_bar("evaluating", lines["lines"]) as advance:
        found = verb.fit(recognizer, data, len(checkpoints) > 1 and weights is None, advance)
    if found.weighted is not None:
        weights = ",".join(f"{weight:g}" for weight in found.weighted.weights)
        print(f"{lines['lines']} validation lines: weights {weights}; "
              f"CER {found.weighted.before.cer:.2%} with equal weights -> {found.weighted.after.cer:.2%}")  # fmt: skip
    print(f"{lines['lines']} validation lines\n{'confidence of':16}{'ECE':18}{'Brier score':18}{'NLL':18}AURC")
    for level, before in found.before.items():
        after = found.after[level]
        cells = (f"{before[name]:.4f} -> {after[name]:.4f}" for name in ("ece", "brier", "nll"))
        print(f"{level + 's':16}" + "".join(f"{cell:18}" for cell in cells) + f"{after['aurc']:.4f}")
    if is_ensemble:
        scalings = ",".join(f"{number:.3f}" for number in found.calibration.numbers())
        print(*(["--weights", weights] if weights else []), "--calibration", scalings)
    else:
        verb.write(checkpoint, out, found, lines)
        print(out)


@typer_app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides, e.g. experiment=synthetic trainer=gpu")
    ] = None,
) -> None:
    """Train a recognizer as train.py does, e.g. with experiment=synthetic; htr train -h lists recipes and options."""
    from htr_lightning.training.launch import train as run

    sys.argv[1:] = overrides or []  # Hydra reads them from there
    run(("train",))


@typer_app.command("fine-tune", context_settings={"ignore_unknown_options": True})
def fine_tune(checkpoint: Checkpoint, overrides: Overrides = None) -> None:
    """Fine-tune a checkpoint on other data, e.g. data=page_xml data.root=FOLDER; see conf/fine_tune.yaml."""
    from htr_lightning.training.fine_tune import fine_tune as run

    run(checkpoint, overrides or [])


@typer_app.command("tune-decoder")
def tune_decoder(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="File with one text per line, or 'train' for the training texts (default; repeatable)"),
    ] = None,
    arpa: Annotated[
        Path | None,
        typer.Option(help="ARPA file with a character n-gram model of text in visual order; used instead of --text"),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Symbol that represents a space in the --arpa file (default: <space>)")
    ] = None,
    lexicon: Annotated[
        str | None,
        typer.Option(help="File with the allowed words, one per line, or 'train' for the words in the training texts"),
    ] = None,
    order: Annotated[int, typer.Option(help="Order of the n-gram model to estimate")] = 6,
    min_count: Annotated[
        int, typer.Option(help="Minimum count of n-grams with at least three characters; 2 halves the model")
    ] = 1,
    out: Annotated[Path | None, typer.Option(help="Output checkpoint (default: CHECKPOINT-lm.ckpt)")] = None,
    device: Device = "auto",
) -> None:
    """Add a language model to a checkpoint, and tune the weights alpha and beta on validation lines; see conf/decoder/.

    Overrides change the data, as for htr evaluate, or the beam search, e.g. decoder.width=64.
    """
    from htr_lightning.adapt import tune_decoder as verb
    from htr_lightning.build import data_for
    from htr_lightning.card import describe
    from htr_lightning.reading.open import load_one

    source = verb.LanguageSource(text or (), arpa, space, lexicon, order, min_count)
    verb.check_source(source)
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-lm.ckpt")
    recognizer = load_one(checkpoint, device)
    check_copy(out, checkpoint)  # fail early, before the work starts
    given = overrides or []
    settings = verb.beam_settings([one for one in given if one.startswith("decoder.")], recognizer)
    data = data_for(recognizer, [one for one in given if not one.startswith("decoder.")])
    language, notes = verb.make_language(recognizer, data, source)
    print(*notes, sep="\n")
    lines = describe(data, "val")
    with progress_text("tuning") as advance:
        found = verb.tune(recognizer, data, language, settings, advance)
    verb.write(checkpoint, out, language, found, lines)
    print(f"{lines['lines']} validation lines:\n{'':16}{'CER':>8}{'change':>9}{'lines/s/core':>14}")
    first = found.measured[0].totals
    for name, totals, speed in found.measured:
        change = f"{totals.edits / max(1, first.edits) - 1:+.1%}" if totals is not first else ""
        print(f"{name:16}{totals.cer:8.2%}{change:>9}{speed:14,.0f}")
    print(f"alpha {found.decoder['alpha']:g}, beta {found.decoder['beta']:g} -> {out}")
    if not found.helps:
        print(f"note: the language model does not reduce errors; use {checkpoint} without it", file=sys.stderr)


@typer_app.command()
def upgrade(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Output checkpoint")],
) -> None:
    """Convert a checkpoint from an earlier version of htr-lightning to the current format, keeping its weights."""
    from htr_lightning.upgrade import upgrade_file

    check_copy(out, checkpoint)  # fail early, before the work starts
    if note := upgrade_file(checkpoint, out):
        print(f"note: {note}", file=sys.stderr)
    print(out)


@typer_app.command()
def compress(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Output checkpoint")],
) -> None:
    """Write a copy of a checkpoint a quarter of its size, with 8-bit weights, for transcription and fine-tuning."""
    from htr_lightning import checkpoint as file

    check_copy(out, checkpoint)  # fail early, before the work starts
    file.write(file.compress(file.read(checkpoint)), out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
