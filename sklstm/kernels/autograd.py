"""A backend's forward and backward, joined for torch's autograd."""

from types import ModuleType

import torch
from torch import Tensor


class LSTMSequence(torch.autograd.Function):
    """The recurrence of ``contract.py`` through the hand-written backward of a backend."""

    @staticmethod
    def forward(ctx, gates_x, weight_hh, h0, c0, lengths, mask_h, backend):
        """Run the backend and keep what its backward asks for."""
        h, h_last, c_last, saved = backend.forward(
            gates_x=gates_x,
            weight_hh=weight_hh,
            h0=h0,
            c0=c0,
            lengths=lengths,
            mask_h=mask_h,
            for_backward=True,
        )
        ctx.backend = backend
        ctx.save_for_backward(h, weight_hh, h0, c0, lengths, mask_h, *saved)
        return h, h_last, c_last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_h, grad_h_last, grad_c_last):
        """Run the backend's backward; lengths, mask and backend have no gradient."""
        h, weight_hh, h0, c0, lengths, mask_h, *saved = ctx.saved_tensors
        grads = ctx.backend.backward(
            grad_h=grad_h,
            grad_h_last=grad_h_last,
            grad_c_last=grad_c_last,
            h=h,
            weight_hh=weight_hh,
            h0=h0,
            c0=c0,
            lengths=lengths,
            mask_h=mask_h,
            saved=tuple(saved),
        )
        return *grads, None, None, None


def run(
    backend: ModuleType,
    *,
    gates_x: Tensor,  # (T, B, 4H)
    weight_hh: Tensor,  # (4H, H)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,)
    mask_h: Tensor | None,  # (B, H)
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence, keeping memory for a backward only where one can follow."""
    tensors = (gates_x, weight_hh, h0, c0)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return LSTMSequence.apply(*tensors, lengths, mask_h, backend)
    h, h_last, c_last, _ = backend.forward(
        gates_x=gates_x,
        weight_hh=weight_hh,
        h0=h0,
        c0=c0,
        lengths=lengths,
        mask_h=mask_h,
        for_backward=False,
    )
    return h, h_last, c_last
