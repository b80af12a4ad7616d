"""Line recognition with an encoder and an autoregressive character decoder."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from htr_lightning.data.batch import Batch, moved
from htr_lightning.decoder.autoregressive import FrameScores, Greedy, Steps
from htr_lightning.decoder.ctc import Greedy as CTCGreedy
from htr_lightning.decoder.hypothesis import Decoder
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.model.autoregressive import IGNORED, check_decoder, check_length, teacher_forcing
from htr_lightning.model.base import Exportable, ExportableSteps, Recognizer
from htr_lightning.model.ctc import LogProbs
from htr_lightning.model.line import LineRecognizer, fitting
from htr_lightning.net.encoder_decoder import Begin, EncoderDecoder, EncoderOutput, Memory, Step
from htr_lightning.parameters import BelowOne, Fraction

BLANK, START, END = 0, 1, 2
BEAM = ("width", "top_labels", "min_probability", "prune_margin", "alpha", "beta")  # settings of the CTC beam search


class DecoderState(NamedTuple):
    """The state of the network's decoder and, for each row, the line and the number of labels that may follow."""

    state: Any
    lines: Int[Tensor, " B"]
    left: Int[Tensor, " B"]


class Seq2SeqRecognizer(LineRecognizer):
    """A recognizer that predicts characters one by one until an end token (Sutskever et al., 2014, arXiv:1409.3215).

    It is trained with teacher forcing and, if `ctc_weight` is positive, jointly with CTC (Watanabe et al., 2017,
    "Hybrid CTC/attention architecture for end-to-end speech recognition", equation 13). A line gets at most as many
    labels as it has frames, so decoding always ends.

    Args:
        alphabet: characters that the recognizer can output.
        net: factory called with the number of classes.
        decoder: decoder from `decoder.autoregressive`, or `decoder.rescoring.Rescoring` if the network has CTC heads.
        label_smoothing: probability spread over all labels (Szegedy et al., 2016, arXiv:1512.00567).
        token_noise: fraction of decoder inputs replaced by random characters in training, so that the decoder relies
            on the image and recovers from errors.
        blank_fraction: fraction of training lines replaced by blank paper with empty text.
        ctc_weight: weight of the CTC loss relative to the decoder's loss, in [0, 1); 0 for a network without CTC
            heads.
        others: arguments of `LineRecognizer`.
    """

    specials = ("<blank>", "<start>", "<end>")
    net: EncoderDecoder

    def __init__(
        self,
        alphabet: Iterable[str],
        net: Callable[[int], EncoderDecoder],
        decoder: Decoder,
        label_smoothing: Fraction = 0.1,
        token_noise: Fraction = 0.0,
        blank_fraction: Fraction = 0.0,
        ctc_weight: BelowOne = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(alphabet, decoder, **others)
        self.max_length = check_decoder(decoder, ctc_weight > 0).max_length
        self.net = net(len(self.codec))
        if self.net.ctc != (0 < ctc_weight < 1):
            raise InputError(
                f"model.ctc_weight={ctc_weight} does not match model.net.ctc={self.net.ctc}; use a weight between 0 "
                "and 1 with net.ctc=true, or 0 with net.ctc=false"
            )
        self.label_smoothing, self.token_noise, self.blank_fraction = label_smoothing, token_noise, blank_fraction
        self.ctc_weight = ctc_weight

    def target(self, text: str, sample: str) -> list[int]:
        """Return the label ids of a training text; see `LineRecognizer.target`.

        Raises:
            InputError: if the text has more labels than the decoder can output.
        """
        return check_length(super().target(text, sample), self.max_length, sample, "characters")

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the cross-entropy in nats per label or end token, combined with the CTC loss per character."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        images = batch.images
        if self.blank_fraction > 0:
            blank = torch.rand(len(targets)) < self.blank_fraction
            images = images * moved(~blank, images.device)[:, None, None, None]
            targets = [[] if is_blank else target for target, is_blank in zip(targets, blank.tolist(), strict=True)]
        output, frames = self.net(images, moved(batch.widths, images.device)), self.net.encoder.frames(batch.widths)
        if not self.ctc_weight:  # otherwise, the CTC loss records short lines
            self._record_short(batch.ids, targets, frames)
        inputs, labels = teacher_forcing(targets, START, END, START, images.device)
        if self.token_noise > 0:
            noisy = torch.rand(inputs.shape, device=inputs.device) < self.token_noise
            random = torch.randint(len(self.specials), len(self.codec), inputs.shape, device=inputs.device)
            inputs = torch.where(noisy & (inputs != START), random, inputs)
        logits = self.net.decoder(output.memory, output.lengths, inputs).float()
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        if not self.ctc_weight:
            return loss
        ctc = self.ctc(output.heads, frames, batch.ids, targets)
        return (1 - self.ctc_weight) * loss + self.ctc_weight * ctc

    def units(self, batch: Batch) -> int:
        """Return the number of labels and end tokens; a CTC loss is averaged over the labels only."""
        return super().units(batch) + len(batch.ids)

    def summed_loss(self, output: EncoderOutput, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """Return the decoder's summed cross-entropy without smoothing, and the number of labels and end tokens."""
        targets = [self.known(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        self._record_short(batch.ids, targets, self.net.encoder.frames(batch.widths))
        inputs, labels = teacher_forcing(targets, START, END, START, output.memory.device)
        logits = self.net.decoder(output.memory, output.lengths, inputs)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, sum(len(target) + 1 for target in targets)

    def scores(self, output: EncoderOutput) -> tuple[Steps]:
        encoded = output._replace(heads=[])
        frames = None
        if output.heads:
            labels = [BLANK, *range(END + 1, len(self.codec))]
            log_probs = output.heads[0][:, :, labels].float().log_softmax(2).cpu().numpy()
            frames = FrameScores(log_probs, output.frames.cpu().numpy(), partial(self._rescore, encoded))
        start = np.full(len(output.lengths), START)
        return (Steps(self._step, partial(self._begin, encoded), self._reorder, start, END, frames),)

    def greedy(self) -> Recognizer:
        return self.with_decoder(Greedy(self.max_length))

    def exportable(self) -> Exportable:
        """Return the recognizer, or its CTC half if it has one.

        The decoder of the CTC half is the beam search whose hypotheses would be rescored.
        """
        trained = self.card["model"]["decoder"]
        if not self.ctc_weight:
            decoder = self.net.decoder
            return Exportable(
                Memory(self.net), Memory.outputs, "steps", trained, self.specials, self.direction,
                ExportableSteps(Begin(decoder), Step(decoder, END)),
            )  # fmt: skip
        config: dict[str, Any] = {"_target_": _path(CTCGreedy)}
        if "top_labels" in trained:
            config = {"_target_": _path(PrefixBeam)} | {key: trained[key] for key in BEAM if key in trained}
        net = LogProbs(self.net.encoder, [BLANK, *range(END + 1, len(self.codec))])
        return Exportable(net, LogProbs.outputs, "frames", config, self.specials[:1], self.direction)

    def beam(self) -> tuple[str, dict[str, int]]:
        return "rescoring" if self.ctc_weight else "autoregressive_beam", {"max_length": self.max_length}

    def _record_short(self, ids: list[str], targets: list[list[int]], frames: Int[Tensor, " B"]) -> None:
        fitting(ids, frames, list(map(len, targets)), self.short)

    def _rescore(self, output: EncoderOutput, candidates: list[list[list[int]]]) -> list[list[float]]:
        """Return the log-probability of each candidate, with its end token; see `FrameScores`."""
        device = output.memory.device
        lines = torch.tensor([line for line, some in enumerate(candidates) for _ in some], device=device)
        targets = [ids for some in candidates for ids in some]
        inputs, labels = teacher_forcing(targets, START, END, START, device)
        logits = self.net.decoder(output.memory[lines], output.lengths[lines], inputs).float()
        logits[:, :, [BLANK, START]] = -torch.inf
        losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        log_probs = iter((-losses.sum(1)).tolist())
        return [[next(log_probs) for _ in some] for some in candidates]

    def _begin(self, output: EncoderOutput) -> DecoderState:
        state = self.net.decoder.start(output.memory, output.lengths)
        lines = torch.arange(len(output.lengths), device=output.lengths.device)
        return DecoderState(state, lines, output.frames)

    def _step(self, tokens: Int[ndarray, " B"], state: DecoderState) -> tuple[Float[ndarray, "B C"], DecoderState]:
        step = Step(self.net.decoder, END)
        log_probs, inner = step(torch.from_numpy(tokens).to(self.device), state.left, state.state)
        return log_probs.cpu().numpy(), state._replace(state=inner, left=state.left - 1)

    def _reorder(self, state: DecoderState, order: Int[ndarray, " N"]) -> DecoderState:
        rows = torch.from_numpy(order).to(self.device)
        lines = state.lines[rows]
        moved = not torch.equal(lines, state.lines)  # otherwise, each sequence still attends to the same memory
        inner = self.net.decoder.reorder(state.state, rows, memory=moved)
        return DecoderState(inner, lines, state.left[rows])


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
