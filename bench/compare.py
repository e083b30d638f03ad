"""Times crossent beside the libraries that are installed, on the same arrays, in turns, in one process on pinned processors.

Run: python bench/compare.py, or with --quick; README.md beside this file tells what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [
    *("1x2", "8x10", "65536x10", "8192x100", "4096x1000", "1024x50257", "64x262144"),
    *("4x21x256x256@1", "4096x1000F"),  # the class axis is not the last in memory
]
QUICK_SHAPES = ["8x10", "65536x10", "4096x1000", "128x50257", "4096x1000F"]
QUICK_PEERS = ["crossent", "PyTorch", "JAX", "ONNX Runtime", "SciPy", "NumPy"]
SMALL = 4096  # elements; below, the time of a call is told, not of an element, and no limit
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FIELDS = [
    *("function", "shape", "axis", "dtype", "threads", "library", "version", "output"),
    *("seconds", "ns_per_element", "ratio_to_crossent", "limit_seconds", "share_of_limit"),
]


@dataclass(frozen=True)
class Shape:
    """ "4096x1000": the last axis has the classes; "@1": the axis of that number; "F": memory in Fortran order."""

    text: str
    dims: tuple[int, ...]
    axis: int
    order: str

    @classmethod
    def parse(cls, text: str) -> Shape:
        match = re.fullmatch(r"(\d+(?:x\d+)+)(F?)(?:@(\d+))?", text)
        if not match:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected something like 4096x1000, 4096x1000F or 4x21x256x256@1"
            )
        dims = tuple(int(n) for n in match[1].split("x"))
        axis = int(match[3]) if match[3] else len(dims) - 1
        if axis >= len(dims) or 0 in dims:
            raise argparse.ArgumentTypeError(f"{text!r}: no such axis, or no elements")
        return cls(text, dims, axis, match[2] or "C")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, peers and rounds: a minute or so")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "float16", "bfloat16"])
    parser.add_argument("--shapes", nargs="+", type=Shape.parse, metavar="SHAPE", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--functions", nargs="+", metavar="NAME", help="default: all but scores and steps")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all that are installed")
    parser.add_argument(
        "--threads", type=int, default=1, help="of every library; the process is pinned to as many CPUs"
    )
    parser.add_argument(
        "--cpus", nargs="+", type=int, help="the CPUs to be pinned to, instead of the first allowed ones"
    )
    parser.add_argument("--rounds", type=int, help="the median of so many is reported; default 9, or 3 if quick")
    parser.add_argument("--seconds", type=float, default=0.03, help="at least, of each call in each round")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: the process's time, for a busy machine")
    parser.add_argument("--bench-kernels", type=Path, help="the binary that measures the limit")
    parser.add_argument(
        "--out", type=Path, help="directory for CSV and plots; default bench/results, or build/bench if quick"
    )
    options = parser.parse_args(arguments)
    options.shapes = options.shapes or [Shape.parse(text) for text in (QUICK_SHAPES if options.quick else SHAPES)]
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.peers = options.peers or (QUICK_PEERS if options.quick else None)
    options.out = options.out or ROOT / ("build/bench" if options.quick else "bench/results")
    return options


def pin(threads: int, cpus: list[int] | None) -> list[int]:
    """One CPU a thread, and the thread counts of all libraries; to be called before they are imported."""
    for name in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ["NPROC"] = str(threads)  # the size of XLA's thread pool
    if not hasattr(os, "sched_setaffinity"):
        print("note: this system cannot pin a process to CPUs", file=sys.stderr)
        return []
    cpus = cpus or sorted(os.sched_getaffinity(0))[:threads]
    if len(cpus) != threads:
        raise SystemExit(f"{threads} threads, but CPUs {cpus}")
    os.sched_setaffinity(0, cpus)
    return cpus


def machine() -> str:
    """The processor's name; hypervisors hide it at times, then family and model."""
    try:
        lines = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
        name = lines.get("model name", platform.processor())
        name = name.replace("(R)", "").replace("(TM)", "")
        return f"{name} (family {lines.get('cpu family')}, model {lines.get('model')})"
    except OSError:
        return platform.processor() or platform.machine()


