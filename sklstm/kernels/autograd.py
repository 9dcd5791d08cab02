"""A backend's forward and backward, joined for torch's autograd; several directions at once."""

from contextlib import contextmanager
from types import ModuleType

import torch

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs, Outputs
from sklstm.kernels.lanes import on_streams, side_by_side
from sklstm.kernels.surroundings import own_defaults
from sklstm.kernels.workload import n_shards, needs_backward


def run(
    backend: ModuleType, directions: list[Inputs], pools: frozenset[str] = frozenset()
) -> list[Outputs]:
    """Run a backend; keep memory for a backward only if one can follow.

    Only the pools are returned if the backend takes them all; see ``lstm_layer``.
    """
    pools = pools if pools <= backend.POOLS else frozenset()
    if needs_backward(directions):
        tensors = [tensor for inputs in directions for tensor in _tensors(inputs)]
        bare = tuple(inputs._replace(**dict.fromkeys(DIFFERENTIABLE)) for inputs in directions)
        flat, names = LSTMLayer.apply(backend, bare, pools, *tensors), _names(pools)
        each = [flat[k : k + len(names)] for k in range(0, len(flat), len(names))]
        if pools:
            return [Outputs(None, None, pools=dict(zip(names, own, strict=True))) for own in each]
        return [Outputs(*own) for own in each]
    results, groups = _forward(backend, directions, _shares_of(backend, directions), False, pools)
    return [_joined(results[group]) for group in groups]


def _names(pools):
    """Return the names of a direction's outputs, in the order in which autograd has them."""
    return sorted(pools) if pools else ("h", "h_last", "c_last")


def _forward(backend, directions, shares, for_backward, pools):
    """Return the outputs of all shards of all directions, and the slice of each direction."""
    if backend.RUNS_TOGETHER:
        with _plainly(directions[0].x):
            results = backend.forward_all(directions, for_backward, *([pools] if pools else []))
        return results, [slice(k, k + 1) for k in range(len(directions))]
    shards, groups = _shards(directions, shares)
    return _run_all(backend, [(backend.forward, shard, for_backward) for shard in shards]), groups


class LSTMLayer(torch.autograd.Function):
    """The directions of a layer through the hand-written backward of a backend.

    They are one node of autograd's graph, since autograd would run two nodes one after the other.
    """

    @staticmethod
    def forward(ctx, backend, bare, pools, *tensors):
        """Run the backend and keep what its backward needs."""
        directions = _dressed(bare, tensors)
        ctx.backend, ctx.bare, ctx.names = backend, bare, _names(pools)
        # Kept, since torch's number of threads may change before the backward.
        ctx.shares = _shares_of(backend, directions)
        ctx.set_materialize_grads(not backend.RUNS_TOGETHER)
        results, groups = _forward(backend, directions, ctx.shares, True, pools)
        joined = [_joined(results[group]) for group in groups]
        ctx.n_saved = [len(result.saved) for result in results]
        ctx.graphs = [result.graph for result in results]
        saved = [tensor for result in results for tensor in result.saved]
        ctx.save_for_backward(*tensors, *saved)
        if pools:
            return tuple(outputs.pools[name] for outputs in joined for name in ctx.names)
        return tuple(tensor for outputs in joined for tensor in outputs[:3])

    @staticmethod
    def backward(ctx, *grads):
        """Run the backend's backward; what is not in DIFFERENTIABLE has no gradient."""
        backend, n = ctx.backend, len(DIFFERENTIABLE)
        all_saved = ctx.saved_tensors  # looked up once: each time autograd checks them all
        tensors, rest = all_saved[: n * len(ctx.bare)], all_saved[n * len(ctx.bare) :]
        directions = _dressed(ctx.bare, tensors)
        need_grad_x = [ctx.needs_input_grad[3 + n * number] for number in range(len(directions))]
        by_direction = [
            dict(zip(ctx.names, grads[k : k + len(ctx.names)], strict=True))
            for k in range(0, len(grads), len(ctx.names))
        ]
        if backend.RUNS_TOGETHER:
            with _plainly(directions[0].x):
                found = backend.backward_all(directions, rest, by_direction, need_grad_x)
        else:
            found = _backward_of_shards(ctx, directions, rest, by_direction, need_grad_x)
        flat = [grad for of_direction in found for grad in of_direction]
        if torch.is_grad_enabled():  # create_graph=True: a second derivative raises an error
            flat = [
                grad if grad is None else OnceOnly.apply(grad, *tensors, *grads) for grad in flat
            ]
        return None, None, None, *flat


