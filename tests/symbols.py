"""What compiled files may hold, by nm and objdump. test_codebase.py reads the installed libraries with it; as a program it
audits the objects that it is given, and lists what is wrong: ctest runs it on every object of a build of the library
(tests/cpp/CMakeLists.txt), for whatever compiler and processor that build is.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

# Functions of libm whose last bits differ between platforms, in every type, as vectors and under glibc's other names.
INEXACT = (
    "exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|powi|sin|cos|sincos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|asinh|acosh"
    "|atanh|erf|erfc|tgamma|lgamma|gamma|cbrt|hypot"
)
INEXACT_SYMBOL = re.compile(rf"(_ZGV\w+_|_*)({INEXACT})(f|l|f16|f32|f64|f128|df2|sf2)?(_r)?(_finite)?")
# Exact, but a call for every lane where an instruction set has no such instruction.
SLOW_SYMBOL = re.compile(r"_*(fma|rint|nearbyint|round|floor|ceil|trunc)(f|l)?")


def output_of(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def symbols_of(file, *options, nm="nm"):
    """[(name, type)], the name without a platform's underscore before it or version behind it."""
    prefix = "_" if sys.platform == "darwin" else ""
    rows = [line.split() for line in output_of(nm, "-P", *options, file).splitlines() if line]
    return [(row[0].removeprefix(prefix).split("@")[0], row[1]) for row in rows]


def inexact_calls(symbols):
    return [name for name, kind in symbols if kind == "U" and INEXACT_SYMBOL.fullmatch(name)]


def uses_mmx(file, objdump="objdump"):
    """MMX registers are the x87 registers: after them, long double arithmetic in the host process gives NaN."""
    return bool(re.search(r"%mm[0-7]", output_of(objdump, "-d", file)))


def wrong_in_kernels(target, symbols, sections):
    """What must not be in the object of an instruction set.

    The linker may take any copy of a weak symbol for everybody, and code that runs before the processor is known must not
    be that of an instruction set.
    """
    table = f"_ZN8crossent{len(target)}{target}5tableE"
    exported = [name for name, kind in symbols if kind.isupper() and kind not in "UWV"]
    if exported != [table]:
        yield f"exports {exported}, not {table} alone"
    if weak := [name for name, kind in symbols if kind in "WVwvu"]:
        yield f"has weak symbols: {weak}"
    if any(name.startswith("_GLOBAL__sub_I") for name, _ in symbols) or re.search(r"\.init_array|\.ctors", sections):
        yield "runs code when it is loaded"
    if slow := [name for name, kind in symbols if kind == "U" and SLOW_SYMBOL.fullmatch(name)]:
        yield f"calls {slow} for each lane"


def wrong_in(file, nm, objdump):
    symbols = symbols_of(file, nm=nm)
    if kernels := re.match(r"kernels_([a-z0-9]+)\.", file.name):
        yield from wrong_in_kernels(kernels[1], symbols, output_of(objdump, "-h", file))
    if inexact := inexact_calls(symbols):
        yield f"calls {inexact}, whose results differ between platforms"
    if uses_mmx(file, objdump):
        yield "uses MMX registers"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="+", type=Path, help="kernels_TARGET.* are those of instruction sets")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--objdump", default="objdump")
    arguments = parser.parse_args()
    wrong = [
        f"{file.name} {text}" for file in arguments.objects for text in wrong_in(file, arguments.nm, arguments.objdump)
    ]
    print(f"{len(arguments.objects)} objects")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
