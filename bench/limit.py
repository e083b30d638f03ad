"""How fast the machine could do the same work at best: the larger of moving the arrays once and one exponential per element.

Measured beside the libraries, in the same place of memory hierarchy: by the streaming and exponential loops of bench_kernels
where that has been built, else by NumPy's.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import crossent
import numpy as np

EXP_COUNT = 4096  # numbers that stay in the first-level cache


class KernelLimit:
    """Runs the loops of bench_kernels in a process of its own, on the same processors."""

    def __init__(self, binary: Path, clock: str) -> None:
        self.binary = binary
        self.time = {"wall": "real_time", "cpu": "cpu_time"}[clock]
        self.description = "streaming and exp loops of bench_kernels"

    def seconds(self, x: np.ndarray, writes: bool) -> float:
        target, wide = crossent.simd_target(), x.dtype.itemsize == 8
        moved = x.nbytes * (1 + writes)
        loops = "copy|copy_nontemporal" if writes else "read"
        command = [
            str(self.binary),
            f"--benchmark_filter=^(({loops})/{target}/|exp/{target}/{'f64' if wide else 'f32'}$)",
            f"--working_sets={moved}",
            "--benchmark_min_time=0.03",
            "--benchmark_repetitions=5",
            "--benchmark_format=json",
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        moving, exponential = float("inf"), float("inf")
        for row in json.loads(run.stdout)["benchmarks"]:
            if row["run_type"] != "iteration":
                continue
            seconds = row[self.time] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[row["time_unit"]]
            # The rates are those of the CPU's time; what was done in an iteration follows from them.
            cpu_seconds = row["cpu_time"] / row[self.time] * seconds
            if row["name"].startswith("exp/"):
                exponential = min(exponential, seconds / (row["items_per_second"] * cpu_seconds))
            else:
                moving = min(moving, seconds / (row["bytes_per_second"] * cpu_seconds))
        return max(moving * moved, exponential * x.size)


class NumPyLimit:
    """The same by NumPy: maximum, copy, and exp of an array in the cache."""

    description = "NumPy's max, copyto and exp (a build of bench_kernels measures a better one)"

    def __init__(self, clock: str) -> None:
        self.clock = {"wall": time.perf_counter, "cpu": time.process_time}[clock]

    def best(self, call: Callable[[], object], samples: int) -> float:
        call()
        times = []
        for _ in range(samples):
            start = self.clock()
            call()
            times.append(self.clock() - start)
        return min(times)

    def seconds(self, x: np.ndarray, writes: bool) -> float:
        flat = x.reshape(-1, order="A").view(f"u{x.dtype.itemsize}")
        out = np.empty_like(flat)
        moving = self.best((lambda: np.copyto(out, flat)) if writes else (lambda: flat.max()), 5)
        few = np.zeros(EXP_COUNT, np.float64 if x.dtype.itemsize == 8 else np.float32)
        results = np.empty_like(few)
        exponential = self.best(lambda: np.exp(few, out=results), 50) / EXP_COUNT
        return max(moving, exponential * x.size)


def find_limit(clock: str, binary: Path | None) -> KernelLimit | NumPyLimit:
    """The binary that is named, or one where the commands in bench/README.md put it, or NumPy."""
    root = Path(__file__).resolve().parent.parent
    candidates = [binary] if binary else [root / "build" / "bench" / "bench_kernels"]
    for candidate in candidates:
        if candidate.is_file():
            return KernelLimit(candidate, clock)
    if binary:
        raise SystemExit(f"{binary}: no such file")
    return NumPyLimit(clock)
