"""What every backend promises: the notation, the two signatures, one check of the inputs.

Sizes: ``T`` time steps, ``B`` texts in a batch, ``I`` input, ``H`` hidden. Names and order of the
gates are torch's: ``i, f, g, o`` stacked along the first axis of ``weight_hh`` (4H, H). A backend
computes the recurrence alone, from input gates that are already projected::

    i, f, g, o = gates_x[t] + (mask_h * h[t-1]) @ weight_hh.T    i, f, o: sigmoid, g: tanh
    c[t] = f * c[t-1] + i * g
    h[t] = o * tanh(c[t])

``mask_h`` (B, H) is the recurrent dropout of Gal & Ghahramani (2016), one mask a text for all
steps; None is no dropout. It gets no gradient.

Texts are padded on the right. A text of length ``n`` has its last state at step ``n - 1``; its
``h`` is 0 from step ``n`` on, as in ``torch.nn.utils.rnn.pad_packed_sequence``.

A backend is a module with these two functions, all arguments by keyword:

``forward(gates_x, weight_hh, h0, c0, lengths, mask_h, for_backward)``
    returns ``h`` (T, B, H), ``h_last`` (B, H), ``c_last`` (B, H) and ``saved``, a tuple of tensors
    that ``backward`` wants to see again (empty unless ``for_backward``).

``backward(grad_h, grad_h_last, grad_c_last, h, weight_hh, h0, c0, lengths, mask_h, saved)``
    returns the gradients of ``gates_x``, ``weight_hh``, ``h0`` and ``c0``. It changes no argument.
"""

import torch
from torch import Tensor


def check_sequence(
    *,
    gates_x: Tensor,  # (T, B, 4H) the input's share of the gates, i f g o
    weight_hh: Tensor,  # (4H, H)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,) whole numbers from 1 to T; None: every text has length T
    mask_h: Tensor | None,  # (B, H)
) -> None:
    """Raise ValueError unless the arguments fit together."""
    if weight_hh.ndim != 2 or weight_hh.shape[0] != 4 * weight_hh.shape[1]:
        raise ValueError(f"weight_hh must have shape (4*H, H); got {tuple(weight_hh.shape)}.")
    hidden = weight_hh.shape[1]
    if gates_x.ndim != 3 or gates_x.shape[2] != 4 * hidden or 0 in gates_x.shape:
        raise ValueError(
            f"gates_x must have shape (T, B, 4*H) with H={hidden} from weight_hh and T, B >= 1; "
            f"got {tuple(gates_x.shape)}."
        )
    n_steps, n_texts, _ = gates_x.shape
    states = {"h0": h0, "c0": c0} | ({} if mask_h is None else {"mask_h": mask_h})
    for name, state in states.items():
        if state.shape != (n_texts, hidden):
            raise ValueError(
                f"{name} must have shape (B, H) = ({n_texts}, {hidden}), B from gates_x and H "
                f"from weight_hh; got {tuple(state.shape)}."
            )
    for name, tensor in ({"weight_hh": weight_hh} | states).items():
        if tensor.dtype != gates_x.dtype or tensor.device != gates_x.device:
            raise ValueError(
                f"{name} must have the dtype and device of gates_x, {gates_x.dtype} on "
                f"{gates_x.device}; got {tensor.dtype} on {tensor.device}."
            )
    if lengths is not None:
        check_lengths(lengths, n_steps=n_steps, n_texts=n_texts)


def check_lengths(lengths: Tensor, *, n_steps: int, n_texts: int) -> None:
    """Raise ValueError unless there is one length from 1 to ``n_steps`` for each text."""
    if lengths.shape != (n_texts,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths must hold one whole number for each of the {n_texts} texts; "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}."
        )
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1 or longest > n_steps:
        raise ValueError(
            f"lengths must lie between 1 and T={n_steps}; got values from {shortest} to {longest}."
        )
