"""Measures exp and log1p of the kernels over all floats of their range: builds bench/exhaustive.cpp and runs it.

Run: python bench/exhaustive.py [--simd avx2] [--every 1000]. On each instruction set that this machine can run, exp is
checked at every float32 from its smallest argument to 40 (2.2e9 of them), float64 functions at 3e7 random points each; that
takes some minutes a set. Prints a Markdown table of the largest errors, in ULP, and the arguments where they were found.
Needs CMake, a C++ compiler, and a long double wider than double. The comments in cpp/src/kernels/ quote these figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import crossent

ROOT = Path(__file__).resolve().parent.parent


def build(simd: str, directory: Path) -> Path:
    """The program of one instruction set, compiled with the flags of its kernels."""
    configure = ["cmake", "-S", ROOT, "-B", directory, "-DCROSSENT_EXHAUSTIVE=ON", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (configure, ["cmake", "--build", directory, "--target", f"exhaustive_{simd}"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory / f"exhaustive_{simd}"


def measure(program: Path, every: int, points: int) -> list[str]:
    """The rows of the table: function, range, points, largest error, where."""
    environment = {**os.environ, "LC_ALL": "C"}
    command = [str(program), str(every), str(points)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        rows = []
        for line in process.stdout:
            print(line, end="", flush=True)
            rows.append(line.strip())
    if process.returncode != 0:
        raise SystemExit(f"{program} ended with status {process.returncode}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simd", action="append", choices=crossent.simd_targets(), help="default: all of this machine")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="check every N-th float32 only")
    parser.add_argument("--points", type=int, default=30_000_000, help="random points for each of the others")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "exhaustive", help="where to build")
    options = parser.parse_args()
    for simd in options.simd or crossent.simd_targets():
        program = build(simd, options.build)
        print(f"\n{simd}:\n\n| function | range | points | ULP | at |\n| --- | --- | --- | --- | --- |", flush=True)
        measure(program, options.every, options.points)


if __name__ == "__main__":
    main()
