"""A transformer decoder with a key-value cache."""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.errors import InputError
from htr_lightning.net.attention import CrossAttention, SelfAttention, attend
from htr_lightning.net.backbone import is_unpadded
from htr_lightning.parameters import BelowOne, Depth, Size


def sinusoids(positions: Int[Tensor, " T"], width: int) -> Float[Tensor, "T D"]:
    """Return the position encodings of Vaswani et al. (2017, section 3.5); the width must be even."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class DecoderBlock(nn.Module):
    """A decoder block: causal self-attention, attention to the memory and a two-layer perceptron.

    Each sublayer is preceded by a layer norm and has a residual connection.
    """

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
        """Process all tokens at once, each attending to itself and earlier tokens."""
        x = x + self.dropout(self.own.causal(self.norms[0](x)))
        x = x + self.dropout(self.cross(self.norms[1](x), *self.cross.keys(memory), bias))
        return x + self.dropout(self.mlp(self.norms[2](x)))

    def step(
        self, x: Float[Tensor, "B 1 D"], cache: "BlockCache", bias: Float[Tensor, "B 1 1 S"] | None
    ) -> tuple[Float[Tensor, "B 1 D"], "BlockCache"]:
        """Process the next token, using the cached keys and values of earlier tokens.

        If the memory has a single row, it is that of all tokens.
        """
        query, key, value = self.own.project(self.norms[0](x))
        keys, values = torch.cat([cache.keys, key], 2), torch.cat([cache.values, value], 2)
        x = x + self.own.merge(attend(query, keys, values))
        memory, normed = (cache.memory_keys, cache.memory_values), self.norms[1](x)
        if len(cache.memory_keys) == 1:  # as tokens of one line, they need no copies of its memory
            x = x + self.cross(normed.transpose(0, 1), *memory, bias).transpose(0, 1)
        else:
            x = x + self.cross(normed, *memory, bias)
        return x + self.mlp(self.norms[2](x)), cache._replace(keys=keys, values=values)


class BlockCache(NamedTuple):
    """The cached keys and values of a block, for the tokens so far and for the memory."""

    keys: Float[Tensor, "B h L d"]
    values: Float[Tensor, "B h L d"]
    memory_keys: Float[Tensor, "#B h S d"]
    memory_values: Float[Tensor, "#B h S d"]


class DecoderState(NamedTuple):
    """The state of a transformer decoder."""

    blocks: list[BlockCache]
    bias: Float[Tensor, "#B 1 1 S"] | None  # see `CrossAttention`

    @property
    def length(self) -> int:
        """The number of tokens so far."""
        return self.blocks[0].keys.shape[2]


class TransformerDecoder(nn.Module):
    """A transformer decoder (Vaswani et al., 2017, arXiv:1706.03762) that predicts characters, as in TrOCR (Li et al.,
    2021, arXiv:2109.10282).

    Memory and characters use sinusoidal position encodings, so lines may have any width and length.

    Args:
        classes: number of labels, including special tokens.
        memory: number of memory channels; must be even.
        width: model dimension of the decoder; must be even.
        depth: number of decoder blocks.
        heads: number of attention heads per block.
        dropout: dropout probability after each sublayer and after the embedding.
    """

    positions: Float[Tensor, "T D"]  # position encodings, extended as needed

    def __init__(
        self, classes: int, memory: int, width: Size, depth: Depth, heads: Size, dropout: BelowOne = 0.1
    ) -> None:
        super().__init__()
        for name, size in (("width", width), ("the width of the encoder", memory)):
            if size % 2:
                raise InputError(f"model.net.decoder: {name} is {size}; expected an even number")
        self.width = width
        self.embed = nn.Embedding(classes, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(DecoderBlock(width, memory, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        self.positions = sinusoids(torch.arange(256), width)  # not a buffer: buffers are synchronised and averaged

    def forward(
        self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"], tokens: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        """Return the logits after each token, computed all at once (teacher forcing)."""
        memory, bias = self._positioned(memory), _bias(memory, lengths)
        x = self.dropout(self._embedded(tokens, slice(tokens.shape[1])))
        for block in self.blocks:
            x = block(x, memory, bias)
        return self.head(self.norm(x))

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> DecoderState:
        """Return the state before the first token."""
        memory, bias = self._positioned(memory), _bias(memory, lengths)
        blocks = []
        for block in self._blocks:
            keys, values = block.cross.keys(memory)
            blocks.append(BlockCache(keys[:, :, :0], values[:, :, :0], keys, values))
        return DecoderState(blocks, bias)

    def step(self, tokens: Int[Tensor, " B"], state: DecoderState) -> tuple[Float[Tensor, "B C"], DecoderState]:
        """Return the logits after the next token of each row, and the new state."""
        x = self._embedded(tokens[:, None], slice(state.length, state.length + 1))
        caches = []
        for block, cache in zip(self._blocks, state.blocks, strict=True):
            x, cache = block.step(x, cache, state.bias)
            caches.append(cache)
        return self.head(self.norm(x))[:, 0], DecoderState(caches, state.bias)

    @staticmethod
    def reorder(state: DecoderState, rows: Int[Tensor, " N"], memory: bool = True) -> DecoderState:
        """Return a state whose row i is row `rows[i]` of the given state; see `CharacterDecoder`."""
        blocks, bias = [], state.bias
        for keys, values, *shared in state.blocks:
            shared = [part.index_select(0, rows) for part in shared] if memory else shared
            blocks.append(BlockCache(keys.index_select(0, rows), values.index_select(0, rows), *shared))
        if memory and bias is not None:
            bias = bias.index_select(0, rows)
        return DecoderState(blocks, bias)

    @property
    def _blocks(self) -> list[DecoderBlock]:
        return cast(list[DecoderBlock], list(self.blocks))

    def _embedded(self, tokens: Int[Tensor, "B L"], positions: slice) -> Float[Tensor, "B L D"]:
        if torch.compiler.is_exporting():  # a table would limit the number of tokens
            own = sinusoids(torch.arange(positions.start or 0, positions.stop, device=tokens.device), self.width)
            return self.embed(tokens) * math.sqrt(self.width) + own
        if positions.stop > len(self.positions) or self.positions.device != tokens.device:
            count = max(2 * positions.stop, len(self.positions))  # double the table, so that this happens rarely
            with torch.inference_mode(False):
                self.positions = sinusoids(torch.arange(count, device=tokens.device), self.width)
        return self.embed(tokens) * math.sqrt(self.width) + self.positions[positions].to(self.embed.weight.dtype)

    def _positioned(self, memory: Float[Tensor, "B S M"]) -> Float[Tensor, "B S M"]:
        positions = torch.arange(memory.shape[1], device=memory.device)
        return memory + sinusoids(positions, memory.shape[2])


def _bias(memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 S"] | None:
    if is_unpadded():
        return None
    padding = (torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None])[:, None, None]
    bias = torch.zeros_like(memory[:, None, None, :, 0]).masked_fill(padding, -torch.inf)
    return bias if torch.is_grad_enabled() or padding.any() else None  # the second waits for the GPU
