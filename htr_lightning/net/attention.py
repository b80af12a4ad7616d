"""Multi-head attention (Vaswani et al., 2017, "Attention is all you need", arXiv:1706.03762)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


def attend(
    query: Float[Tensor, "B h T d"],
    keys: Float[Tensor, "B h S d"],
    values: Float[Tensor, "B h S d"],
    mask: Float[Tensor, "B 1 1 S"] | Bool[Tensor, "B 1 1 S"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B h T d"]:
    """Scaled dot-product attention of every head (Vaswani et al., 2017, equation 1).

    Args:
        mask: 0 or True where there is something to see, minus infinity or False where there is not.
        causal: whether a token sees only itself and those before it.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:  # whose backward pass takes four times float32's
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
        with torch.autocast("cpu", enabled=False):
            seen = functional.scaled_dot_product_attention(
                query.float(), keys.float(), values.float(), attn_mask=mask, is_causal=causal
            )
        return seen.bfloat16()
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)


class SelfAttention(nn.Module):
    """Attention from tokens to each other that sees no padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        query, key, value = self.project(x)
        return self.merge(attend(query, key, value, mask[:, None, None, :]))

    def causal(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Every token sees itself and those before it."""
        query, key, value = self.project(x)
        return self.merge(attend(query, key, value, causal=True))

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B h T d"], ...]:
        """Query, key and value of every head."""
        return self.inputs(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, seen: Float[Tensor, "B h T d"]) -> Float[Tensor, "B T D"]:
        """What the heads have seen, as one."""
        return self.output(seen.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention from tokens to a memory."""

    def __init__(self, width: int, memory: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.inputs = nn.Linear(memory, 2 * width)
        self.output = nn.Linear(width, width)

    def keys(self, memory: Float[Tensor, "B S M"]) -> tuple[Float[Tensor, "B h S d"], ...]:
        """Keys and values of every head, the same for all tokens."""
        return self.inputs(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B h S d"],
        values: Float[Tensor, "B h S d"],
        bias: Float[Tensor, "B 1 1 S"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Args:
        bias: 0 where there is memory and minus infinity behind it; None: there is nothing behind it.
        """
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self.output(attend(query, keys, values, bias).transpose(1, 2).flatten(2))
