"""Recognition of lines by a pretrained TrOCR."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from htr_lightning.data.batch import Batch
from htr_lightning.decoder.autoregressive import Beam, Greedy
from htr_lightning.decoder.ctc import Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.model.autoregressive import IGNORED, checked, marked, within
from htr_lightning.model.base import Recognizer, readings
from htr_lightning.model.trocr_source import open_source
from htr_lightning.net.pretrained import PretrainedTrOCR
from htr_lightning.text.codec import Codec, name
from htr_lightning.transcription import Transcription

LETTER = "q"  # no mark composes with it


class PretrainedTrOCRRecognizer(Recognizer):
    """A TrOCR (Li et al., 2021, arXiv:2109.10282) that was trained elsewhere, with its own tokenizer of subwords.

    Its alphabet are the characters of the training texts that the tokenizer can write; it may read others, which it has
    learned elsewhere. Targets end with the end mark, and the decoder is fed from the start mark that it was trained
    with, which for Microsoft's models is the end mark, too.

    Args:
        alphabet: the characters of the training texts.
        decoder: maps steps to one hypothesis a line, see `htr_lightning.decoder.autoregressive`.
        source: a folder that `save_pretrained` of transformers wrote, or a repository of huggingface.co; opened only
            where there is no `architecture`.
        architecture, tokenizer: the model's, as plain data; a checkpoint has them.
        dropout: probability in the decoder; None: the source's own.
        smoothing: share of the target that is spread over all tokens in training.
        gradient_checkpointing: whether layers are computed again in the backward pass, for less memory.
        others: see `Recognizer`.

    Raises:
        InputError: the source is not there or no TrOCR, or preprocessing or decoder do not fit it.
    """

    net: PretrainedTrOCR

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Greedy | Beam,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        dropout: float | None = None,
        smoothing: float = 0.0,
        gradient_checkpointing: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(alphabet, **others)
        self.decoder = checked(decoder)  # before anything is fetched
        weights = None
        if architecture is None or tokenizer is None:
            if source is None:
                raise InputError("model.source: name the folder or the repository of a TrOCR")
            architecture, tokenizer, weights = open_source(source)
        self.net = PretrainedTrOCR(architecture["encoder"], architecture["decoder"], dropout, gradient_checkpointing)
        if weights is not None:
            self.net.load_state_dict(weights)
        self.tokenizer = open_tokenizer(tokenizer)
        self.start, self.end, self.pad = (int(architecture[mark]) for mark in ("start", "end", "pad"))
        self.places = int(architecture["decoder"]["max_position_embeddings"])
        self.parts = {"architecture": architecture, "tokenizer": tokenizer}
        self.smoothing = smoothing
        self.alternatives = 0  # readings to give of each line, of a decoder that has several
        self._check(architecture)
        given = self.codec.alphabet
        self.unwritable = {c for c in given if not any(self._writes(c, text) for text in (c, LETTER + c + LETTER))}
        self.codec = Codec([c for c in given if c not in self.unwritable])

    @property
    def outputs(self) -> int:
        return int(self.parts["architecture"]["decoder"]["vocab_size"])

    def target(self, text: str, sample: str) -> list[int]:
        """Tokens of a training text, without the marks.

        Raises:
            InputError: a character is not in the alphabet or the tokenizer cannot write it, and `unknown` is "error";
                or there are more tokens than the decoder gives out.
        """
        if self.unknown == "error":
            lost = next((c for c in text if c in self.unwritable), None)
            if lost is not None or (given := self._given_back(text)) != text:
                what = name(lost) if lost is not None else f"'{text}'"
                back = self._given_back(lost) if lost is not None else given
                raise InputError(
                    f"{sample}: the model's tokenizer cannot write {what}, it gives '{back}' back; change it by "
                    "model.normalizer.replace or set model.unknown=skip"
                )
            self.codec.encode(text, sample)
        return within(self._tokens(self.codec.known(text)), self.decoder, sample, "tokens")

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Recognizer`; texts that the tokenizer changes are counted, with `unknown="skip"`."""
        unknown = super().check_targets(ids, texts)
        known = map(self.codec.known, texts)
        lost = [id for id, text in zip(ids, known, strict=True) if self._given_back(text) != self.normalizer(text)]
        if lost:
            warnings.warn(
                f"{len(lost)} of {len(ids)} training texts, first that of {lost[0]}, are changed by the model's "
                "tokenizer; their CER cannot become 0",
                stacklevel=2,
            )
        return unknown

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats per token, the end mark among them."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        memory = self.net(batch.images, batch.widths)
        return self._cross_entropy(memory, targets, reduction="mean", label_smoothing=self.smoothing)

    def summed_loss(self, output: Float[Tensor, "B S D"], batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The cross-entropies of the texts that fit the decoder, without smoothing, and their tokens."""
        targets = [self._tokens(self.codec.known(text)) for text in batch.texts]
        rows = [row for row, target in enumerate(targets) if len(target) < self.places]
        kept = [targets[row] for row in rows]
        if not kept:
            return output.sum() * 0.0, 0
        return self._cross_entropy(output[rows], kept, reduction="sum"), sum(len(target) + 1 for target in kept)

    def decode(self, output: Float[Tensor, "B S D"]) -> list[Transcription]:
        start = torch.full((len(output),), self.start, device=output.device)
        search = (self.net.step, self.net.begin(output), self.net.reorder, start, self.end)
        return readings(self.decoder, search, self.alternatives, self._read, self.normalizer)

    def set_greedy(self) -> None:
        self.decoder = Greedy(self.decoder.max_length)

    def _read(self, hypothesis: Hypothesis) -> tuple[str, float]:
        text = self.normalizer(self.tokenizer.decode(hypothesis.ids))
        return text, math.exp(hypothesis.log_prob / max(1, len(text)))

    def _cross_entropy(self, memory: Float[Tensor, "B S D"], targets: list[list[int]], **how: Any) -> Float[Tensor, ""]:
        inputs, labels = marked(targets, self.start, self.end, self.pad, memory.device)
        logits = self.net.logits(memory, inputs).float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, **how)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _given_back(self, text: str) -> str:
        return self.normalizer(self.tokenizer.decode(self._tokens(text)))

    def _writes(self, character: str, text: str) -> bool:
        return self.tokenizer.decode(self._tokens(text)) == text or character == " "

    def _check(self, architecture: dict[str, Any]) -> None:
        """Raises InputError where what is around the network does not fit it."""
        size = architecture["encoder"]["image_size"]
        rows, columns = (size, size) if isinstance(size, int) else size
        seen = self.preprocess(np.full((rows, columns), 255, np.uint8)).shape
        if seen != (rows, columns):
            raise InputError(
                f"model.preprocess: makes {seen[1]} x {seen[0]} pixels, but the source sees {columns} x {rows}; set "
                f"model.preprocess.height={rows} model.preprocess.columns={columns}"
            )
        if self.decoder.max_length >= self.places:
            raise InputError(
                f"decoder.max_length={self.decoder.max_length}: the source has places for {self.places} tokens, the "
                "start mark among them; give less"
            )
        largest = self.tokenizer.get_vocab_size() - 1
        if largest >= architecture["decoder"]["vocab_size"]:
            raise InputError(
                f"model.source: its tokenizer has tokens up to {largest}, its network "
                f"{architecture['decoder']['vocab_size']}; they are not of one model"
            )


def open_tokenizer(text: str) -> Any:
    """The tokenizer of a JSON text.

    Raises:
        ValueError: it is none.
    """
    from tokenizers import Tokenizer  # comes with transformers, for which the net has looked

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing finer
        raise ValueError(f"the tokenizer: {error}") from None
