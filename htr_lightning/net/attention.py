"""Multi-head attention (Vaswani et al., 2017, "Attention is all you need", arXiv:1706.03762)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Attention from tokens to each other that sees no padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        query, key, value = self.project(x)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.merge(seen)

    def causal(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Every token sees itself and those before it."""
        query, key, value = self.project(x)
        return self.merge(functional.scaled_dot_product_attention(query, key, value, is_causal=True))

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
        seen = functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
        return self.output(seen.transpose(1, 2).flatten(2))
