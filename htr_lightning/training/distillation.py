"""Distil a recognizer into a smaller one, which learns to imitate it frame by frame (Hinton et al., 2015, "Distilling
the knowledge in a neural network", arXiv:1503.02531)."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from htr_lightning.checkpoint import load
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.resolution import WIDE
from htr_lightning.text.codec import name
from htr_lightning.training.transfer import rows


class Teacher:
    """A trained recognizer whose frame posteriors another one imitates.

    It sees the same augmented images as its student. It is not a module, so that it is neither trained nor saved.

    Args:
        recognizer: recognizer with a CTC head.
        sources: class of the teacher for each class of the student.
        weight: weight of the imitation relative to the CTC loss.
    """

    def __init__(self, recognizer: Recognizer, sources: Int[Tensor, " C"], weight: float) -> None:
        self.recognizer, self.sources, self.weight = recognizer.eval().requires_grad_(False), sources, weight

    def __call__(
        self,
        images: Float[Tensor, "B 1 H W"],
        widths: Int[Tensor, " B"],
        logits: Float[Tensor, "B T C"],
        lengths: Int[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """Return the weighted Kullback-Leibler divergence from teacher to student in nats, summed over all frames.

        Args:
            images, widths: preprocessed batch.
            logits, lengths: the student's frame logits for this batch and number of frames of each line.
        """
        with torch.no_grad():
            self.recognizer.to(images.device)
            found, _ = self.recognizer.net(images, widths)
            self.sources = self.sources.to(images.device)
            posterior = found[:, :, self.sources].float().log_softmax(2)
        padding = torch.arange(logits.shape[1], device=logits.device) >= lengths[:, None]
        own = logits.float().log_softmax(2)
        divergence = functional.kl_div(own, posterior, reduction="none", log_target=True).sum(2)
        return self.weight * divergence.masked_fill(padding, 0.0).sum()


def distil(recognizer: Recognizer, path: str | Path, weight: float) -> None:
    """Make a recognizer imitate the one in a checkpoint when it is trained.

    Args:
        recognizer: student, built by `build`.
        path: path to the teacher's checkpoint, or the name of a recognizer that ships with the package.
        weight: weight of the imitation relative to the CTC loss.

    Raises:
        InputError: if the checkpoint cannot be read, or teacher and student do not have the same frames, or the
            teacher does not know all characters of the student.
    """
    teacher = load(path)
    frames, own_frames = teacher.frames_for(WIDE), recognizer.frames_for(WIDE)
    if not frames or not own_frames:
        raise InputError(f"teacher={path}: teacher and model must both be CTC models, such as crnn and crnn_mobilenet")
    own, given = (one.card["model"]["preprocess"] for one in (recognizer, teacher))
    if differing := [key for key in own | given if own.get(key) != given.get(key)]:
        key = differing[0]
        raise InputError(
            f"teacher={path}: it was trained with model.preprocess.{key}={given.get(key)}, not {own.get(key)}; remove "
            "this override, or train a teacher with it"
        )
    if frames != own_frames:
        raise InputError(
            f"teacher={path}: it has {frames} frames in {WIDE} columns, and the model {own_frames}; use a model with "
            "the same strides"
        )
    targets, sources = rows(recognizer, teacher.alphabet)
    known = set(teacher.alphabet)
    if missing := [character for character in recognizer.alphabet if character not in known]:
        shown = " ".join(name(character) for character in missing[:5]) + " ..." * (len(missing) > 5)
        raise InputError(
            f"teacher={path}: it does not know all characters of the data ({len(missing)}: {shown}); use a teacher "
            "trained on this data"
        )
    recognizer.teacher = Teacher(teacher, sources[targets.argsort()], weight)
