"""Start a recognizer from the weights of a checkpoint, whose alphabet may be different."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from htr_lightning.checkpoint import read
from htr_lightning.config import make
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer


class Transfer(NamedTuple):
    """The characters of the new alphabet that were kept or added, and the old ones that were dropped."""

    kept: list[str]
    added: list[str]
    dropped: list[str]

    def __str__(self) -> str:
        added, dropped = (f" ({' '.join(some)})" if some else "" for some in (self.added, self.dropped))
        return f"{len(self.kept)} characters kept, {len(self.added)} added{added}, {len(self.dropped)} dropped{dropped}"


def transfer(recognizer: Recognizer, path: str | Path) -> Transfer:
    """Copy the weights of a checkpoint into a recognizer, matching classes by character.

    Before the first training step, the logits of all kept characters are identical to those of the checkpoint.

    Args:
        recognizer: recognizer built by `build`.
        path: path to the checkpoint.

    Raises:
        InputError: if the checkpoint cannot be read (see `checkpoint.read`) or its network is different.
    """
    content = read(path)
    old, new = content["htr"]["alphabet"], recognizer.alphabet
    own, weights = recognizer.state_dict(), content["state_dict"]
    wide = class_weights(recognizer)
    targets, sources = rows(recognizer, old)
    with torch.no_grad():
        for name, weight in own.items():
            found = weights.get(name)
            if not _fits(weight, found, name in wide):
                shape = "none" if found is None else tuple(found.shape)
                raise InputError(
                    f"{path}: its network is different ({name}: expected {tuple(weight.shape)}, got {shape}); repeat "
                    "the model overrides of its run, which are listed in .hydra/overrides.yaml in its run folder"
                )
            if name in wide:
                weight[targets] = found[sources]
            else:
                weight.copy_(found)
    here, there = set(new), set(old)
    return Transfer(
        [c for c in new if c in there], [c for c in new if c not in there], [c for c in old if c not in here]
    )


def rows(recognizer: Recognizer, old: list[str]) -> tuple[Tensor, Tensor]:
    """Return the indices of a recognizer's classes that the checkpoint also has, and their indices there."""
    specials = len(recognizer.codec.specials)
    place = {character: number for number, character in enumerate(old, start=specials)}
    rows = [(own, place[c]) for own, c in enumerate(recognizer.codec.alphabet, start=specials) if c in place]
    rows += [(special, special) for special in range(specials)]
    if not rows:
        return (torch.empty(0).long(),) * 2
    targets, sources = (torch.tensor(side) for side in zip(*rows, strict=True))
    return targets, sources


def class_weights(recognizer: Recognizer) -> set[str]:
    """Return the names of the weights that have one row per class and therefore grow with the alphabet."""
    spare = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in recognizer.codec.alphabet)
    with torch.device("meta"):
        wider = make(recognizer.card["model"], "model")(
            alphabet=[*recognizer.codec.alphabet, spare], **recognizer.parts
        )
    own = recognizer.state_dict()
    return {name for name, weight in wider.state_dict().items() if weight.shape != own[name].shape}


def _fits(weight: Tensor, found: Tensor | None, by_class: bool) -> bool:
    if found is None:
        return False
    return weight.shape[1:] == found.shape[1:] if by_class else weight.shape == found.shape
