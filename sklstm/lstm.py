"""The LSTM layer: layers x directions over ``sklstm.kernels``."""

import numbers

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sklstm.kernels import lstm_layer
from sklstm.kernels.cells import CELLS, check_cell
from sklstm.kernels.contract import Inputs
from sklstm.kernels.dispatch import check_backend, gains_from_bfloat16, tabulate
from sklstm.kernels.surroundings import own_defaults
from sklstm.kernels.transfer import generator_on, send


class LSTM(nn.Module):
    """A long short-term memory layer that knows the lengths of its texts, with a choice of cells.

    It is called like `torch.nn.LSTM` on padded tensors and has the same parameter names, so that
    either loads the other's ``state_dict``. It lacks ``proj_size`` and second derivatives. It adds
    ``lengths``: texts are padded on the right, the backward direction starts at each text's own
    end, and padding never reaches a state. `torch.compile` calls the layer as it is. `torch.export`
    takes it with ``lengths=None``, for texts of one length.

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
    cell : {'lstm', 'peephole', 'peephole_previous', 'layer_norm', 'coupled'}, default='lstm'
        What a step computes. 'lstm' is the standard cell. In 'peephole' the gates also see the
        cell state, the output gate the new one; in 'peephole_previous' all see the one before.
        'layer_norm' norms the input's and the state's share of the gates and the cell state;
        ``bias_ih`` and ``bias_hh`` are the shifts of the first two norms. In 'coupled' the forget
        gate is 1 minus the input gate, so that the weights have 3H rows.
    input_dropout : float, default=0.0
        Share of the input's features to drop in each layer and direction while training, the
        same at all steps of a text (Keras' ``dropout``).
    recurrent_dropout : float, default=0.0
        The same for the state on its way into the next step's gates (Keras'
        ``recurrent_dropout``). The backend 'aten' does not have it.
    weight_dropout : float, default=0.0
        Share of the recurrent weights to drop while training, the same at all steps of a batch.
    zoneout : float, default=0.0
        Share of the units that keep their states from the step before, drawn anew for each step
        while training. In prediction each state keeps this share of the one before. The backends
        'aten' and 'compiled' do not have it.
    backend : {'auto', 'aten', 'compiled', 'reference', 'torch', 'triton'}, default='auto'
        Which implementation runs: 'compiled' (our steps in C), 'aten' (torch's own layer), 'torch'
        (our steps in plain torch), 'triton' (our kernels for CUDA) or 'reference' (the definition,
        slow). A name gives that implementation or an error; 'auto' takes the fastest that can run.
    generator : torch.Generator or None, default=None
        Source of the first weights and of the dropout masks; None draws from torch's global one.
    proj_size : int, default=0
        Must be 0; `torch.nn.LSTM` projects its states by it.
    device, dtype : default=None
        Of the weights; None is torch's default.

    Attributes
    ----------
    generator : torch.Generator or None
        Source of the dropout masks; None draws from torch's global one.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Long Short-Term Memory; Gers, Schmidhuber & Cummins (2000),
    Learning to Forget. Initialisation: recurrent weights with orthogonal columns, those of all
    gates in one matrix (Saxe et al. 2014), and a forget-gate bias of 1 (Jozefowicz et al. 2015),
    only in ``bias_ih``, since the two biases add.
    Dropout with one mask for all steps: Gal & Ghahramani (2016); of the recurrent weights: Merity,
    Keskar & Socher (2018). Cells: Gers & Schmidhuber (2000), Recurrent Nets that Time and Count
    (peepholes; with weights of 0 at first); Ba, Kiros & Hinton (2016), Layer Normalization; Greff
    et al. (2017), LSTM: A Search Space Odyssey (coupled gates). Krueger et al. (2017), Zoneout.

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
        zoneout: float = 0.0,
        cell: str = "lstm",
        backend: str = "auto",
        generator: torch.Generator | None = None,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if proj_size != 0:
            raise ValueError(
                f"proj_size must be 0, since no backend projects the states; got {proj_size!r}. "
                "Put a torch.nn.Linear after the layer, or use torch.nn.LSTM."
            )
        check_cell(cell)
        check_backend(backend)
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            _check_size(name, size)
        _check_size("num_layers", num_layers)
        shares = {"dropout": dropout, "input_dropout": input_dropout, "zoneout": zoneout}
        shares |= {"recurrent_dropout": recurrent_dropout, "weight_dropout": weight_dropout}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {share!r}.")
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
        self.zoneout = zoneout
        self.cell = cell
        self.backend = backend
        self.generator = generator
        place = {"device": device, "dtype": dtype}
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                for name, shape in self._shapes(layer).items():
                    self.register_parameter(
                        name + suffix, nn.Parameter(torch.empty(shape, **place))
                    )
        self.reset_parameters()

    def _shapes(self, layer):
        """Return the shape of each parameter of one direction of a layer."""
        cell, hidden = CELLS[self.cell], self.hidden_size
        rows = len(cell.gates) * hidden
        n_inputs = self.input_size if layer == 0 else hidden * self.num_directions
        shapes = {"weight_ih": (rows, n_inputs), "weight_hh": (rows, hidden)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        return shapes | cell.shapes(hidden)

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from ``generator``; none on the meta device, which has no memory."""
        if self.weight_hh_l0.is_meta:
            return
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                for name in self._shapes(layer):
                    self._reset_parameter(name, getattr(self, name + suffix))

    def _reset_parameter(self, name, parameter):
        if self.generator is not None and self.generator.device != parameter.device:
            drawn = torch.empty_like(parameter, device=self.generator.device)
            self._reset_parameter(name, drawn)
            parameter.copy_(drawn)
            return
        cell = CELLS[self.cell]
        if name == "weight_ih":
            nn.init.xavier_uniform_(parameter, generator=self.generator)
        elif name == "weight_hh":
            # All gates in one matrix, as Keras does it. A matrix for each gate would have twice the
            # norm, with which networks learn more slowly.
            nn.init.orthogonal_(parameter, generator=self.generator)
        elif name in cell.parameters:
            first = parameter.new_tensor(cell.parameters[name].first)
            parameter.copy_(first.view(-1, *[1] * (parameter.ndim - 1)))
        else:
            parameter.zero_()
            if name == "bias_ih":
                for gate, first in cell.first_bias.items():
                    parameter.chunk(len(cell.gates))[cell.gates.index(gate)].fill_(first)

    def flatten_parameters(self) -> None:
        """Do nothing: code that calls `torch.nn.LSTM` calls it to move weights together."""

    @own_defaults()
    def forward(
        self,
        input: Tensor | PackedSequence,  # (T, B, I), (B, T, I) if batch_first, or (T, I)
        hx: tuple[Tensor, Tensor] | None = None,  # h_0, c_0, each (layers * directions, B, H)
        lengths: Tensor | None = None,  # (B,) None: all texts fill the whole of T
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Return the output (T, B, directions * H) and the last states (h_n, c_n).

        The output is 0 from a text's length on. Without the axis of the batch in the input there is
        none in ``hx`` and the results. A packed sequence has its own lengths, and gives a packed
        output. Of a batch without texts the results are empty.

        Raises
        ------
        ValueError
            If shapes, lengths, dtypes or devices do not fit together.
        """
        return _eager(self._forward)(input, hx, lengths)

    def _forward(self, input, hx, lengths):
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, lengths)
        if input.ndim == 2:
            batch = 0 if self.batch_first else 1
            states = None if hx is None else tuple(state.unsqueeze(1) for state in hx)
            output, last = self._forward(input.unsqueeze(batch), states, lengths)
            return output.squeeze(batch), tuple(state.squeeze(1) for state in last)
        x = input.transpose(0, 1) if self.batch_first else input
        lengths = _own_lengths(lengths)
        output, last, _ = self._run(x, hx, lengths, None, need_last=True)
        if lengths is not None:
            step = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
            output = torch.where((step < send(lengths, x.device)).unsqueeze(2), output, 0.0)
        return output.transpose(0, 1) if self.batch_first else output, last

    def _run_packed(self, packed, hx, lengths):
        """Return the packed output, with the rows where they were, and the last states."""
        if lengths is not None:
            raise ValueError("lengths must be None for a PackedSequence, which has its own.")
        x, lengths = pad_packed_sequence(packed, self.batch_first)
        output, last = self._forward(x, hx, lengths)
        output = output.transpose(0, 1) if self.batch_first else output
        if packed.sorted_indices is not None:
            output, lengths = output[:, packed.sorted_indices], lengths[packed.sorted_indices.cpu()]
        rows = pack_padded_sequence(output, lengths).data
        return PackedSequence(rows, *packed[1:]), last

    def _run_nothing(self, x):
        """Return the results for a batch without texts; gradients through them are 0."""
        n_states = self.num_layers * self.num_directions
        nothing = sum(weight.sum() for weight in self.parameters()) * 0.0
        output = x.new_zeros(*x.shape[:2], self.num_directions * self.hidden_size) + nothing
        last = x.new_zeros(n_states, 0, self.hidden_size) + nothing
        return output, tuple(last for _ in CELLS[self.cell].states)

    @own_defaults()
    def states(
        self,
        x: Tensor,  # (T, B, I), or (U, I) with an index
        lengths: Tensor | None = None,  # (B,)
        index: Tensor | None = None,  # (T, B) the row of x that is read at a step of a text
        tables: list[Tensor | None] | None = None,  # of ``tabulate``, of this x
    ) -> Tensor:
        """Return only the output (T, B, directions * H), which more backends can compute.

        From a text's length on it has no meaning, and the caller must mask it. With an index, equal
        inputs are given once, and their product with the weights is computed once.
        """
        lengths = _own_lengths(lengths)
        return _eager(self._run)(x, None, lengths, index, tables, need_last=False)[0]

    @own_defaults()
    def states_or_pools(
        self,
        x: Tensor,  # (T, B, I), or (U, I) with an index
        lengths: Tensor | None = None,  # (B,)
        index: Tensor | None = None,  # (T, B)
        tables: list[Tensor | None] | None = None,  # of ``tabulate``, of this x
        *,
        pools: frozenset[str],  # of 'last', 'max', 'mean': all that the caller makes of the output
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the output as ``states`` does and no pool, or no output and its pools by name.

        A pool is (B, directions * H). Pools are taken where the backend can do so while it computes
        the states, which then need no memory.
        """
        run, lengths = _eager(self._run), _own_lengths(lengths)
        states, _, taken = run(x, None, lengths, index, tables, need_last=False, pools=pools)
        return states, taken

    @own_defaults()
    @torch.no_grad()
    def tabulate(
        self,
        x: Tensor,  # (U, I)
    ) -> list[Tensor | None]:
        """Return the products of inputs with the weights of the first layer, for ``states``.

        For predictions that read the same inputs in many calls. The weights must not change
        meanwhile.
        """
        index = torch.zeros(1, 1, dtype=torch.int64, device=x.device)
        directions = [
            self._inputs(x, None, None, index, 0, direction)
            for direction in range(self.num_directions)
        ]
        return tabulate(directions, backend=self.backend)

    def _run(self, x, hx, lengths, index, tables=None, *, need_last, pools=frozenset()):
        """Return the output, the last states if needed, and the pools taken in place of both."""
        x, index = self._different_inputs(x, index)
        if index is None:
            self._check_input(x, hx)
            if x.shape[1] == 0:
                return *self._run_nothing(x), {}
        last = {state: [] for state in CELLS[self.cell].states}
        for layer in range(self.num_layers):
            directions = [
                self._inputs(x, hx, lengths, index, layer, direction)
                for direction in range(self.num_directions)
            ]
            if layer == 0:
                directions = _with_tables(directions, tables)
            is_last = layer + 1 == self.num_layers
            wanted = {"need_last": need_last, "pools": pools if is_last else frozenset()}
            results = lstm_layer(directions, backend=self.backend, **wanted)
            if results[0].pools is not None:
                taken = {name: [result.pools[name] for result in results] for name in pools}
                return None, None, {name: torch.cat(own, dim=1) for name, own in taken.items()}
            outputs = [result.h for result in results]
            for state, of_state in last.items():
                of_state += [getattr(result, f"{state}_last") for result in results]
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            index = None
            if not is_last:
                x = self._drop(x, x.shape, self.dropout)
        return x, _stack(last) if need_last else None, {}

    def _different_inputs(self, x, index):
        """Return the inputs without an index where dropout makes equal ones different."""
        if index is not None and self.training and self.input_dropout > 0:
            return nn.functional.embedding(index, x), None
        return x, index

    def _inputs(self, x, hx, lengths, index, layer, direction):
        """Return the inputs of the kernels for one direction of a layer."""
        suffix = self._suffixes(layer)[direction]
        own = {name: getattr(self, name + suffix) for name in self._shapes(layer)}
        n_steps, n_texts = (x if index is None else index).shape[:2]
        states = self._first_states(x, n_texts, hx, self.num_directions * layer + direction)
        h0 = states["h0"]
        zones = self._zones(h0, (n_steps, *h0.shape))
        weight_hh = own.pop("weight_hh")
        bias = own.pop("bias_ih") + own.pop("bias_hh") if self.bias else None
        return Inputs(
            x=self._drop(x, (1, *x.shape[1:]), self.input_dropout),
            index=index,
            weight_hh=self._drop(weight_hh, weight_hh.shape, self.weight_dropout),
            bias=weight_hh.new_zeros(weight_hh.shape[0]) if bias is None else bias,
            cell=self.cell,
            reverse=direction == 1,
            lengths=lengths,
            mask_h=self._mask(h0, h0.shape, self.recurrent_dropout),
            **states,
            **zones,
            **own,
        )

    def _zones(self, like, shape):
        """Return for each state the share to keep at a step: drawn in training, else the mean."""
        names = [f"zone_{state}" for state in CELLS[self.cell].states]
        if self.zoneout == 0:
            return {}
        if not self.training:
            return dict.fromkeys(names, like.new_full((), self.zoneout).expand(shape))
        return {name: _draw(like, shape, self.zoneout, self.generator) for name in names}

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

    def _first_states(self, like, n_texts, hx, number):
        """Return h0 and the other first states of one direction of a layer, 0 without hx."""
        names = [f"{state}0" for state in CELLS[self.cell].states]
        if hx is None:
            return dict.fromkeys(names, like.new_zeros(n_texts, self.hidden_size))
        return {name: states[number] for name, states in zip(names, hx, strict=True)}

    def _check_input(self, x, hx):
        if x.ndim != 3 or x.shape[2] != self.input_size or x.shape[0] == 0:
            order = "(B, T, I)" if self.batch_first else "(T, B, I)"
            shape = (x.shape[1], x.shape[0], *x.shape[2:]) if self.batch_first else x.shape
            raise ValueError(
                f"input must have shape {order} with I=input_size={self.input_size} and T >= 1;"
                f" got {tuple(shape)}."
            )
        if hx is not None:
            expected = (self.num_layers * self.num_directions, x.shape[1], self.hidden_size)
            for name, state in zip(CELLS[self.cell].states, hx, strict=True):
                if state.shape != expected:
                    raise ValueError(
                        f"{name}_0 must have shape (layers * directions, B, H) = {expected}; "
                        f"got {tuple(state.shape)}."
                    )

    def gains_from_bfloat16(self, device: torch.device) -> bool:
        """Whether training on a device is faster in bfloat16 than in float32."""
        return gains_from_bfloat16(
            self.backend,
            device,
            cell=self.cell,
            hidden=self.hidden_size,
            masked=self.recurrent_dropout > 0,
            zoned=self.zoneout > 0,
        )

    def extra_repr(self) -> str:
        """Return the settings, for ``print``."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, cell={self.cell!r}, backend={self.backend!r}"
        )


def _eager(function):
    """Return a function that torch.compile calls as it is, and does not look into.

    Torch's own layers are called so too. (Decorating it would import torch's compiler, which takes
    seconds.)
    """
    return torch.compiler.disable(function) if torch.compiler.is_dynamo_compiling() else function


def _with_tables(directions, tables):
    if tables is None:
        return directions
    return [own._replace(table=table) for own, table in zip(directions, tables, strict=True)]


def _stack(last):
    """Return the last states of all layers and directions, by kind of state."""
    return tuple(torch.stack(of_state) for of_state in last.values())


def _own_lengths(lengths):
    """Return a copy on the CPU: the backward reads it again, and the caller may change theirs."""
    if torch.compiler.is_exporting() and lengths is not None:
        raise ValueError(
            "lengths must be None where the layer is exported, since an exported program does not "
            "depend on values; got lengths. Export the layer for texts of one length."
        )
    return None if lengths is None else torch.as_tensor(lengths).cpu().clone()


def _check_size(name, size):
    if not isinstance(size, numbers.Integral) or size < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more; got {size!r}.")


def dropout_mask(
    like: Tensor, shape: tuple[int, ...], *, p: float, generator: torch.Generator | None
) -> Tensor:
    """Return a mask of 0 (with probability p) and 1 / (1 - p), of the dtype and device of like.

    On a CUDA card it is drawn by the card, with a seed from the generator: one seed gives the same
    masks each time, but others than on a CPU.
    """
    return _draw(like, shape, 1.0 - p, generator).div_(1.0 - p)


def _draw(like, shape, share, generator):
    """Return a tensor of 1 (with probability ``share``) and 0."""
    generator = generator_on(like.device, generator)
    source = like.device if generator is None else generator.device
    ones = torch.empty(shape, dtype=like.dtype, device=source)
    return ones.bernoulli_(share, generator=generator).to(like.device)
