"""Recognition of lines by a decoder that writes one character after the other."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from htr_lightning.data.batch import Batch
from htr_lightning.decoder.autoregressive import Greedy
from htr_lightning.decoder.ctc import Hypothesis
from htr_lightning.decoder.rescoring import Rescoring, TwoPassInput
from htr_lightning.errors import InputError
from htr_lightning.model.autoregressive import IGNORED, checked, marked, within
from htr_lightning.model.line import LineRecognizer, fitting
from htr_lightning.net.encoder_decoder import EncoderDecoder, EncoderOutput

BLANK, START, END = 0, 1, 2


class DecoderState(NamedTuple):
    """The decoder's state, of which line each row is, its labels so far and the most that it may have."""

    state: Any
    lines: Int[Tensor, " B"]
    labels: Int[Tensor, " B"]
    most: Int[Tensor, " B"]


class Seq2SeqRecognizer(LineRecognizer):
    """Characters one after the other until an end (Sutskever et al., 2014, arXiv:1409.3215), learned with teacher
    forcing; with `ctc_weight` jointly with CTC (Watanabe et al., 2017, "Hybrid CTC/attention architecture for
    end-to-end speech recognition", equation 13).

    No line is given more labels than its columns would have frames for CTC, so that writing always ends.

    Args:
        alphabet: the characters it can read.
        net: called with the count of classes.
        decoder: maps a step function and its first state to one hypothesis a line, see `decoder.autoregressive`; or,
            with CTC heads, a `decoder.rescoring.Rescoring`.
        label_smoothing: share of the probability that is spread over all labels (Szegedy et al., 2016,
            arXiv:1512.00567).
        token_noise: share of the characters written so far that are exchanged for random ones in training: the image
            has to be looked at, and errors be lived with.
        blank_fraction: share of the training lines that are shown as empty paper and have no text.
        ctc_weight: of the CTC loss beside that of the decoder, in [0, 1); 0 for a network without CTC heads.
        others: see `LineRecognizer`.
    """

    specials = ("<blank>", "<start>", "<end>")
    net: EncoderDecoder

    def __init__(
        self,
        alphabet: Iterable[str],
        net: Callable[[int], EncoderDecoder],
        decoder: Callable[..., list[Hypothesis]],
        label_smoothing: float = 0.1,
        token_noise: float = 0.0,
        blank_fraction: float = 0.0,
        ctc_weight: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(alphabet, checked(decoder, ctc_weight > 0), **others)
        self.net = net(len(self.codec))
        if self.net.ctc != (ctc_weight > 0) or not 0 <= ctc_weight < 1:
            raise InputError(
                f"model.ctc_weight={ctc_weight} and model.net.ctc={self.net.ctc}: give a weight between 0 and 1 with "
                "net.ctc=true, or 0 with net.ctc=false"
            )
        self.label_smoothing, self.token_noise, self.blank_fraction = label_smoothing, token_noise, blank_fraction
        self.ctc_weight = ctc_weight
        self.short: set[str] = set()  # ids of lines that have fewer frames than characters

    def target(self, text: str, sample: str) -> list[int]:
        """See `LineRecognizer`.

        Raises:
            InputError: it has more labels than the decoder gives out.
        """
        return within(super().target(text, sample), self.decoder, sample, "characters")

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats per label, the end among them, weighed with the CTC loss in nats per character."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        images = batch.images
        if self.blank_fraction > 0:
            blank = torch.rand(len(targets)) < self.blank_fraction
            images = images * ~blank.to(images.device)[:, None, None, None]
            targets = [[] if is_blank else target for target, is_blank in zip(targets, blank.tolist(), strict=True)]
        seen = self.net(images, batch.widths)
        if not self.ctc_weight:  # else the CTC loss names them
            self._name_short(batch.ids, targets, seen.frames)
        before, after = marked(targets, START, END, START, images.device)
        if self.token_noise > 0:
            drawn = torch.rand(before.shape, device=before.device) < self.token_noise
            random = torch.randint(len(self.specials), len(self.codec), before.shape, device=before.device)
            before = torch.where(drawn & (before != START), random, before)
        logits = self.net.decoder(seen.memory, seen.lengths, before).float()
        loss = functional.cross_entropy(
            logits.flatten(0, 1), after.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        if not self.ctc_weight:
            return loss
        return (1 - self.ctc_weight) * loss + self.ctc_weight * self.ctc(seen.heads, seen.frames, batch.ids, targets)

    def summed_loss(self, output: EncoderOutput, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The cross-entropy of the decoder without smoothing, and the labels, ends among them."""
        targets = [self.known(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        self._name_short(batch.ids, targets, output.frames)
        before, after = marked(targets, START, END, START, output.memory.device)
        logits = self.net.decoder(output.memory, output.lengths, before)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), after.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, sum(len(target) + 1 for target in targets)

    def decoding(self, output: EncoderOutput) -> tuple[Any, ...]:
        if isinstance(self.decoder, Rescoring):
            return (self.passes(output, self.decoder.max_length),)
        return self._writing(output)

    def passes(self, output: EncoderOutput, max_length: int) -> TwoPassInput:
        """What a `Rescoring` is called with, of a network with CTC heads.

        Args:
            max_length: labels after which what the decoder writes is ended.
        """
        labels = [BLANK, *range(END + 1, len(self.codec))]
        log_probs = output.heads[0][:, :, labels].float().log_softmax(2)
        written = [[id for id in one.ids if id > END] for one in Greedy(max_length)(*self._writing(output))]
        judge = partial(self._judge, output._replace(heads=[]))
        return TwoPassInput(log_probs, output.frames, written, judge, END + 1)

    def set_greedy(self) -> None:
        self.decoder = Greedy(self.decoder.max_length)

    def _writing(self, output: EncoderOutput) -> tuple[Any, ...]:
        """What a decoder that writes is called with."""
        state = self.net.decoder.start(output.memory, output.lengths)
        start = torch.full_like(output.lengths, START)
        lines = torch.arange(len(start), device=start.device)
        first = DecoderState(state, lines, torch.zeros_like(output.lengths), output.frames)
        return self._step, first, self._reorder, start, END

    def _name_short(self, ids: list[str], targets: list[list[int]], frames: Int[Tensor, " B"]) -> None:
        needed = [len(target) for target in targets]
        fitting(ids, frames, needed, self.short, "frames", "end of the line cannot be read")

    def _judge(self, output: EncoderOutput, readings: list[list[list[int]]]) -> list[list[float]]:
        """The log-probability that the decoder gives each of some texts of every line, its end included, in nats."""
        device = output.memory.device
        lines = torch.tensor([line for line, some in enumerate(readings) for _ in some], device=device)
        before, after = marked([ids for some in readings for ids in some], START, END, START, device)
        logits = self.net.decoder(output.memory[lines], output.lengths[lines], before).float()
        logits[:, :, [BLANK, START]] = -torch.inf
        losses = functional.cross_entropy(logits.transpose(1, 2), after, ignore_index=IGNORED, reduction="none")
        judged = iter((-losses.sum(1)).tolist())
        return [[next(judged) for _ in some] for some in readings]

    def _step(self, tokens: Int[Tensor, " B"], written: DecoderState) -> tuple[Float[Tensor, "B C"], DecoderState]:
        logits, state = self.net.decoder.step(tokens, written.state)
        logits = logits.float()
        logits[:, [BLANK, START]] = -torch.inf
        logits[written.labels >= written.most, END + 1 :] = -torch.inf
        return logits.log_softmax(1), written._replace(state=state, labels=written.labels + 1)

    def _reorder(self, written: DecoderState, rows: Int[Tensor, " N"]) -> DecoderState:
        lines = written.lines[rows]
        moved = not torch.equal(lines, written.lines)  # else every sequence of a beam looks where its line did
        state = self.net.decoder.reorder(written.state, rows, memory=moved)
        return DecoderState(state, lines, written.labels[rows], written.most[rows])
