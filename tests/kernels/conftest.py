"""Memory that is read before it is written shows: it is NaN."""

import pytest
import torch


@pytest.fixture(autouse=True)
def nan_filled_memory(monkeypatch):
    """Fill what ``torch.empty`` and its kin hand out with NaN."""

    def filled(create):
        def create_filled(*args, **kwargs):
            tensor = create(*args, **kwargs)
            with torch.no_grad():  # torch's checkpoint asks for a leaf that requires a gradient
                return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return create_filled

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, filled(getattr(torch, name)))
    for name in ("new_empty",):
        monkeypatch.setattr(torch.Tensor, name, filled(getattr(torch.Tensor, name)))
