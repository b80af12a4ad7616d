"""Rank references by how likely they are to be wrong, judged by recognizers that were trained without them.

The training lines are divided into folds, and the lines of each fold are read by a recognizer that was trained on the
other folds, so that none has learned the errors that it judges (Northcutt et al., 2021, "Confident learning:
estimating uncertainty in dataset labels", arXiv:1911.00068, section 3).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import editdistance
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning import checkpoint
from htr_lightning.audit.plant import plant
from htr_lightning.build import data_for, open_data
from htr_lightning.child_process import run_command
from htr_lightning.data.batch import Batch
from htr_lightning.data.line_dataset import LineDataset
from htr_lightning.data.subset import in_range
from htr_lightning.errors import InputError, printable
from htr_lightning.model.base import Recognizer
from htr_lightning.output import replacing

SHRINKAGE = 5  # lines of a writer whose median counts as much as that of all lines
PLAN, PLANTED, TABLE = "label_errors.json", "planted.tsv", "label_errors.tsv"


class Judged(NamedTuple):
    """What a recognizer that was not trained on a line thinks of its reference."""

    id: str
    group: str
    position: int  # in the split
    reference: str  # as in the data
    normalized: str
    reading: str
    surprise: float  # -log p(reference | image) in nats, without characters that the network does not know
    least: float  # the same for the reading


class Suspect(NamedTuple):
    """A judged line with its score; a higher score is more suspicious."""

    line: Judged
    score: float


class Found(NamedTuple):
    """How many planted errors are among the most suspicious lines."""

    planted: int
    recall: float  # among twice as many lines as there are planted errors
    precision: float  # among the first `AT`
    by_kind: dict[str, tuple[int, int]]  # found among twice as many lines, and planted


AT = 50  # number of lines among which the precision of planted errors is stated


class CrossFit(NamedTuple):
    """How recognizers are trained, and where.

    Attributes:
        folder: output folder, with a run folder for each fold.
        overrides: overrides of train.py that select the data, the model and the length of the training.
        folds: number of folds.
        plant: fraction of the references to alter before training, to measure how many are found; 0 for none.
        seed: random seed of these errors.
        split: split whose references are judged; only training lines can be judged by cross-fitting.
        recognizer: checkpoint of one that was not trained on the split; None to train one for each fold.
    """

    folder: Path
    overrides: Sequence[str]
    folds: int = 2
    plant: float = 0.0
    seed: int = 0
    split: str = "train"
    recognizer: str | None = None

    def run(self, fold: int) -> Path:
        """Return the run folder of a fold, counted from 0."""
        return self.folder / f"fold-{fold + 1}"

    def given(self) -> list[str]:
        """Return the overrides of training, with the altered references if there are any."""
        return [*self.overrides, *([f'data.texts="{self.folder / PLANTED}"'] if self.plant else [])]


def prepare(fit: CrossFit) -> int:
    """Check the data and the output folder, write altered references if they are wanted, and return the number of
    lines to judge.

    Raises:
        InputError: if the data cannot be read, the folder was written by another command, or there are too few lines.
    """
    if fit.split != "train" and fit.recognizer is None:
        raise InputError(f"--split {fit.split}: only training lines can be divided into folds; add --recognizer "
                         "CHECKPOINT, one that was not trained on this split")  # fmt: skip
    taken = ("data.held_out=", "hydra.run.dir=", "resume=", *(["data.texts="] if fit.plant else []))
    if given := next((one for one in fit.overrides if one.lstrip("+").startswith(taken)), None):
        raise InputError(f"{given}: is set by htr label-errors{' --plant' * bool(fit.plant)}; remove this override")
    reader = open_data(fit.overrides, one_pass=True).data.open(fit.split)
    if fit.recognizer is None and len(reader) < 2 * fit.folds:
        raise InputError(f"--folds {fit.folds}: {len(reader)} training lines are too few; use fewer folds or more data")
    plan = {key: value for key, value in fit._asdict().items() if key != "folder"} | {"overrides": list(fit.overrides)}
    path, content = fit.folder / PLAN, json.dumps(plan, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text() != content:
        raise InputError(f"{path}: other settings than before; repeat the command as it was, or choose another --out")
    if fit.plant:
        planted = plant(reader.texts, reader.groups, fit.plant, fit.seed)
        with replacing(fit.folder / PLANTED) as table:
            rows = [f"{reader.ids[place]}\t{kind}\t{text}\n" for place, (kind, text) in planted.items()]
            table.write_text("id\tkind\ttext\n" + "".join(rows), encoding="utf-8")
    with replacing(path) as new:
        new.write_text(content)
    return len(reader)


def bounds(fit: CrossFit, lines: int, fold: int) -> list[int]:
    """Return the range of training lines of a fold, in the order of `data.subset`."""
    return [lines * fold // fit.folds, lines * (fold + 1) // fit.folds]


def train(fit: CrossFit, lines: int, fold: int) -> None:
    """Train the recognizer of a fold on all others, as `htr train` does; go on if it was interrupted.

    Raises:
        InputError: if the training fails.
    """
    folder = fit.run(fold)
    if (folder / "summary.json").is_file():
        return
    last = folder / "checkpoints" / "last.ckpt"
    held_out = f"data.held_out={bounds(fit, lines, fold)}".replace(" ", "")
    resume = [f'resume="{last}"'] if last.is_file() else []
    run_command(["train", *fit.given(), held_out, f'hydra.run.dir="{folder}"', *resume])


def judge_fold(
    fit: CrossFit, lines: int, fold: int, advance: Callable[[int], None] = lambda lines: None
) -> list[Judged]:
    """Read the lines of a fold with the recognizer that was trained without them; see `judge`."""
    recognizer = checkpoint.load(fit.run(fold) / "checkpoints" / "best.ckpt")
    data = data_for(recognizer, ["data.held_out=null"])
    dataset = data.lines("train")
    places = in_range(dataset.reader, bounds(fit, lines, fold), data.subset_by, "held_out")
    return judge(recognizer, dataset, sorted(places), advance)


def judge(
    recognizer: Recognizer,
    lines: LineDataset,
    positions: Sequence[int],
    advance: Callable[[int], None] = lambda lines: None,
) -> list[Judged]:
    """Read lines, and compute how likely their references and readings are.

    Args:
        recognizer: recognizer that was not trained on these lines.
        lines: lines of a split.
        positions: lines to judge.
        advance: progress callback, called with the number of lines just processed.
    """
    found = []
    for position in positions:
        found.append(_judge(recognizer, lines, position))
        advance(1)
    return found


def _judge(recognizer: Recognizer, lines: LineDataset, position: int) -> Judged:
    sample, text = lines.reader[position], lines.texts[position]
    images, widths = recognizer.prepare_batch([sample.image])
    batch = Batch([sample.id], images, widths, [text], [sample.group])
    with recognizer.exact():
        output = recognizer.net(images, widths)
        (read,) = recognizer.decode(output, images)
        surprise, least = (_surprise(recognizer, output, batch._replace(texts=[each])) for each in (text, read.text))
    return Judged(sample.id, sample.group, position, sample.text, text, read.text, surprise, least)


def _surprise(recognizer: Recognizer, output: Any, batch: Batch) -> float:
    """Return -log p(text | image) in nats.

    Characters that the network does not know are left out: most are rare rather than wrong. The result is infinite if
    no others are left, or the line has too few frames for its text.
    """
    total, count = recognizer.summed_loss(output, batch)
    return float(total) if count or not batch.texts[0] else float("inf")


def rank(lines: Sequence[Judged]) -> list[Suspect]:
    """Return the lines, most suspicious first; see `score`."""
    scores = score(lines)
    return [Suspect(lines[place], float(scores[place])) for place in np.argsort(-scores, kind="stable").tolist()]


def score(lines: Sequence[Judged]) -> Float64[ndarray, " N"]:
    """Return the log-likelihood ratio of the reading and the reference of each line, in nats per character, less the
    median of the writer: a hand that is hard to read makes correct references look suspicious.

    The medians of writers with few lines are drawn towards that of all lines.
    """
    ratio = np.array([(one.surprise - one.least) / max(1, len(one.normalized)) for one in lines])
    ratio[~np.isfinite(ratio)] = ratio[np.isfinite(ratio)].max(initial=0.0) + 1
    _, group = np.unique([one.group for one in lines], return_inverse=True)
    usual = np.median(ratio) if len(ratio) else 0.0
    for members in (group == number for number in range(group.max(initial=-1) + 1)):
        count = np.count_nonzero(members)
        ratio[members] -= (count * np.median(ratio[members]) + SHRINKAGE * usual) / (count + SHRINKAGE)
    return ratio


def distance(line: Judged) -> float:
    """Return the edit distance of the reference and the reading, relative to the longer one."""
    longest = max(1, len(line.normalized), len(line.reading))
    return float(editdistance.eval(line.normalized, line.reading)) / longest


def compare(suspects: Sequence[Suspect], planted: Mapping[str, str]) -> Found:
    """Count how many planted errors are among the most suspicious lines.

    Args:
        suspects: ranked lines.
        planted: kind of the error of each altered line, by its id.
    """
    first = {one.line.id for one in suspects[: 2 * len(planted)]}
    kinds = sorted(set(planted.values()))
    by_kind = {kind: [id in first for id, its in planted.items() if its == kind] for kind in kinds}
    top = [one.line.id in planted for one in suspects[:AT]]
    return Found(
        len(planted),
        sum(map(sum, by_kind.values())) / max(1, len(planted)),
        sum(top) / max(1, len(top)),
        {kind: (sum(its), len(its)) for kind, its in by_kind.items()},
    )


def planted_kinds(folder: Path) -> dict[str, str]:
    """Return the kind of the error of each altered line in an output folder, by its id."""
    rows = (folder / PLANTED).read_text(encoding="utf-8").splitlines()[1:]
    return {row.split("\t")[0]: row.split("\t")[1] for row in rows}


def write(folder: Path, suspects: Sequence[Suspect]) -> Path:
    """Write all lines to a table, most suspicious first, and return its path.

    Raises:
        InputError: if the table cannot be written.
    """
    path = folder / TABLE
    with replacing(path) as new, new.open("w", encoding="utf-8") as file:
        file.write("id\tscore\tdistance\ttext\treading\n")
        for line, its in suspects:
            cells = (line.id, f"{its:.4f}", f"{distance(line):.4f}", line.reference, line.reading)
            file.write("\t".join(map(printable, cells)) + "\n")
    return path