def interleaved_medians(
    calls: list[Callable[[], object]], rounds: int, seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Seconds per call of each, measured in turns so that a noisy moment hits all of them."""
    repeats = []
    for call in calls:
        call()  # compiles, and touches all memory
        start = time.perf_counter()
        call()
        repeats.append(max(1, round(seconds / max(time.perf_counter() - start, 1e-7))))
    samples: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for i in range(len(calls)):
            k = (i + turn) % len(calls)  # nobody always follows the same one
            call, repeat = calls[k], range(repeats[k])
            if len(repeat) > 1:
                call()  # its data into the caches
            start = clock()
            for _ in repeat:
                call()
            samples[k].append((clock() - start) / len(repeat))
    return [statistics.median(times) for times in samples]


def make_problem(shape: Shape, dtype: str, threads: int) -> Any:
    import numpy as np
    from peers import Problem

    rng = np.random.default_rng(0)
    if dtype == "bfloat16":
        from ml_dtypes import bfloat16

        element = np.dtype(bfloat16)
    else:
        element = np.dtype(dtype)
    x = np.asarray(rng.standard_normal(shape.dims, np.float32) * np.float32(3), element, order=shape.order)
    batch = shape.dims[: shape.axis] + shape.dims[shape.axis + 1 :]
    return Problem(x, rng.integers(0, shape.dims[shape.axis], batch), shape.axis, threads)


def find_peers(names: list[str] | None, threads: int) -> list[Any]:
    """Those asked for, crossent first; those that cannot be had are named and left out."""
    from peers import PEERS

    unknown = set(names or []) - set(PEERS)
    if unknown:
        raise SystemExit(f"unknown peers {sorted(unknown)}; there are: {', '.join(PEERS)}")
    found = []
    for name, peer in PEERS.items():
        if names is None or name in names or name == "crossent":
            try:
                found.append(peer(threads))
            except ImportError as error:
                print(f"note: without {name}: {error}", file=sys.stderr)
    return found


def sample(result: Any) -> Any:
    """Some hundred thousand elements of a result, as float64: enough to tell a wrong one, and quick."""
    import numpy as np

    flat = result.reshape(-1)
    return flat[:: flat.size // 200_000 + 1].astype(np.float64)


def agrees(result: Any, reference: Any, dtype: str) -> bool:
    import numpy as np

    tolerance = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}[dtype]
    return bool(np.allclose(result, reference, rtol=tolerance, atol=tolerance * np.abs(reference).max()))


class Comparison:
    """Measures one function on one array after the other, and keeps the rows of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        from limit import find_limit

        self.options = options
        self.peers = find_peers(options.peers, options.threads)
        self.limit = find_limit(options.clock, options.bench_kernels) if options.threads == 1 else None
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, list[str]] = {}  # what was left out, and of which cases

    def note(self, peer: Any, reason: str, case: str) -> None:
        self.notes.setdefault(f"{peer.name}: {reason}", []).append(case)

    def prepared(self, function: str, problem: Any, case: str) -> list[tuple[Any, str, Callable[[], object]]]:
        """(peer, what becomes of its output, its call) of all that can do it and agree with the first, crossent."""
        from peers import SCORES, Unsupported

        outputs = ["reused", "fresh"]
        if function in ("cross_entropy", "nll_loss"):
            outputs = ["loss only"]
        elif function in SCORES:
            outputs = ["scores"]
        ready: list[tuple[Any, str, Callable[[], object]]] = []
        reference = None
        for peer in self.peers:
            for output in outputs:
                try:
                    call = peer.prepare(function, problem, output == "reused")
                    result = sample(peer.array(call()))
                except Unsupported as reason:
                    if output != "reused":
                        self.note(peer, str(reason), case)
                    continue
                except Exception as error:
                    if peer.name == "crossent":
                        raise
                    self.note(peer, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}", case)
                    continue
                if reference is None:
                    reference = result
                if not agrees(result, reference, self.options.dtype):
                    self.note(peer, "another result than crossent's; left out", case)
                    continue
                ready.append((peer, output, call))
        return ready

    def measure(self, function: str, shape: Shape, problem: Any) -> list[dict[str, Any]]:
        from peers import FUNCTIONS

        options = self.options
        ready = self.prepared(function, problem, f"{function} {shape.text}")
        calls = [call for _, _, call in ready]
        times = interleaved_medians(calls, options.rounds, options.seconds, CLOCKS[options.clock])
        size = problem.x.size
        has_limit = self.limit and size > SMALL and function in FUNCTIONS
        limit = self.limit.seconds(problem.x, function != "cross_entropy") if has_limit else None
        ours = {
            output: seconds for (peer, output, _), seconds in zip(ready, times, strict=True) if peer.name == "crossent"
        }
        rows = []
        for (peer, output, _), seconds in zip(ready, times, strict=True):
            values = (function, shape.text, shape.axis, options.dtype, options.threads, peer.name, peer.version, output)
            numbers = (seconds, seconds / size * 1e9, seconds / ours[output], limit, limit and limit / seconds)
            texts = ["" if n is None else f"{n:.6g}" for n in numbers]
            rows.append(dict(zip(FIELDS, [*map(str, values), *texts], strict=True)))
        self.rows += rows
        return rows

    def context(self, cpus: list[int]) -> dict[str, str]:
        import crossent

        return {
            "machine": machine(),
            "simd": crossent.simd_target(),
            "dtype": self.options.dtype,
            "threads": str(self.options.threads),
            "cpus": ",".join(map(str, cpus)) or "any",
            "python": platform.python_version(),
            "clock": self.options.clock,
            "rounds": str(self.options.rounds),
            "limit": self.limit.description if self.limit else "not measured for several threads",
        }


