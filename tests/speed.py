"""Throughput of the parts, measured in one run and compared as ratios (`make bench`).

Absolute times on shared machines say little.
"""

import resource
import statistics
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from datasets import load_dataset
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torchmetrics.text import CharErrorRate

from htr_lightning.config import conf_dir
from htr_lightning.convert import convert
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.pack import PackWriter, packed_height
from htr_lightning.data.preprocess import HEIGHT, FitHeight
from htr_lightning.data.reader.casia import CasiaCharacters
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.hydra_version import instantiate
from htr_lightning.metrics.aggregate import EditCounts
from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.gated import GatedCRNN
from htr_lightning.text.normalize import Normalizer

REPEATS = 5


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median wall time of one call, after a call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def edit_counts(lines: int = 10_000) -> tuple[float, float]:
    """Lines a second of `EditCounts` (CER and WER) and of torchmetrics' `CharErrorRate` (CER only)."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    references = ["".join(rng.choice(letters, rng.integers(20, 70))) for _ in range(lines)]
    hypotheses = ["".join(c for c in text if rng.random() > 0.08) for text in references]

    def ours() -> float:
        metric = EditCounts()
        metric.update(references, hypotheses)
        return metric.compute().cer

    def theirs() -> float:
        metric = CharErrorRate()
        metric.update(hypotheses, references)
        return float(metric.compute())

    if abs(ours() - theirs()) > 1e-6:
        raise AssertionError("EditCounts and CharErrorRate disagree")
    return lines / seconds(ours), lines / seconds(theirs, 1)


def drawing(lines: int = 300) -> float:
    """Synthetic lines drawn a second on one core."""
    reader = Synthetic("train", {"train": 10 * lines}, {"train": 100})
    return lines / seconds(lambda: [reader[i] for i in range(lines)])


def crnn(width: int = 500, lines: int = 16) -> tuple[float, float, float]:
    """Lines a second of the default CRNN: training in float32, in bfloat16, and reading in float32."""
    backbone = ResidualBackbone([16, 64, 128], [1, 1, 1], [[1, 1], [2, 2], [2, 1]], 16)
    net = GatedCRNN(140, backbone, width=256, hidden=192, layers=3)
    images, widths = torch.rand(lines, 1, 32, width), torch.full((lines,), width)

    def step(dtype: torch.dtype | None) -> None:
        net.zero_grad()
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            heads, _ = net.heads(images, widths)
            loss = sum(head.float().logsumexp(2).mean() for head in heads)
        loss.backward()

    def read() -> None:
        with torch.inference_mode():
            net(images, widths)

    trained = lines / seconds(lambda: step(None)), lines / seconds(lambda: step(torch.bfloat16))
    net.eval()
    return *trained, lines / seconds(read)


def reading(model: str, lines: int, height: int | None = None, width: int = 520) -> float:
    """Lines a second that the network of `conf/model/MODEL.yaml` reads in float32, in batches of `lines`."""
    config = OmegaConf.load(conf_dir() / "model" / f"{model}.yaml")
    net = instantiate(config.net)(140).eval()
    images = torch.rand(lines, 1, height or config.preprocess.height or HEIGHT, width)
    with torch.inference_mode():
        return lines / seconds(lambda: net(images, torch.full((lines,), width)), 3 * REPEATS)


def augmenting(name: str, lines: int = 200, size: tuple[int, int] = (64, 520)) -> float:
    """Lines of (height, width) pixels a second that `conf/augment/NAME.yaml` distorts on one core."""
    augment = instantiate(OmegaConf.load(conf_dir() / "augment" / f"{name}.yaml"))
    reader = Synthetic("train", {"train": lines}, {"train": 100})
    images = [cv2.resize(reader[i].image, size[::-1]) for i in range(lines)]
    rngs = [np.random.default_rng(i) for i in range(lines)]
    return lines / seconds(lambda: [augment(image, rng) for image, rng in zip(images, rngs, strict=True)])


def fitting(lines: int = 500) -> float:
    """Lines a second that `FitHeight` brings to height 32 on one core."""
    reader = Synthetic("train", {"train": lines}, {"train": 100})
    images, fit = [reader[i].image for i in range(lines)], FitHeight(32, 8)
    return lines / seconds(lambda: [fit(image) for image in images])


def casia(characters: int = 100_000, writers: int = 25) -> tuple[float, float]:
    """Characters a second that `CasiaCharacters` indexes and reads from `.gnt` files, and the MB by which the peak of
    the process's memory grows."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    each, side = -(-characters // writers), 64
    head = struct.pack("<I2sHH", 10 + side * side, "啊".encode("gbk"), side, side)
    before = peak()
    with TemporaryDirectory() as folder:
        (Path(folder) / "test").mkdir()
        for writer in range(writers):
            (Path(folder) / "test" / f"{writer}.gnt").write_bytes((head + bytes(side * side)) * each)
        rate = writers * each / seconds(lambda: [sample.image.shape for sample in CasiaCharacters(folder, "test")], 1)
    return rate, peak() - before