def _backward_of_shards(ctx, directions, rest, grads, need_grad_x):
    """Return the gradients of each direction; ``rest`` is what its shards saved, in their order."""
    shards, groups = _shards(directions, ctx.shares)
    calls = []
    for group, of_direction, need in zip(groups, grads, need_grad_x, strict=True):
        for shard, own_rows in zip(shards[group], _rows(ctx.shares), strict=True):
            of_shard = [_take(grad, own_rows) for grad in of_direction.values()]
            saved, rest = rest[: ctx.n_saved[len(calls)]], rest[ctx.n_saved[len(calls)] :]
            saved = saved if (graph := ctx.graphs[len(calls)]) is None else graph
            calls.append((ctx.backend.backward, shard, saved, *of_shard, need))
    results = _run_all(ctx.backend, calls)
    return [_summed(results[group]) for group in groups]


class OnceOnly(torch.autograd.Function):
    """A gradient that depends on its sources but cannot be differentiated with respect to them."""

    @staticmethod
    def forward(ctx, grad, *sources):
        """Return the gradient."""
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, *grads):
        """Refuse."""
        raise RuntimeError(
            "The LSTM of sklstm has no second derivative. Use torch.nn.LSTM for double backward."
        )


def _run_all(backend, calls):
    """Run calls, each a function with its arguments; in parallel if the backend allows it."""
    x = calls[0][1].x
    waiting = [lambda call=call: call[0](*call[1:]) for call in calls]
    with _plainly(x):
        if _is_shared(backend, x):
            return side_by_side(waiting)
        if x.device.type == "cuda":
            return on_streams(waiting, x.device)
        return [call() for call in waiting]


@contextmanager
def _plainly(x):
    """Record no gradients, and cast nothing: the dispatcher has cast the inputs.

    A backward runs in other surroundings than its forward did.
    """
    with own_defaults(), torch.autocast(x.device.type, enabled=False), torch.no_grad():
        yield


def _tensors(inputs):
    return tuple(getattr(inputs, name) for name in DIFFERENTIABLE)


def _dressed(bare, tensors):
    """Return the inputs with their differentiable tensors put back."""
    n = len(DIFFERENTIABLE)
    return [
        inputs._replace(**dict(zip(DIFFERENTIABLE, tensors[k * n : (k + 1) * n], strict=True)))
        for k, inputs in enumerate(bare)
    ]


def _shards(directions, shares):
    """Return all shards of all directions, and the slice of the shards of each direction."""
    shards = [_shard(inputs, rows) for inputs in directions for rows in _rows(shares)]
    return shards, [slice(k, k + shares) for k in range(0, len(shards), shares)]


def _shares_of(backend, directions):
    return n_shards(directions) if _is_shared(backend, directions[0].x) else 1


def _is_shared(backend, x):
    return x.dtype in backend.SHARES_THREADS and x.device.type == "cpu"


def _rows(shares):
    """Return the texts of each shard: neighbours go to different shards, so lengths are similar."""
    return [slice(share, None, shares) for share in range(shares)]


def _shard(inputs, rows):
    if rows == slice(0, None, 1):
        return inputs
    by_text = {name: _take(getattr(inputs, name), rows) for name in ("x", "zone_h", "zone_c")}
    by_text |= {name: _take(getattr(inputs, name), rows) for name in ("h0", "c0", "mask_h")}
    lengths = None if inputs.lengths is None else inputs.lengths[rows]
    return inputs._replace(**by_text, lengths=lengths, lengths_there=lengths)


def _take(tensor, rows):
    """Return the texts ``rows`` of (B, H) or (T, B, F)."""
    if tensor is None or rows == slice(0, None, 1):
        return tensor
    return tensor[rows] if tensor.ndim == 2 else tensor[:, rows]


def _joined(results):
    """Return one direction's outputs from those of its shards."""
    if len(results) == 1:
        return results[0]
    return Outputs(*(_interleaved([result[k] for result in results]) for k in range(3)))


def _summed(results):
    """Return one direction's gradients from those of its shards: weights are summed."""
    if len(results) == 1:
        return results[0]
    total = []
    for name, grads in zip(DIFFERENTIABLE, zip(*results, strict=True), strict=True):
        join = _interleaved if name in ("x", "h0", "c0") else _sum
        total.append(None if grads[0] is None else join(grads))
    return total


def _sum(tensors):
    return torch.stack(tensors).sum(0)


def _interleaved(parts):
    """Undo ``_take``: put the texts of the shards back in their order."""
    if parts[0] is None:
        return None
    axis = parts[0].ndim - 2
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    whole = parts[0].new_empty(shape)
    for share, part in enumerate(parts):
        _take(whole, slice(share, None, len(parts))).copy_(part)
    return whole
