"""Torch's own fused layer: oneDNN on CPU, cuDNN on CUDA.

The one backend that projects the input itself, since torch fuses both. It knows nothing of
lengths: right padding cannot reach a state before it, so each text's states are right up to its
length; but the cell state at that length is overwritten and cannot be given back.
"""

import torch
from torch import Tensor


def lstm(
    *,
    x: Tensor,  # (T, B, I)
    weight_ih: Tensor,  # (4H, I)
    weight_hh: Tensor,  # (4H, H)
    bias_ih: Tensor | None,  # (4H,)
    bias_hh: Tensor | None,  # (4H,)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one direction of one layer; return h (T, B, H), h_last (B, H) and c_last (B, H)."""
    has_biases = bias_ih is not None
    weights = [weight_ih, weight_hh, bias_ih, bias_hh] if has_biases else [weight_ih, weight_hh]
    h, h_last, c_last = torch.lstm(
        x,
        (h0.unsqueeze(0), c0.unsqueeze(0)),
        weights,
        has_biases,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),  # without it cuDNN keeps nothing for a backward
        bidirectional=False,
        batch_first=False,
    )
    return h, h_last[0], c_last[0]
