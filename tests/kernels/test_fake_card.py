"""Whole fits on a card that is not there (``fake_card.py``): nothing mixes, and little waits."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.kernels import fake_card

#: What a training step may wait for: its loss, which is printed, and a few things of which the
#: processor must know the number.
LOSS = {"_local_scalar_dense, training/loop.py"}
MORE = {
    "by sentence": {"to the processor, network/text_network.py"},  # where the sentences end
    "language model": {"nonzero, network/encoder.py"},  # the number of different tokens
    "language model, loop": {"nonzero, network/encoder.py"},
}
#: What a prediction waits for: its result.
RESULT = {"to the processor, model/prediction.py"}
#: What torch asks about cards, once, when it is imported, and autograd at each step. Only C++ can
#: answer: torch's own guard of devices for tests, which does nothing, and a card always there.
GUARD = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/FakeGuardImpl.h>

static c10::impl::FakeGuardImpl<c10::DeviceType::CUDA> guard;
static c10::impl::DeviceGuardImplRegistrar registrar(c10::DeviceType::CUDA, &guard);

namespace at {
struct CUDAHooks : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}
"""


def compile_guard(path):
    """Compile it into a library; one who loads that before torch has a card."""
    torch_folder = Path(torch.__file__).parent
    libraries = torch_folder / "lib"
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{torch_folder / 'include'}"]
    command += ["-xc++", "-", "-o", path, f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    subprocess.run([*command, "-lc10", "-ltorch_cpu"], input=GUARD, text=True, check=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return by the name of a fit what it found."""
    compile_guard(guard := tmp_path_factory.mktemp("guard") / "guard.so")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kernels.fake_card"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"LD_PRELOAD": str(guard), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


pytestmark = [
    pytest.mark.slow,  # half a minute for all
    pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which is not installed"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile a device guard"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="needs torch without CUDA"),
]


@pytest.mark.parametrize("name", fake_card.FITS)
def test_a_batch_waits_for_the_card_once_or_twice(name, found):
    assert "error" not in found[name], found[name]["error"]
    times = found[name]["a batch"]
    assert set(map(without_line, times)) == LOSS | MORE.get(name, set())
    assert set(times.values()) == {1.0}, times


@pytest.mark.parametrize("name", fake_card.FITS)
def test_a_prediction_waits_for_the_card_once(name, found):
    assert "error" not in found[name], found[name]["error"]
    times = found[name]["prediction"]
    assert set(map(without_line, times)) - MORE.get(name, set()) == RESULT
    if name != "by sentence":  # which waits for each batch
        assert list(times.values()) == [1.0], times


@pytest.mark.parametrize("name", [n for n in fake_card.FITS if fake_card.is_computed(n)])
def test_a_fit_on_a_card_is_that_on_the_processor(name, found):
    assert "error" not in found[name], found[name]["error"]
    assert found[name]["distance"] < 1e-5


def test_partial_fit_on_a_card_and_a_file_from_there(found):
    assert found["saved"] < 1e-5


def without_line(place):
    return place.rpartition(":")[0]


# What the fake card is worth


@pytest.mark.parametrize("name", fake_card.FAULTS)
def test_the_fake_card_finds_faults(name, found):
    wanted = fake_card.FAULTS[name][1]
    assert wanted in found["faults"][name], found["faults"][name]
