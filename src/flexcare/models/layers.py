"""An encoder layer cut at its attention, and attention given in parts that add up to the whole."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexcare.config import ModelConfig


class Layer(nn.Module):
    """A post-norm encoder layer with ReLU, without its attention, which the caller does between.

    `split` gives queries, keys and values, `finish` takes what was attended to. Dropout is on the
    attention weights, after the attention, inside and after the feed-forward part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, config.feedforward * width)
        self.down = nn.Linear(config.feedforward * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.query_key_value.weight)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, L, D) -> queries, keys, values, each (n, L, heads, D / heads)."""
        q, k, v = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer. (n, L, D), (n, L, heads, D / heads) -> (n, L, D)."""
        x = self.norm1(x + self.drop(self.out(attended.flatten(-2))))
        inner = self.drop(self.up(x).relu())
        out: Tensor = self.norm2(x + self.drop(self.down(inner)))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Ordinary attention. (n, L, heads, d) each; bias of the scores, (n or 1, 1, 1 or L, L)."""
        q, k, v, bias = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias.to(q.dtype)
        if self.training and self.dropout:  # no fused attention drops weights on a processor
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
            out = self.drop(scores.softmax(-1)) @ v
        else:
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out.transpose(1, 2)

    def drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout) if self.training and self.dropout else x


def dropout(x: Tensor, share: float) -> Tensor:
    """`x` with a `share` of its entries 0 and the others scaled up, as torch's dropout.

    Drawing a number for every entry takes torch a fifth of a step on a processor; here 64 random
    bits decide about four entries, to 1 / 65536 of the share.
    """
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    dropped = min(round(share * 2**16), 2**16 - 1)
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


def hiding(visible: Tensor) -> Tensor:
    """What added to scores hides: 0 where visible, else minus infinity."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -math.inf)


class Part(NamedTuple):
    """The answer that some of the keys give to R readers.

    Attributes:
        log_sum: (n, R, heads), logarithm of the sum of exp(score) over these keys.
        answer: (n, R, heads, d), the values' mean under the softmax over these keys alone.
    """

    log_sum: Tensor
    answer: Tensor


def read(layer: Layer, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Part:
    """What readers get from some keys.

    Args:
        q: (n, R, heads, d).
        k, v: (n, L, heads, d).
        bias: (n, 1, 1 or R, L), see `hiding`; every reader sees at least one key.
    """
    scores = widened(torch.einsum("nrhd,nlhd->nhrl", q, k)) / math.sqrt(q.shape[-1]) + bias
    log_sum = scores.logsumexp(-1)
    # Dropping weights of a part and then merging drops each weight of the whole alike.
    weights = layer.drop((scores - log_sum[..., None]).exp()).to(v.dtype)
    return Part(log_sum.transpose(1, 2), torch.einsum("nhrl,nlhd->nrhd", weights, v))


def place(part: Part, rows: Tensor, readers: Tensor, size: tuple[int, int]) -> Part:
    """A part of some rows and readers among all (B, R): the others get nothing, exactly."""
    at = (rows[:, None], readers[None, :])
    log_sum = part.log_sum.new_full((*size, *part.log_sum.shape[2:]), -math.inf)
    answer = part.answer.new_zeros((*size, *part.answer.shape[2:]))
    log_sum[at], answer[at] = part.log_sum, part.answer
    return Part(log_sum, answer)


def merge(parts: list[Part]) -> Tensor:
    """Attention over the keys of all parts: (n, R, heads, d). Some part has a key for each reader.

    The softmax over all keys is the softmax within a part times that over the parts' log-sums.
    """
    weights = torch.stack([part.log_sum for part in parts]).softmax(0)
    answers = torch.stack([part.answer for part in parts])
    return (weights[..., None] * answers).sum(0).to(answers.dtype)


def widened(x: Tensor) -> Tensor:
    """At least single precision, where half would blur scores and probabilities."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
