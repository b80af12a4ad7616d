"""Line recognition with a pretrained TrOCR model."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from htr_lightning.data.batch import Batch, moved
from htr_lightning.decoder.autoregressive import Greedy, Steps
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.model.autoregressive import IGNORED, check_decoder, check_length, teacher_forcing
from htr_lightning.model.base import Exportable, Recognizer
from htr_lightning.model.trocr_source import open_source
from htr_lightning.net.pretrained import PretrainedTrOCR
from htr_lightning.parameters import BelowOne, Fraction
from htr_lightning.text.codec import Codec, name
from htr_lightning.transcription import Interpreted

MAX_IMAGE = 4096  # pixels; Microsoft's models use 384
LETTER = "q"  # combines with no diacritic


class PretrainedTrOCRRecognizer(Recognizer):
    """A pretrained TrOCR model (Li et al., 2021, arXiv:2109.10282) with its own subword tokenizer.

    The alphabet consists of the characters of the training texts that the tokenizer can encode; the model may also
    output other characters from its pretraining. Targets end with the end token. The decoder starts from the same token
    as in pretraining, which in Microsoft's models is also the end token.

    Args:
        alphabet: characters of the training texts.
        decoder: decoder from `htr_lightning.decoder.autoregressive`.
        source: folder written by `save_pretrained` of transformers, or a repository on huggingface.co; loaded only if
            `architecture` is None.
        architecture: settings of the network as plain data, as stored in a checkpoint.
        tokenizer: tokenizer in JSON, as stored in a checkpoint.
        dropout: dropout probability in the decoder; None for the value in the source.
        label_smoothing: probability spread over all tokens in training.
        gradient_checkpointing: whether to recompute layers in the backward pass to save memory.
        others: arguments of `Recognizer`.

    Raises:
        InputError: if the source does not exist or is not a TrOCR model, or if the preprocessing or the decoder does
            not match it.
    """

    net: PretrainedTrOCR

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Decoder,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        dropout: BelowOne | None = None,
        label_smoothing: Fraction = 0.0,
        gradient_checkpointing: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(alphabet, decoder, **others)
        self.max_length = check_decoder(decoder).max_length  # before anything is downloaded
        weights = None
        if architecture is None or tokenizer is None:
            if source is None:
                raise InputError("model.source: required; set it to the folder or repository of a TrOCR model")
            architecture, tokenizer, weights = open_source(source)
        self.net = PretrainedTrOCR(architecture["encoder"], architecture["decoder"], dropout, gradient_checkpointing)
        if weights is not None:
            self.net.load_state_dict(weights)
        self.tokenizer = open_tokenizer(tokenizer)
        self.start, self.end, self.pad = (int(architecture[token]) for token in ("start", "end", "pad"))
        self.max_tokens = int(architecture["decoder"]["max_position_embeddings"])
        self.parts = {"architecture": architecture, "tokenizer": tokenizer}
        self.label_smoothing = label_smoothing
        self._check(architecture)
        given = self.codec.alphabet
        self.unencodable = {c for c in given if not any(self._encodes(c, text) for text in (c, LETTER + c + LETTER))}
        self.codec = Codec([c for c in given if c not in self.unencodable])

    @property
    def num_classes(self) -> int:
        return int(self.parts["architecture"]["decoder"]["vocab_size"])

    def target(self, text: str, sample: str) -> list[int]:
        """Return the tokens of a training text, without the start and end tokens.

        Raises:
            InputError: if the text has more tokens than the decoder can output; or, with `unknown="error"`, if a
                character is not in the alphabet or cannot be encoded by the tokenizer.
        """
        if self.unknown == "error":
            lost = next((c for c in text if c in self.unencodable), None)
            if lost is not None or (decoded := self._round_trip(text)) != text:
                what = name(lost) if lost is not None else f"'{text}'"
                back = self._round_trip(lost) if lost is not None else decoded
                raise InputError(
                    f"{sample}: the model's tokenizer cannot encode {what}, which becomes '{back}'; replace it with "
                    "model.normalizer.replace, or set model.unknown=skip"
                )
            self.codec.encode(text, sample)
        return check_length(self._tokens(self.codec.known(text)), self.max_length, sample, "tokens")

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Recognizer`; also warn about texts that the tokenizer changes, with `unknown="skip"`."""
        unknown = super().check_targets(ids, texts)
        known = map(self.codec.known, texts)
        lost = [id for id, text in zip(ids, known, strict=True) if self._round_trip(text) != self.normalizer(text)]
        if lost:
            warnings.warn(
                f"the model's tokenizer changes {len(lost)} of {len(ids)} training texts (first: {lost[0]}), so the "
                "CER cannot reach 0",
                stacklevel=2,
            )
        return unknown

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the cross-entropy in nats per token, including the end token."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        memory = self.net(batch.images, moved(batch.widths, batch.images.device))
        return self._cross_entropy(memory, targets, reduction="mean", label_smoothing=self.label_smoothing)

    def units(self, batch: Batch) -> int:
        """Return the number of tokens and end tokens."""
        return super().units(batch) + len(batch.ids)

    def summed_loss(self, output: Float[Tensor, "B S D"], batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """Return the summed cross-entropy of texts that fit the decoder, without smoothing, and their token count."""
        targets = [self._tokens(self.codec.known(text)) for text in batch.texts]
        rows = [row for row, target in enumerate(targets) if len(target) < self.max_tokens]
        kept = [targets[row] for row in rows]
        if not kept:
            return output.sum() * 0.0, 0
        return self._cross_entropy(output[rows], kept, reduction="sum"), sum(len(target) + 1 for target in kept)

    def scores(self, output: Float[Tensor, "B S D"]) -> tuple[Steps]:
        start = np.full(len(output), self.start)
        return (Steps(self._step, partial(self.net.begin, output), self._reorder, start, self.end),)

    def _step(self, tokens: Int[ndarray, " B"], state: Any) -> tuple[Float[ndarray, "B C"], Any]:
        log_probs, state = self.net.step(torch.from_numpy(tokens).to(self.device), state)
        return log_probs.cpu().numpy(), state

    def _reorder(self, state: Any, rows: Int[ndarray, " N"]) -> Any:
        return self.net.reorder(state, torch.from_numpy(rows).to(self.device))

    def text(self, hypothesis: Hypothesis) -> str:
        return self.normalizer(self.tokenizer.decode(hypothesis.ids))

    def interpret(self, hypothesis: Hypothesis) -> Interpreted:
        """See `Recognizer`; labels are tokens, whose probability all of their characters have."""
        ids, text = hypothesis.ids, self.tokenizer.decode(hypothesis.ids)
        confidence = math.exp(hypothesis.log_prob / max(1, len(self.normalizer(text))))
        own: Sequence[float] = hypothesis.probabilities or [confidence] * len(ids)
        ends = [min(len(text), len(self.tokenizer.decode(ids[: count + 1]))) for count in range(len(ids))]
        characters = [confidence] * len(text)
        for start, end, probability in zip([0, *ends], ends, own, strict=False):
            characters[start:end] = [probability] * (end - start)
        return Interpreted(text, confidence, characters)

    def exportable(self) -> Exportable:
        raise InputError(
            f"{type(self).__name__} cannot be exported, since its tokenizer is not part of the network; use a "
            "checkpoint of model=trocr or crnn"
        )

    def greedy(self) -> Recognizer:
        return self.with_decoder(Greedy(self.max_length))

    def _cross_entropy(self, memory: Float[Tensor, "B S D"], targets: list[list[int]], **how: Any) -> Float[Tensor, ""]:
        inputs, labels = teacher_forcing(targets, self.start, self.end, self.pad, memory.device)
        logits = self.net.logits(memory, inputs).float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, **how)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _round_trip(self, text: str) -> str:
        return self.normalizer(self.tokenizer.decode(self._tokens(text)))

    def _encodes(self, character: str, text: str) -> bool:
        return self.tokenizer.decode(self._tokens(text)) == text or character == " "

    def _check(self, architecture: dict[str, Any]) -> None:
        """Raise InputError if the preprocessing, decoder or tokenizer does not match the network."""
        size = architecture["encoder"]["image_size"]
        rows, columns = (size, size) if isinstance(size, int) else size
        if max(rows, columns) > MAX_IMAGE:
            raise InputError(f"model.source: expects images of {columns} x {rows} pixels (maximum {MAX_IMAGE}); use a "
                             "TrOCR model such as microsoft/trocr-small-handwritten")  # fmt: skip
        size = self.preprocess(np.full((rows, columns), 255, np.uint8)).shape[-2:]
        if size != (rows, columns):
            raise InputError(
                f"model.preprocess: outputs {size[1]} x {size[0]} pixels, but the source expects {columns} x {rows}; "
                f"set model.preprocess.height={rows} model.preprocess.columns={columns}"
            )
        if self.max_length >= self.max_tokens:
            raise InputError(
                f"decoder.max_length={self.max_length}: must be less than {self.max_tokens}, the number of decoder "
                "positions in the source"
            )
        largest = self.tokenizer.get_vocab_size() - 1
        if largest >= architecture["decoder"]["vocab_size"]:
            raise InputError(
                f"model.source: its tokenizer has {largest + 1} tokens, but its network has only "
                f"{architecture['decoder']['vocab_size']}; use a tokenizer and a network that were saved together"
            )


def open_tokenizer(text: str) -> Any:
    """Return the tokenizer defined by a JSON string.

    Raises:
        ValueError: if the string is invalid.
    """
    from tokenizers import Tokenizer  # a dependency of transformers

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises nothing more specific
        raise ValueError(f"invalid tokenizer: {error}") from None
