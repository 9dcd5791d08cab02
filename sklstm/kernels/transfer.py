"""From the processor to a card, without a wait of one for the other."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; a copy to a card is made while the processor continues.

    For that the source must be in pinned memory: from other memory, the processor waits until the
    card has done all that it was asked before.

    Raises
    ------
    RuntimeError
        In a process that was forked after its parent had used CUDA.
    """
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # Weights are on the card before anything is sent to it, so CUDA runs, but not after a fork.
    if not torch.cuda.is_initialized():
        raise RuntimeError(
            "A process that was forked after CUDA was used cannot use CUDA. Start workers by "
            "multiprocessing's 'spawn' or 'forkserver', or save the estimator and load it in each "
            "worker by sklstm.load, which puts it on the CPU."
        )
    return tensor.pin_memory().to(device, non_blocking=True)


def generator_on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator that draws on a device: the one given, or one that it seeds.

    Random numbers for a card are drawn there. The state of all randomness is still that of the
    generator given, so that it is enough to keep this one.
    """
    if device.type != "cuda" or generator is None or generator.device.type == "cuda":
        return generator
    seed = torch.randint(2**63 - 1, (), generator=generator).item()
    return torch.Generator(device).manual_seed(seed)
