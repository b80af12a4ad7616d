"""Multi-head attention (Vaswani et al., 2017, "Attention is all you need", arXiv:1706.03762)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.errors import InputError


def attend(
    query: Float[Tensor, "B h T d"],
    keys: Float[Tensor, "B h S d"],
    values: Float[Tensor, "B h S d"],
    mask: Float[Tensor, "B 1 1 S"] | Bool[Tensor, "B 1 1 S"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B h T d"]:
    """Compute scaled dot-product attention for each head (Vaswani et al., 2017, equation 1).

    Args:
        query: queries of each head.
        keys: keys of each head.
        values: values of each head.
        mask: 0 or True for keys to attend to, minus infinity or False for the others.
        causal: whether each token attends only to itself and earlier tokens.
    """
    if (
        query.device.type == "cpu" and query.dtype == torch.bfloat16
    ):  # the backward pass is four times as fast in float32
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
        with torch.autocast("cpu", enabled=False):
            attended = functional.scaled_dot_product_attention(
                query.float(), keys.float(), values.float(), attn_mask=mask, is_causal=causal
            )
        return attended.bfloat16()
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)


class SelfAttention(nn.Module):
    """Multi-head self-attention that ignores padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"heads={heads}: expected a divisor of width={width}; change one of them")
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        query, key, value = self.project(x)
        return self.merge(attend(query, key, value, mask[:, None, None, :]))

    def causal(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Attend from each token to itself and earlier tokens."""
        query, key, value = self.project(x)
        return self.merge(attend(query, key, value, causal=True))

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B h T d"], ...]:
        """Return the queries, keys and values of each head."""
        return self.inputs(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, attended: Float[Tensor, "B h T d"]) -> Float[Tensor, "B T D"]:
        """Concatenate the outputs of all heads and project them."""
        return self.output(attended.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to a memory."""

    def __init__(self, width: int, memory: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.inputs = nn.Linear(memory, 2 * width)
        self.output = nn.Linear(width, width)

    def keys(self, memory: Float[Tensor, "B S M"]) -> tuple[Float[Tensor, "B h S d"], ...]:
        """Return the keys and values of each head, which are shared by all tokens."""
        return self.inputs(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B h S d"],
        values: Float[Tensor, "B h S d"],
        bias: Float[Tensor, "B 1 1 S"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from each token to the memory.

        Args:
            x: tokens.
            keys: keys of each head (see `keys`).
            values: values of each head.
            bias: 0 for memory and minus infinity for padding; None if there is no padding.
        """
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self.output(attend(query, keys, values, bias).transpose(1, 2).flatten(2))
