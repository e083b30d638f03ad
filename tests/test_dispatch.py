"""Which instruction set runs: CROSSENT_SIMD, its errors, in-process selection, old processors, `python -m crossent`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import crossent
import pytest
from crossent import _core

KNOWN = {"avx512", "avx2", "neon", "baseline"}
REPORT = """
import numpy as np, crossent
from crossent import _core
crossent.softmax(np.zeros((2, 3)))
ran = [name for name in crossent.simd_targets() if _core.kernel_runs(name)]
print(crossent.simd_target(), *ran)
"""


def run(*arguments, launcher=(), **environment):
    """A fresh interpreter; the variables of this one that steer crossent are not inherited."""
    variables = {k: v for k, v in os.environ.items() if k != "CROSSENT_SIMD"} | environment
    return subprocess.run(
        [*launcher, sys.executable, *arguments], env=variables, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs /proc/cpuinfo")
def test_memory_is_fetched_far_ahead_on_amd_alone_and_that_can_be_switched():
    is_amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    before = _core.fetches_far()
    assert before == is_amd
    for far in (not before, before):
        _core.set_fetches_far(far)
        assert _core.fetches_far() == far


def test_targets_are_known_and_the_first_is_the_default():
    targets = list(crossent.simd_targets())
    assert set(targets) <= KNOWN
    assert len(set(targets)) == len(targets)
    assert "baseline" in targets
    assert targets == [name for name in ("avx512", "avx2", "neon", "baseline") if name in targets], "best first"
    assert run("-c", "import crossent; print(crossent.simd_target())").stdout.strip() == targets[0]


@pytest.mark.parametrize("name", crossent.simd_targets())
def test_the_variable_picks_an_instruction_set_and_its_kernels_run(name):
    done = run("-c", REPORT, CROSSENT_SIMD=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name, name]


def unsupported_names():
    return ["nonsense", "AVX2 ", "sse9", *sorted(KNOWN - set(crossent.simd_targets()))]


@pytest.mark.parametrize("name", unsupported_names())
def test_an_unknown_or_unsupported_name_is_an_error_that_lists_the_choices(name):
    done = run("-c", "import crossent", CROSSENT_SIMD=name)
    assert done.returncode == 1, "an exception, not a crash"
    assert "Error" in done.stderr
    assert "CROSSENT_SIMD" in done.stderr
    assert name.strip() in done.stderr
    for choice in crossent.simd_targets():
        assert choice in done.stderr.splitlines()[-1] or choice in done.stderr


def test_an_empty_variable_is_none():
    done = run("-c", "import crossent; print(crossent.simd_target())", CROSSENT_SIMD="")
    assert done.stdout.strip() == crossent.simd_targets()[0], done.stderr


@pytest.mark.usefixtures("simd")
def test_selection_in_process_changes_what_runs():
    """The fixture `simd` asserts the rest."""
    before = _core.kernel_runs(crossent.simd_target())
    crossent.softmax([1.0, 2.0])
    crossent.cross_entropy([1.0, 2.0], 0)
    assert _core.kernel_runs(crossent.simd_target()) >= before + 2


def test_selecting_an_unknown_name_changes_nothing():
    before = crossent.simd_target()
    with pytest.raises((ValueError, RuntimeError), match="baseline"):
        _core.select_simd("nonsense")
    assert crossent.simd_target() == before


def test_the_module_prints_version_targets_and_threads():
    done = run("-m", "crossent")
    assert done.returncode == 0, done.stderr
    for part in (crossent.__version__, *crossent.simd_targets(), str(crossent.get_num_threads()), "thread"):
        assert part in done.stdout


def test_importing_leaves_the_floating_point_state_alone():
    """A library linked with -ffast-math would flush subnormals for the whole process."""
    done = run("-c", "import crossent; crossent.softmax([1.0, -800.0]); print(1e-310 * 0.5 > 0)")
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize(("processor", "expected"), [("Nehalem", "baseline"), ("Haswell", "avx2")])
def test_an_emulated_processor_gets_the_instruction_set_it_has(processor, expected):
    done = run("-c", REPORT, launcher=("qemu-x86_64", "-cpu", processor), OPENBLAS_CORETYPE="Nehalem")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [expected, expected]