def packed(data: LineDataModule) -> dict[str, float]:
    """Lines a second of the training split of some data, packed, and of the same lines as Hugging Face parquet.

    "training" are batches made by one worker, augmented as `data` is; "decoded" are grey arrays.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "lines.htr"
        with PackWriter(file, packed_height(data.preprocess)) as writer:
            writer.write("train", data.open("train"))
        settings = {"pack": str(file), "augment": data.augment, "multiple": data.multiple, "workers": 1}
        from_file = LineDataModule(data.reader, data.preprocess, data.normalizer, **settings)
        convert(from_file, ["train"], "parquet", Path(folder) / "parquet")
        source = str(Path(folder) / "parquet" / "train.parquet")
        table = load_dataset("parquet", data_files=source, split="train", cache_dir=folder)
        lines, loader = from_file.lines("train").reader, from_file.loader("train", training=True)
        return {
            "training": len(lines) / seconds(lambda: sum(len(batch.ids) for batch in loader)),
            "decoded": len(lines) / seconds(lambda: [sample.image.size for sample in lines]),
            "datasets decoded": len(lines) / seconds(lambda: [np.asarray(row["image"]).size for row in table], 2),
        }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)  # as training does
    cv2.setNumThreads(1)
    table = Table("part", "lines/s", "beside")
    read, memory = casia()  # first, while nothing else has taken memory
    table.add_row("CASIA characters, index and pixels", f"{read:,.0f}", f"{memory:,.0f} MB of memory")
    ours, theirs = edit_counts()
    table.add_row(
        "EditCounts, CER and WER", f"{ours:,.0f}", f"{ours / theirs:.0f} x torchmetrics' CharErrorRate (CER only)"
    )
    table.add_row("torchmetrics CharErrorRate", f"{theirs:,.0f}", "")
    full, half, read = crnn()
    table.add_row("synthetic lines, one core", f"{drawing():,.0f}", "")
    table.add_row("FitHeight, one core", f"{fitting():,.0f}", "")
    for name in ("mild", "seed", "strong"):
        rate = augmenting(name)
        table.add_row(f"augment={name}, 64 x 520, one core", f"{rate:,.0f}", f"{1000 / rate:.2f} ms a line")
    table.add_row("CRNN training, float32, 500 columns", f"{full:,.0f}", "")
    table.add_row("CRNN training, bfloat16", f"{half:,.0f}", f"{half / full:.2f} x float32")
    table.add_row("CRNN reading, float32", f"{read:,.0f}", f"{read / full:.2f} x training")
    for lines in (1, 16):
        large, light = reading("crnn", lines), reading("crnn_mobilenet", lines)
        table.add_row(
            f"crnn_mobilenet reading, 520 columns, batches of {lines}", f"{light:,.0f}", f"{light / large:.1f} x crnn"
        )
    few = partial(Synthetic, lines={"train": 1000}, writers={"train": 100})
    rates = packed(LineDataModule(few, FitHeight(32, 8), Normalizer()))
    feeding, decoded, theirs = rates["training"], rates["decoded"], rates["datasets decoded"]
    table.add_row(
        "packed lines to training, one worker", f"{feeding:,.0f}", f"{feeding / full:.0f} x CRNN training, float32"
    )
    table.add_row("packed lines as grey arrays", f"{decoded:,.0f}", f"{decoded / theirs:.0f} x datasets from parquet")
    Console().print(table)


if __name__ == "__main__":
    main()