def table_lines(rows: list[dict[str, Any]], names: list[str]) -> list[str]:
    """The table of one function and shape: a line for reused and one for fresh outputs."""
    first = rows[0]
    lines = []
    for output in dict.fromkeys(row["output"] for row in rows if row["library"] == "crossent"):
        cells = {row["library"]: (row, "") for row in rows if row["output"] == output}
        for row in rows:  # who cannot reuse an array is compared by what it can do
            cells.setdefault(row["library"], (row, "*"))
        small = float(first["seconds"]) / max(float(first["ns_per_element"]), 1e-12) * 1e9 <= SMALL
        line = f"{first['function'][-28:]:28} {first['shape']:>15} {output:>9}"
        for name in names:
            if name not in cells:
                line += f" {'-':>16}"
                continue
            row, mark = cells[name]
            ours = float(cells["crossent"][0]["seconds"])
            value = float(row["seconds"]) * 1e6 if small else float(row["ns_per_element"])
            ratio = "" if name == "crossent" else f"{float(row['seconds']) / ours:6.2f}x"
            line += f" {value:8.3f}{mark or ' '}{ratio:>7}"
        share = cells["crossent"][0]["share_of_limit"]
        lines.append(line + (f" {float(share):7.0%}" if share else "       -") + ("  us/call" if small else ""))
    return lines


def write_csv(path: Path, rows: list[dict[str, Any]], context: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {json.dumps(context)}\n")
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    options = parse_options()
    cpus = pin(options.threads, options.cpus)
    import gc

    import tqdm
    from peers import FUNCTIONS, SCORES, STEPS

    functions = options.functions or list(FUNCTIONS)
    if unknown := set(functions) - {*FUNCTIONS, *SCORES, *STEPS}:
        raise SystemExit(f"unknown functions {sorted(unknown)}; there are: {', '.join(FUNCTIONS + SCORES + STEPS)}")
    comparison = Comparison(options)
    names = [peer.name for peer in comparison.peers]
    context = comparison.context(cpus)
    print("; ".join(f"{key} {value}" for key, value in context.items()))
    print("versions: " + ", ".join(f"{peer.name} {peer.version}" for peer in comparison.peers))
    print("ns per element (us per call where it says so); of the others, also how many times crossent's time that is;")
    print(
        "*: into a fresh array, since it writes into no given one; limit: the share of the limit that crossent reaches"
    )
    print(f"{'function':28} {'shape':>15} {'output':>9}" + "".join(f" {name:>16}" for name in names) + "   limit")
    path = options.out / f"{options.dtype}-{options.threads}-thread{'s' if options.threads > 1 else ''}.csv"
    with tqdm.tqdm(total=len(options.shapes) * len(functions), unit="case", file=sys.stderr) as progress:
        for shape in options.shapes:
            problem = make_problem(shape, options.dtype, options.threads)
            for function in functions:
                progress.set_postfix_str(f"{function} {shape.text}")
                gc.collect()
                gc.disable()
                rows = comparison.measure(function, shape, problem)
                gc.enable()
                progress.write("\n".join(table_lines(rows, names)), file=sys.stdout)
                progress.update()
                # After each case, so that an interrupted run leaves something.
                write_csv(path, comparison.rows, context)
    for reason, cases in comparison.notes.items():
        print(f"note: {reason} ({', '.join(cases)})")
    print(f"wrote {path}")
    try:
        import plots
    except ImportError as error:
        print(f"note: no plots: {error}")
        return
    for plot in plots.plot(path):
        print(f"wrote {plot}")


if __name__ == "__main__":
    main()
