"""The LSTM layer: layers x directions over the recurrence of ``sklstm.kernels``."""

import torch
from torch import Tensor, nn

from sklstm.kernels import lstm_sequence


class LSTM(nn.Module):
    """A long short-term memory layer that knows the lengths of its texts.

    Called as `torch.nn.LSTM` and with the same parameter names, so that either loads the other's
    ``state_dict``. It adds ``lengths``: texts are padded on the right, the backward direction
    starts at each text's own end, and padding never reaches a state.

    Parameters
    ----------
    input_size : int
        Size I of one input vector.
    hidden_size : int
        Size H of one hidden state.
    num_layers : int, default=1
        Number of stacked layers.
    bias : bool, default=True
        Whether the gates have biases.
    batch_first : bool, default=False
        Whether inputs and outputs are (B, T, features) instead of (T, B, features).
    dropout : float, default=0.0
        Dropout on the outputs of each layer except the last, while training.
    bidirectional : bool, default=False
        Whether a second LSTM reads each text from its end to its beginning.
    input_dropout : float, default=0.0
        Share of the input's features to drop in each layer and direction while training, the
        same at all steps of a text (Keras' ``dropout``).
    recurrent_dropout : float, default=0.0
        The same for the state on its way into the next step's gates (Keras'
        ``recurrent_dropout``). The backend "aten" has none.
    weight_dropout : float, default=0.0
        Share of the recurrent weights to drop while training, the same at all steps of a batch.
    backend : {'auto', 'aten', 'cpu', 'reference'}, default='auto'
        Which implementation runs. A name gives that implementation or an error.

    Attributes
    ----------
    generator : torch.Generator or None
        Source of the dropout masks; None draws from torch's global one.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Long Short-Term Memory; Gers, Schmidhuber & Cummins (2000),
    Learning to Forget. Initialisation: orthogonal recurrent weights (Saxe et al. 2014) and a
    forget-gate bias of 1 (Jozefowicz et al. 2015), in ``bias_ih`` alone, since the two biases add.
    Dropout with one mask for all steps: Gal & Ghahramani (2016); of the recurrent weights: Merity,
    Keskar & Socher (2018).

    Examples
    --------
    >>> import torch
    >>> from sklstm.lstm import LSTM
    >>> layer = LSTM(input_size=3, hidden_size=4, bidirectional=True)
    >>> x = torch.zeros(5, 2, 3)  # 5 steps, 2 texts
    >>> output, (h_n, c_n) = layer(x, lengths=torch.tensor([5, 2]))
    >>> output.shape, h_n.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        backend: str = "auto",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.backend = backend
        self.generator = generator
        for layer in range(num_layers):
            n_inputs = input_size if layer == 0 else hidden_size * self.num_directions
            for suffix in self._suffixes(layer):
                shapes = {"weight_ih": (4 * hidden_size, n_inputs)}
                shapes["weight_hh"] = (4 * hidden_size, hidden_size)
                if bias:
                    shapes["bias_ih"] = shapes["bias_hh"] = (4 * hidden_size,)
                for name, shape in shapes.items():
                    self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from ``generator``."""
        hidden = self.hidden_size
        for name, parameter in self.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter, generator=self.generator)
            elif name.startswith("weight_hh"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate, generator=self.generator)
            else:
                parameter.zero_()
                if name.startswith("bias_ih"):
                    parameter[hidden : 2 * hidden] = 1.0

    def forward(
        self,
        input: Tensor,  # (T, B, I), or (B, T, I) if batch_first
        hx: tuple[Tensor, Tensor] | None = None,  # h_0, c_0, each (layers * directions, B, H)
        lengths: Tensor | None = None,  # (B,) None: all texts fill the whole of T
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output (T, B, directions * H) and the last states (h_n, c_n).

        The output is 0 from a text's length on.

        Raises
        ------
        ValueError
            If shapes, lengths, dtypes or devices do not fit together.
        """
        x = input.transpose(0, 1) if self.batch_first else input
        output, h_n, c_n = self._run(x, hx, lengths, need_last=True)
        if lengths is not None:
            step = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
            output = torch.where((step < lengths.to(x.device)).unsqueeze(2), output, 0.0)
        return output.transpose(0, 1) if self.batch_first else output, (h_n, c_n)

    def states(
        self,
        x: Tensor,  # (T, B, I)
        lengths: Tensor | None = None,  # (B,)
    ) -> Tensor:
        """Return the output (T, B, directions * H) alone, which more backends can compute.

        From a text's length on it means nothing; whoever pools it masks it.
        """
        return self._run(x, None, lengths, need_last=False)[0]

    def _run(self, x, hx, lengths, *, need_last):
        self._check_input(x, hx)
        mirror = None
        if self.bidirectional:
            mirror = mirror_index(lengths, n_steps=x.shape[0], n_texts=x.shape[1], device=x.device)
        h_n, c_n = [], []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                inputs = x if direction == 0 else Mirror.apply(x, mirror)
                inputs = self._drop(inputs, (1, *x.shape[1:]), self.input_dropout)
                weight_hh = getattr(self, "weight_hh" + suffix)
                h0, c0 = self._first_states(x, hx, len(self._suffixes(0)) * layer + direction)
                h, h_last, c_last = lstm_sequence(
                    x=inputs,
                    weight_ih=getattr(self, "weight_ih" + suffix),
                    weight_hh=self._drop(weight_hh, weight_hh.shape, self.weight_dropout),
                    bias_ih=getattr(self, "bias_ih" + suffix) if self.bias else None,
                    bias_hh=getattr(self, "bias_hh" + suffix) if self.bias else None,
                    h0=h0,
                    c0=c0,
                    lengths=lengths,
                    mask_h=self._mask(h0, h0.shape, self.recurrent_dropout),
                    backend=self.backend,
                    need_last=need_last,
                )
                outputs.append(h if direction == 0 else Mirror.apply(h, mirror))
                h_n.append(h_last)
                c_n.append(c_last)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            if layer + 1 < self.num_layers:
                x = self._drop(x, x.shape, self.dropout)
        if not need_last:
            return x, None, None
        return x, torch.stack(h_n), torch.stack(c_n)

    def _mask(self, like, shape, p):
        """Return a mask while training, None where nothing is to be dropped."""
        if not self.training or p == 0:
            return None
        return dropout_mask(like, shape, p=p, generator=self.generator)

    def _drop(self, x, shape, p):
        mask = self._mask(x, shape, p)
        return x if mask is None else x * mask

    def _suffixes(self, layer):
        return (f"_l{layer}", f"_l{layer}_reverse")[: self.num_directions]

    def _first_states(self, x, hx, index):
        if hx is None:
            zeros = x.new_zeros(x.shape[1], self.hidden_size)
            return zeros, zeros
        return hx[0][index], hx[1][index]

    def _check_input(self, x, hx):
        if x.ndim != 3 or x.shape[2] != self.input_size or 0 in x.shape[:2]:
            order = "(B, T, I)" if self.batch_first else "(T, B, I)"
            shape = (x.shape[1], x.shape[0], *x.shape[2:]) if self.batch_first else x.shape
            raise ValueError(
                f"input must have shape {order} with I=input_size={self.input_size} and T, B >= 1;"
                f" got {tuple(shape)}."
            )
        if hx is not None:
            expected = (self.num_layers * self.num_directions, x.shape[1], self.hidden_size)
            for name, state in zip(("h_0", "c_0"), hx, strict=True):
                if state.shape != expected:
                    raise ValueError(
                        f"{name} must have shape (layers * directions, B, H) = {expected}; "
                        f"got {tuple(state.shape)}."
                    )

    def extra_repr(self) -> str:
        """Return the settings, for ``print``."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, backend={self.backend!r}"
        )


