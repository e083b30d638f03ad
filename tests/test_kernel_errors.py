"""The errors of exp and log1p that the comments in cpp/src/kernels/ state, on a part of what bench/exhaustive.py measures."""

import shutil
import sys
from pathlib import Path

import crossent
import pytest
from helpers import WIDE_IS_WIDER

ROOT = Path(__file__).parent.parent

# Largest errors in ULP, with FMA and without.
EXP, EXP_OF_PAIR, LOG1P = (0.9, 1.2), (0.9, 1.2), (0.85, 0.95)
LOG1P_FOR_FLOAT = (2**10.9, 2**10.9)  # in ULP of float64: 2**-42.1 of the result
EXP_RELATIVE = (1.04, 1.31)  # exp(x - origin): what is left of x is rounded once more


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake and a compiler")
@pytest.mark.skipif(not WIDE_IS_WIDER, reason="needs a long double wider than double")
@pytest.mark.parametrize("name", crossent.simd_targets())
def test_exp_and_log1p_keep_their_limits(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    exhaustive = pytest.importorskip("exhaustive")
    rows = exhaustive.measure(exhaustive.build(name, tmp_path), every=101, points=1_000_000)
    monkeypatch.delitem(sys.modules, "exhaustive")
    measured = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {row[0] for row in measured} >= {
        "exp, float32",
        "exp(x - origin), float32",
        "exp, float64",
        "log1p, float64",
        "log1p for float32, float64",
    }
    for function, where, points, ulps, argument in measured:
        limits = LOG1P if "log1p" in function else EXP_OF_PAIR if "pair" in function else EXP
        limits = EXP_RELATIVE if "origin" in function else LOG1P_FOR_FLOAT if "for float32" in function else limits
        assert int(points) >= 1_000_000
        assert 0.5 <= float(ulps) <= limits[name == "baseline"], (function, where, argument)
