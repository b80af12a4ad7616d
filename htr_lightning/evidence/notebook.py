"""What the notebooks call: commands whose output a cell shows, and pictures of data, runs and errors."""

import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from htr_lightning.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htr_lightning.data.datamodule import LineDataModule
    from htr_lightning.data.sample import Reader
    from htr_lightning.evidence.chart import Chart
    from htr_lightning.evidence.compare import Comparison
    from htr_lightning.evidence.runs import Curve, Run
    from htr_lightning.evidence.sections import Reading
    from htr_lightning.evidence.table import Table
    from htr_lightning.model.base import Recognizer

WIDTH = 900  # of pictures in pixels


def begin(name: str) -> Path:
    """Prepare the kernel of a notebook, and return a new folder in `runs/` for what it makes."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the Makefile: idle threads do not spin
    os.environ.pop("FORCE_COLOR", None)  # set by Jupyter, where a progress bar cannot redraw itself
    warnings.filterwarnings("ignore", message="IProgress not found")
    if not Path("train.py").exists() and Path("../train.py").exists():  # Jupyter starts in notebooks/
        os.chdir("..")
    folder = Path("runs", name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    folder.mkdir(parents=True)
    return folder


def command(*words: object) -> None:
    """Run `htr` with arguments as in a terminal, and print the command and its output.

    Raises:
        InputError: if the command fails; the message is its last line.
    """
    arguments = [str(word) for word in words]
    print("$ htr", shlex.join(arguments), flush=True)
    program = [sys.executable, "-m", "htr_lightning", *arguments]
    said = ""
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for said in process.stdout:
            print(said, end="", flush=True)
    if process.returncode:
        raise InputError(said.strip().removeprefix("error: "))


def samples(reader: "Reader", count: int = 10) -> Image.Image:
    """Return a picture of the first lines of a reader above their texts."""
    from htr_lightning.picture import transcription_sheet

    chosen = [reader[index] for index in range(min(count, len(reader)))]
    return _picture(transcription_sheet([one.image for one in chosen], [one.text for one in chosen], None, WIDTH))


def seen(recognizer: "Recognizer", reader: "Reader", count: int = 6) -> Image.Image:
    """Return a picture of the first lines of a reader as the network sees them, after preprocessing."""
    from htr_lightning.picture import to_grey, transcription_sheet

    chosen = [reader[index] for index in range(min(count, len(reader)))]
    inks = [to_grey(recognizer.preprocess(one.image)) for one in chosen]
    return _picture(transcription_sheet(inks, [one.text for one in chosen], None, WIDTH))


def augmented(data: "LineDataModule", count: int = 4, times: int = 2) -> Image.Image:
    """Return a picture of training lines and their augmented versions.

    Args:
        data: data with an augmentation; see `build.open_data`.
        count: number of lines.
        times: number of versions of each line.
    """
    from htr_lightning.picture import augmentation_sheet

    assert data.augment is not None
    reader, augment = data.lines("train").reader, data.augment
    before = [reader[index].image for index in range(min(count, len(reader)))]
    after = [[augment(image, np.random.default_rng((index, time))) for time in range(times)]
             for index, image in enumerate(before)]  # fmt: skip
    return _picture(augmentation_sheet(before, after))


def transcribed(
    recognizer: Any, images: Sequence[UInt8[ndarray, "_ _"]], references: Sequence[str] | None = None
) -> Image.Image:
    """Transcribe images and return a picture of them with what was read.

    Args:
        recognizer: recognizer, or reader of `htr_lightning.load`.
        images: images of lines or characters.
        references: what they say; None if this is not known.
    """
    from htr_lightning.picture import transcription_sheet

    texts = [one.text for one in recognizer.read(list(images))]
    return _picture(transcription_sheet(images, texts if references is None else references,
                                        None if references is None else texts, WIDTH))  # fmt: skip


def read(*folders: str | Path, overrides: Sequence[str] = ()) -> "list[Reading]":
    """Return the results of run folders or folders written by `htr evaluate`, evaluating them if necessary."""
    from htr_lightning.evidence.publish import LETTERS, names
    from htr_lightning.evidence.report import score
    from htr_lightning.evidence.results import open_results
    from htr_lightning.evidence.sections import Reading

    paths = [Path(folder) for folder in folders]
    found = []
    for letter, name, path in zip(LETTERS, names(paths), paths, strict=False):
        results = open_results(path, overrides=overrides)
        found.append(Reading(letter, name, results, score(results.predictions), {}))
    return found


def errors(reading: "Reading", count: int = 8) -> Image.Image:
    """Return a picture of the lines with the most edits, with the edits marked, or of the wrong single characters.

    Raises:
        InputError: if the lines of the run cannot be read.
    """
    from htr_lightning.evidence.report import worst
    from htr_lightning.evidence.runs import images
    from htr_lightning.picture import edit_sheet, transcription_sheet

    if reading.results.reader is None:
        raise InputError(f"{reading.name}: no pictures of lines, since {reading.results.note}")
    lines = reading.lines
    edits, confidences = [one.counts.edits for one in lines], [one.prediction.confidence for one in lines]
    chosen = [lines[position].prediction for position in worst(edits, confidences, count)]
    references, hypotheses = [one.reference for one in chosen], [one.hypothesis for one in chosen]
    shown = images(reading.results.reader, [one.id for one in chosen])
    if max(map(len, references), default=0) <= 1:
        return _picture(transcription_sheet(shown, references, hypotheses, WIDTH))
    captions = [f"{one.id}: confidence {one.confidence:.0%}" for one in chosen]
    return _picture(edit_sheet(shown, references, hypotheses, captions, WIDTH))


def confusions(reading: "Reading", size: int = 20) -> Image.Image:
    """Return a picture of which characters were read as which others."""
    from htr_lightning.evidence.report import pairs
    from htr_lightning.metrics.confusions import confusions as counted
    from htr_lightning.picture import confusion_sheet

    return _picture(confusion_sheet(counted(pairs(reading.lines), size)))


def figures(charts: "Iterable[Chart]", names: Sequence[str] = ()) -> None:
    """Show charts of a report, one below the other."""
    from IPython.display import display

    from htr_lightning.evidence.assets import figure

    for chart in charts:
        display(_drawn(figure(chart, names)))


def table(content: "Table", rows: int = 15) -> None:
    """Show the first rows of a table of a report."""
    from IPython.display import Markdown, display

    from htr_lightning.evidence.table import markdown

    display(Markdown(markdown(content._replace(rows=content.rows[:rows]))))


def curves(runs: "Mapping[str, Mapping[str, Curve]]", *keys: str) -> "list[Chart]":
    """Return a chart of learning curves for each metric that was logged.

    Args:
        runs: curves of each run, keyed by the name of the run and of the metric.
        keys: names of the metrics; those of error rates are shown in percent.
    """
    from htr_lightning.evidence.chart import Chart, Series
    from htr_lightning.evidence.provenance import thinned

    charts = []
    for key in keys or ("train/loss", "val/cer"):
        logged = [(index, name, thinned(its[key])) for index, (name, its) in enumerate(runs.items()) if key in its]
        if logged:
            series = [Series(name, *curve) for _, name, curve in logged]
            percent = key.endswith(("cer", "wer"))
            charts.append(Chart(key.replace("/", "-"), key, "curves", "step", key, series,
                                colours=[index for index, _, _ in logged], percent=percent))  # fmt: skip
    return charts


def scores(comparison: "Comparison") -> "Chart":
    """Return a chart of the CER of each system in a comparison, with its interval."""
    from htr_lightning.evidence.chart import Chart, Series

    bounds = [
        score.intervals.cer and (score.intervals.cer.low, score.intervals.cer.high) for score in comparison.scores
    ]
    values = [score.cer for score in comparison.scores]
    return Chart("scores", "Test CER with its 95 % interval", "bars", "", "CER", [Series("", [], values, (), bounds)],
                 [score.name for score in comparison.scores])  # fmt: skip


def bands(recipes: "Mapping[str, Sequence[Run]]", key: str = "val/cer") -> Image.Image:
    """Return a picture of the mean of a metric over the seeds of each recipe, and a band of one standard deviation."""
    from matplotlib.figure import Figure

    from htr_lightning.evidence.assets import COLOURS
    from htr_lightning.evidence.runs import band

    figure = Figure((7, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, runs), colour in zip(recipes.items(), COLOURS * len(recipes), strict=False):
        found = band(runs, key)
        low, high = (np.array(found.mean) + sign * np.array(found.sd) for sign in (-1, 1))
        axes.plot(found.steps, found.mean, color=colour, marker=".", label=f"{name} ({found.runs} seeds)")
        axes.fill_between(found.steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(title=f"{key}, mean ± standard deviation", xlabel="step", ylim=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return _drawn(figure)


def page(path: str | Path, images: str | Path | None = None) -> Image.Image:
    """Return a picture of a PAGE or ALTO page with the outlines of its lines.

    Args:
        path: PAGE or ALTO file.
        images: folder of its image; None for that of the file.

    Raises:
        InputError: if the page or its image cannot be read.
    """
    import cv2

    from htr_lightning.data.image import read_image
    from htr_lightning.data.page.document import read_page

    found = read_page(Path(path))
    picture = cv2.cvtColor(read_image(Path(images or found.path.parent) / found.image), cv2.COLOR_GRAY2RGB)
    for line in found.lines:
        for points, colour in ((line.polygon, (0, 114, 178)), (line.baseline, (213, 94, 0))):
            if points:
                closed = points is line.polygon
                cv2.polylines(picture, [np.array(points, np.int32)], closed, colour, 2, cv2.LINE_AA)
    scale = min(1.0, WIDTH / picture.shape[1])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return _picture(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def run_curves(runs: "Sequence[Run]", count: int = 6) -> "dict[str, Mapping[str, Curve]]":
    """Return the curves of the first run folders, keyed by what distinguishes the runs."""
    from htr_lightning.evidence.runs import by_recipe

    named = [(f"{name}, seed {run.seed}" if len(members) > 1 else name, run.curves)
             for name, members in by_recipe(runs).items() for run in members]  # fmt: skip
    return dict(named[:count])


def _drawn(figure: "Figure") -> Image.Image:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image.open(file)


def _picture(array: UInt8[ndarray, "H W ..."]) -> Image.Image:
    return Image.fromarray(array)
