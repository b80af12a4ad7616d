"""Commands that make a better checkpoint of one."""

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
    check_whole,
    progress_bar,
    split_checkpoints,
    typer_app,
)
from htr_lightning.errors import InputError
from htr_lightning.output import check_writable


@typer_app.command()
def calibrate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The new checkpoint (default: CHECKPOINT-calibrated.ckpt)")] = None,
    weights: Weights = None,
    tta: Views = 1,
    device: Device = "auto",
) -> None:
    """Make confidences probabilities by a calibration fitted on the validation lines; texts stay as they are.

    That of one checkpoint is written into a copy of it. That of an ensemble is printed, for --calibration, after the
    weights with which it reads best, for --weights.
    """
    from htr_lightning.adapt import calibrate as verb
    from htr_lightning.card import describe
    from htr_lightning.config import data_for
    from htr_lightning.evidence.evaluate import evaluate as measure
    from htr_lightning.evidence.evaluate import read_split
    from htr_lightning.reading.open import load_all
    from htr_lightning.reading.voting import Ensemble

    checkpoints, given = split_checkpoints(checkpoint, overrides or [])
    check_whole(given, "val")
    is_ensemble = len(checkpoints) > 1 or tta > 1
    if is_ensemble and out is not None:
        raise InputError(f"--out {out}: an ensemble is no checkpoint, its calibration is printed; remove --out")
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-calibrated.ckpt")
    recognizer = load_all(checkpoints, device, False, tta, "1,0", weights)
    if not is_ensemble:
        check_writable(out)  # before the work, not after it
    data = data_for(recognizer, given)
    lines = describe(data, "val")
    with progress_bar("reading", lines["lines"]) as progress:

        def advance(count: int) -> None:
            progress.advance(progress.task_ids[0], count)

        if isinstance(recognizer, Ensemble) and len(checkpoints) > 1 and weights is None:
            read = read_split(recognizer, recognizer.hypotheses, data, "val", advance)
            fit = verb.fit_weights(recognizer, read)
            predictions, weights = fit.predictions, ",".join(f"{weight:g}" for weight in fit.weights)
            print(f"{lines['lines']} validation lines: weights {weights}, "
                  f"CER {fit.before.cer:.2%} with equal ones -> {fit.after.cer:.2%}")  # fmt: skip
        else:
            predictions, _ = measure(recognizer, data, "val", advance)
    found = verb.calibrate(predictions)
    scale = f"{found.scale.slope:.3f},{found.scale.bias:.3f}"
    print(f"{lines['lines']} validation lines: calibration {scale}, "
          f"ECE of characters {found.before['ece']:.2%} -> {found.after['ece']:.2%}, "
          f"of lines {found.before['line_ece']:.2%} -> {found.after['line_ece']:.2%}")  # fmt: skip
    if is_ensemble:
        print(*(["--weights", weights] if weights else []), "--calibration", scale)
    else:
        verb.write(checkpoint, out, found, lines)
        print(out)


@typer_app.command("fine-tune", context_settings={"ignore_unknown_options": True})
def fine_tune(checkpoint: Checkpoint, overrides: Overrides = None) -> None:
    """Train a checkpoint on with other data: data=page_xml data.root=... replay=copiste; see conf/fine_tune.yaml."""
    from htr_lightning.training.fine_tune import fine_tune as run

    run(checkpoint, overrides or [])


@typer_app.command("tune-decoder")
def tune_decoder(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="File with a line of text a line, more than once for several; train: the training texts"),
    ] = None,
    arpa: Annotated[Path | None, typer.Option(help="Character n-gram model to read; right-to-left as seen")] = None,
    space: Annotated[
        str | None, typer.Option(help="What stands for the space in the file of --arpa (default: <space>)")
    ] = None,
    lexicon: Annotated[str | None, typer.Option(help="Read only words of this file, one a line, or of train")] = None,
    order: Annotated[int, typer.Option(help="Of the character n-grams that are estimated")] = 6,
    out: Annotated[Path | None, typer.Option(help="The new checkpoint (default: CHECKPOINT-lm.ckpt)")] = None,
    device: Device = "auto",
) -> None:
    """Give a checkpoint a language model, its weights tuned on the validation lines; see conf/decoder/.

    Overrides change the data, as for evaluate, or the beam: decoder.width=64.
    """
    from htr_lightning.adapt import tune_decoder as tune
    from htr_lightning.card import describe
    from htr_lightning.config import data_for
    from htr_lightning.reading.open import load

    if order < 1:
        raise InputError(f"--order {order}: an n-gram model has an order of 1 or more; 6 suits characters")
    if arpa is not None and text:
        raise InputError("--arpa and --text together: a model is read or estimated; give one of them")
    if space is not None and arpa is None:
        raise InputError(f"--space {space}: is for the file of --arpa; name that as well, or leave it away")
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-lm.ckpt")
    recognizer = load(checkpoint, device)
    check_writable(out)  # before the work, not after it
    given = overrides or []
    settings = tune.beam_settings([one for one in given if one.startswith("decoder.")], recognizer)
    data = data_for(recognizer, [one for one in given if not one.startswith("decoder.")])
    names = text or ([tune.TRAIN] if arpa is None else [])
    train = data.lines("train").texts if tune.TRAIN in (*names, lexicon) else []
    texts: list[str] = []
    for name in names:
        texts += train if name == tune.TRAIN else tune.read_lines(Path(name), recognizer)
    language, notes = tune.make_language(recognizer, texts, order, arpa, lexicon, train, space)
    print(*notes, sep="\n")
    lines = describe(data, "val")
    with progress_bar("tuning", None) as progress:
        found = tune.tune(
            recognizer, data, language, settings, lambda text: progress.update(progress.task_ids[0], description=text)
        )
    tune.write(checkpoint, out, language, found, lines)
    print(f"{lines['lines']} validation lines:\n{'':16}{'CER':>8}{'change':>9}{'lines/s/core':>14}")
    first = found.measured[0].totals
    for name, totals, speed in found.measured:
        change = f"{totals.edits / max(1, first.edits) - 1:+.1%}" if totals is not first else ""
        print(f"{name:16}{totals.cer:8.2%}{change:>9}{speed:14,.0f}")
    print(f"alpha {found.decoder['alpha']:g}, beta {found.decoder['beta']:g} -> {out}")
    *others, tuned = found.measured
    least = min(others, key=lambda one: one.totals.edits)
    if tuned.totals.edits >= least.totals.edits:
        print(f"note: it reads no better than {least.name} without it; go on with {checkpoint}", file=sys.stderr)