def mirror_index(
    lengths: Tensor | None,  # (B,)
    *,
    n_steps: int,
    n_texts: int,
    device: torch.device,
) -> Tensor:
    """Return the flat index (T * B,) that reverses each text by its own length.

    Padding stays where it is, so the index is its own inverse.
    """
    step = torch.arange(n_steps, device=device).unsqueeze(1)
    if lengths is None:
        mirrored = (n_steps - 1 - step).expand(n_steps, n_texts)
    else:
        n = lengths.to(device)
        mirrored = torch.where(step < n, n - 1 - step, step)
    return (mirrored * n_texts + torch.arange(n_texts, device=device)).flatten()


class Mirror(torch.autograd.Function):
    """Reverse each text by its own length; the gradient is mirrored by the same index."""

    @staticmethod
    def forward(ctx, x, index):
        """Gather x (T, B, F) by the flat index of ``mirror_index``."""
        ctx.save_for_backward(index)
        return x.flatten(0, 1).index_select(0, index).view(x.shape)

    @staticmethod
    def backward(ctx, grad):
        """Gather the gradient: a permutation that is its own inverse needs no scatter."""
        (index,) = ctx.saved_tensors
        return Mirror.apply(grad, index), None


def dropout_mask(
    like: Tensor, shape: tuple[int, ...], *, p: float, generator: torch.Generator | None
) -> Tensor:
    """Return a mask of 0 (with probability p) and 1 / (1 - p), of the dtype and device of like.

    It is drawn where the generator lives, so that one seed gives the same masks on every device.
    """
    source = like.device if generator is None else generator.device
    mask = torch.empty(shape, dtype=like.dtype, device=source)
    return mask.bernoulli_(1.0 - p, generator=generator).div_(1.0 - p).to(like.device)
