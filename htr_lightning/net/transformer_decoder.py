"""The transformer decoder with its cache."""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.attention import CrossAttention, SelfAttention, attend


def sinusoids(places: Int[Tensor, " T"], width: int) -> Float[Tensor, "T D"]:
    """The position encoding of Vaswani et al. (2017, section 3.5) of an even width, at any place."""
    rates = torch.exp(torch.arange(0, width, 2, device=places.device) * (-math.log(10000.0) / width))
    angles = places[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the memory and a two-layer perceptron, each behind a layer norm and added to
    its input."""

    def __init__(self, width: int, memory: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = SelfAttention(width, heads)
        self.cross = CrossAttention(width, memory, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B L D"], memory: Float[Tensor, "B S M"], bias: Float[Tensor, "B 1 1 S"] | None
    ) -> Float[Tensor, "B L D"]:
        """All tokens at once, none of which sees a later one."""
        x = x + self.dropout(self.own.causal(self.norms[0](x)))
        x = x + self.dropout(self.cross(self.norms[1](x), *self.cross.keys(memory), bias))
        return x + self.dropout(self.mlp(self.norms[2](x)))

    def step(
        self, x: Float[Tensor, "B 1 D"], cache: "BlockCache", bias: Float[Tensor, "B 1 1 S"] | None
    ) -> tuple[Float[Tensor, "B 1 D"], "BlockCache"]:
        """One token more, whose predecessors' keys and values stand in the cache."""
        query, key, value = self.own.project(self.norms[0](x))
        keys, values = torch.cat([cache.keys, key], 2), torch.cat([cache.values, value], 2)
        x = x + self.own.merge(attend(query, keys, values))
        x = x + self.cross(self.norms[1](x), cache.memory_keys, cache.memory_values, bias)
        return x + self.mlp(self.norms[2](x)), cache._replace(keys=keys, values=values)


class BlockCache(NamedTuple):
    """Keys and values of a block: of the tokens so far, and of the memory."""

    keys: Float[Tensor, "B h L d"]
    values: Float[Tensor, "B h L d"]
    memory_keys: Float[Tensor, "B h S d"]
    memory_values: Float[Tensor, "B h S d"]


class DecoderState(NamedTuple):
    """What a transformer decoder has read and written so far."""

    blocks: list[BlockCache]
    bias: Float[Tensor, "B 1 1 S"] | None  # see `CrossAttention`
    length: int


class TransformerDecoder(nn.Module):
    """A character decoder that attends to a memory (Vaswani et al., 2017, arXiv:1706.03762; as in TrOCR, Li et al.,
    2021, arXiv:2109.10282).

    Memory and characters both carry sinusoidal positions, so lines may be of any width and length.

    Args:
        classes: labels with the specials.
        memory: channels of the memory, even.
        width: of the decoder, even.
        depth: its blocks.
        heads: attention heads of a block.
        dropout: probability behind every part of a block and the embedding.
    """

    places: Float[Tensor, "T D"]  # positions of characters, as far as they were needed

    def __init__(self, classes: int, memory: int, width: int, depth: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(classes, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(DecoderBlock(width, memory, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        self.places = sinusoids(torch.arange(256), width)  # no buffer: ranks and averages of weights need none

    def forward(
        self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"], tokens: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        """The logits behind every token, all at once (teacher forcing)."""
        memory, bias = self._placed(memory), _bias(memory, lengths)
        x = self.dropout(self._embedded(tokens, slice(tokens.shape[1])))
        for block in self.blocks:
            x = block(x, memory, bias)
        return self.head(self.norm(x))

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> DecoderState:
        """The state before the first token."""
        memory, bias = self._placed(memory), _bias(memory, lengths)
        blocks = []
        for block in self._blocks:
            keys, values = block.cross.keys(memory)
            blocks.append(BlockCache(keys[:, :, :0], values[:, :, :0], keys, values))
        return DecoderState(blocks, bias, 0)

    def step(self, tokens: Int[Tensor, " B"], state: DecoderState) -> tuple[Float[Tensor, "B C"], DecoderState]:
        """The logits behind one token more of every row."""
        x = self._embedded(tokens[:, None], slice(state.length, state.length + 1))
        caches = []
        for block, cache in zip(self._blocks, state.blocks, strict=True):
            x, cache = block.step(x, cache, state.bias)
            caches.append(cache)
        return self.head(self.norm(x))[:, 0], DecoderState(caches, state.bias, state.length + 1)

    @staticmethod
    def reorder(state: DecoderState, rows: Int[Tensor, " N"], memory: bool = True) -> DecoderState:
        """See `CharacterDecoder`."""
        blocks, bias = [], state.bias
        for keys, values, *seen in state.blocks:
            seen = [part.index_select(0, rows) for part in seen] if memory else seen
            blocks.append(BlockCache(keys.index_select(0, rows), values.index_select(0, rows), *seen))
        if memory and bias is not None:
            bias = bias.index_select(0, rows)
        return DecoderState(blocks, bias, state.length)

    @property
    def _blocks(self) -> list[DecoderBlock]:
        return cast(list[DecoderBlock], list(self.blocks))

    def _embedded(self, tokens: Int[Tensor, "B L"], places: slice) -> Float[Tensor, "B L D"]:
        if places.stop > len(self.places) or self.places.device != tokens.device:  # once rather than at every step
            many = max(2 * places.stop, len(self.places))
            with torch.inference_mode(False):
                self.places = sinusoids(torch.arange(many, device=tokens.device), self.width)
        return self.embed(tokens) * math.sqrt(self.width) + self.places[places].to(self.embed.weight.dtype)

    def _placed(self, memory: Float[Tensor, "B S M"]) -> Float[Tensor, "B S M"]:
        places = torch.arange(memory.shape[1], device=memory.device)
        return memory + sinusoids(places, memory.shape[2])


def _bias(memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 S"] | None:
    behind = (torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None])[:, None, None]
    return torch.zeros_like(memory[:, None, None, :, 0]).masked_fill(behind, -torch.inf) if behind.any() else None
