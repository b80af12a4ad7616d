"""Adapt a recognizer to the handwriting of unlabelled lines, using its own transcriptions.

The surest transcriptions, found with the recognizer's language model if it has one, are the labels with which a copy
of the recognizer is trained for a few steps on augmented lines (self-training; see `pseudo_label` for the literature).
"""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import nn

from htr_lightning.config import compose_train, make, plain
from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.line_dataset import Augment
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import open_to_read
from htr_lightning.transcription import Transcriber, Transcription

LINES = 256  # maximum number of lines of files that are used
MIN_LINES = 8  # minimum number of lines with text
KEPT = 0.8  # fraction of the lines trained on, the surest ones
ROUNDS = 2  # number of times that the lines are transcribed and trained on
PASSES = 10  # number of times that each line is seen in a round
BATCH = 4  # lines per step
RATE = 1e-3  # first learning rate, which decreases to zero within a round


class Adaptation(NamedTuple):
    """An adapted recognizer, or the original one if there are too few lines, and what the adaptation was based on."""

    recognizer: Recognizer
    lines: int  # number of lines trained on; 0 if there are too few
    before: float  # mean confidence per character of the transcriptions of all lines
    after: float


def adapt(
    recognizer: Transcriber,
    images: Sequence[UInt8[ndarray, "_ _"]],
    advance: Callable[[float], None] = lambda done: None,
    seed: int = 0,
) -> Adaptation:
    """Return a copy of a recognizer that is adapted to the handwriting of some lines.

    Args:
        recognizer: single recognizer of lines, in evaluation mode.
        images: greyscale images of lines, preferably by one writer.
        advance: progress callback, called with the completed fraction.
        seed: seed for the order of the lines and their augmentation.

    Raises:
        InputError: if the recognizer is an ensemble or recognizes single characters.
    """
    if recognizer.single_characters:
        raise InputError("--adapt: needs a recognizer of lines, not of single characters; remove --adapt")
    if not isinstance(recognizer, Recognizer):
        raise InputError("--adapt: needs a single checkpoint (*.ckpt); name one, and remove --tta")
    rng = np.random.default_rng(seed)
    prepared: list[UInt8[ndarray, "_ _"]] = []
    for image in images:
        try:
            recognizer.preprocess.check((image.shape[0], image.shape[1]))
            prepared.append(recognizer.preprocess.geometry(recognizer.preprocess.reduce(image)))
        except ValueError:
            continue  # cannot be read, and is reported when it is transcribed
    augment = make(plain(compose_train(["augment=strong"]).augment), "augment")
    student, confidences, count, known = recognizer, [], 0, set(recognizer.alphabet)
    for number in range(ROUNDS):
        read = _read(student, prepared)
        confidences.append(_mean_confidence(read))
        labelled = [
            (image, one)
            for image, one in zip(prepared, read, strict=True)
            if one.text.strip() and known.issuperset(one.text)  # normalisation can compose other characters
        ]
        if len(labelled) < MIN_LINES:
            break
        labelled.sort(key=lambda pair: -pair[1].confidence)
        kept = labelled[: math.ceil(KEPT * len(labelled))]
        count = len(kept)
        student = _trained(recognizer, kept, augment, rng, number, advance)
    confidences.append(_mean_confidence(_read(student, prepared)))
    return Adaptation(student, count, confidences[0], confidences[-1])


def adapt_to(
    recognizer: Transcriber,
    sources: Sequence[Source],
    advance: Callable[[float], None] = lambda done: None,
    pages: bool | None = None,
) -> Adaptation:
    """Return a copy of a recognizer that is adapted to the lines of files; see `adapt` and `transcribe`."""
    rng = np.random.default_rng(0)
    images: list[UInt8[ndarray, "_ _"]] = []  # a uniform sample of all lines, whose number is not known before
    opened = chain.from_iterable(open_to_read(recognizer, source, pages) for source in sources)
    for count, image in enumerate(image for _, image in opened if image is not None):
        if count < LINES:
            images.append(image)
        elif (place := int(rng.integers(count + 1))) < LINES:
            images[place] = image
    return adapt(recognizer, images, advance)


def _trained(
    recognizer: Recognizer,
    labelled: Sequence[tuple[UInt8[ndarray, "_ _"], Transcription]],
    augment: Augment,
    rng: np.random.Generator,
    rounds: int,
    advance: Callable[[float], None],
) -> Recognizer:
    """Return a copy of a recognizer that was trained on transcribed lines, after a number of completed rounds."""
    student = copy.deepcopy(recognizer).train()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # a few lines are too few for their statistics
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0)
    steps = PASSES * math.ceil(len(labelled) / BATCH)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(int(rng.integers(2**31)))
        step = 0
        for _ in range(PASSES):
            order = rng.permutation(len(labelled))
            for start in range(0, len(order), BATCH):
                some = [labelled[place] for place in order[start : start + BATCH]]
                batch = _batch(student, some, augment, rng)
                for group in optimizer.param_groups:
                    group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
                optimizer.zero_grad()
                student.loss(batch).backward()
                nn.utils.clip_grad_norm_(student.parameters(), 5.0)
                optimizer.step()
                step += 1
                advance((rounds + step / steps) / ROUNDS)
    return student.eval()


def _batch(
    recognizer: Recognizer,
    labelled: Sequence[tuple[UInt8[ndarray, "_ _"], Transcription]],
    augment: Augment,
    rng: np.random.Generator,
) -> Batch:
    arrays, texts = [], []
    for image, one in labelled:
        try:
            arrays.append(recognizer.preprocess.to_array(augment(image, rng)))
        except ValueError:  # too narrow or too wide after augmentation
            arrays.append(recognizer.preprocess.to_array(image))
        texts.append(one.text)
    ids = [""] * len(texts)
    batch = collate(ids, arrays, texts, ids)
    return batch._replace(images=batch.images.to(recognizer.device))


def _read(recognizer: Recognizer, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Transcription]:
    """Transcribe images to which `geometry` has been applied."""
    found = []
    for start in range(0, len(images), BATCH):
        arrays = [recognizer.preprocess.to_array(image) for image in images[start : start + BATCH]]
        none = [""] * len(arrays)
        batch = collate(none, arrays, none, none)
        found += recognizer.transcribe(batch.images.to(recognizer.device), batch.widths.to(recognizer.device))
    return found


def _mean_confidence(read: Sequence[Transcription]) -> float:
    """Return the mean confidence per character of the transcriptions."""
    sizes = [max(1, len(one.text)) for one in read]
    return float(np.average([one.confidence for one in read], weights=sizes)) if read else 0.0
