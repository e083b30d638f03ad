"""Fixtures: the instruction set that a test runs on (and the proof that it did), and the dtypes.

A test takes part by asking for `simd`, or by `pytestmark = pytest.mark.usefixtures("simd")` in its module. Tests that
rightly call no kernel, such as those of error messages, carry the marker `no_kernel`.
"""

import crossent
import pytest
from crossent import _core
from helpers import DTYPES, NARROW_DTYPES, WIDER_DTYPES


def pytest_configure(config):
    config.addinivalue_line("markers", "no_kernel: may pass without running a kernel")


def kernel_runs():
    """How often kernels have run so far, by instruction set."""
    return {name: _core.kernel_runs(name) for name in crossent.simd_targets()}


@pytest.fixture(params=crossent.simd_targets())
def simd(request):
    """Select an instruction set; afterwards prove that its kernels ran, and no other's."""
    previous = crossent.simd_target()
    _core.select_simd(request.param)
    assert crossent.simd_target() == request.param
    before = kernel_runs()
    yield request.param
    after = kernel_runs()
    _core.select_simd(previous)
    ran = {name for name in after if after[name] > before[name]}
    allowed_to_rest = request.node.get_closest_marker("no_kernel") is not None
    assert ran == {request.param} or (allowed_to_rest and not ran), f"kernels ran on {sorted(ran)}"


@pytest.fixture(params=DTYPES)
def dtype(request):
    """Each dtype that computes natively."""
    return request.param


@pytest.fixture(params=WIDER_DTYPES)
def wider_dtype(request):
    """float32 and float64."""
    return request.param


@pytest.fixture(params=NARROW_DTYPES)
def narrow_dtype(request):
    """float16 and bfloat16."""
    return request.param
