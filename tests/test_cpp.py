"""The C++ library as this package installs it: its headers in every compiler there is, and the tests of tests/cpp.

These build against the installed library, so they take seconds; .ci/run builds the library itself, too, and for 64-bit
ARM.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import crossent
import pytest

SOURCE = Path(__file__).parent / "cpp"
HEADERS = sorted(header.name for header in (Path(crossent.get_include()) / "crossent").glob("*.hpp"))
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wpedantic", "-Wshadow", "-Wundef", "-Werror"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs mmap and signals")


def run(*command, expected=0, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == expected, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def compilers():
    """(name, command) of every gcc from 12 on and clang from 16 on that this machine has."""
    found = {}
    for name in ("g++", *(f"g++-{n}" for n in range(12, 20)), "clang++", *(f"clang++-{n}" for n in range(16, 30))):
        path = shutil.which(name)
        if path and Path(path).resolve() not in found and is_new_enough(path):
            found[Path(path).resolve()] = (name, [path])
    if importlib.util.find_spec("ziglang"):
        found["zig"] = ("zig c++", [sys.executable, "-m", "ziglang", "c++"])
    return list(found.values())


def is_new_enough(compiler):
    macros = run(compiler, "-dM", "-E", "-x", "c++", "-", input="")
    version = {name: int(value) for name, value in re.findall(r"#define (__GNUC__|__clang_major__) (\d+)", macros)}
    return version.get("__clang_major__", 16) >= 16 and ("__clang_major__" in version or version["__GNUC__"] >= 12)


COMPILERS = dict(compilers())


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize(
    "compiler", COMPILERS or [pytest.param("", marks=pytest.mark.skip("needs gcc 12 or clang 16"))]
)
def test_each_header_compiles_alone_without_a_warning(compiler, standard, tmp_path):
    for header in HEADERS:
        source = tmp_path / f"{header}.cpp"
        source.write_text(f"#include <crossent/{header}>\n")
        run(*COMPILERS[compiler], f"-std={standard}", *WARNINGS, "-fsyntax-only", f"-I{crossent.get_include()}", source)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_are_plain_cpp(header):
    """No Python, no vector types, and no macros but the question whether there is std::span."""
    text = (Path(crossent.get_include()) / "crossent" / header).read_text()
    for word in ("Python.h", "pybind", "immintrin", "arm_neon", "vector_size", "__m128", "__attribute__"):
        assert word not in text
    directives = [line for line in text.splitlines() if line.startswith("#") and not line.startswith("#include ")]
    allowed = ["#pragma once"] + (["#ifdef __cpp_lib_span", "#endif"] if header == "span.hpp" else [])
    assert directives == allowed


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder of the built test programs."""
    for tool in ("cmake", "ninja", "g++" if shutil.which("g++") else "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    build = tmp_path_factory.mktemp("cpp")
    found = f"-Dcrossent_DIR={crossent.get_cmake_dir()}"
    run("cmake", "-G", "Ninja", "-S", SOURCE, "-B", build, found, "-DCROSSENT_WARNINGS_AS_ERRORS=ON")
    run("cmake", "--build", build)
    return build


def test_the_public_interface(programs):
    for program in ("api_test", "span_test"):
        assert " 0 failed" in run(programs / program)


@posix
@pytest.mark.parametrize("simd", crossent.simd_targets())
def test_every_size_between_guard_pages(programs, simd):
    assert " 0 failed" in run(programs / "kernels_test", "--simd", simd)


def hashes(programs, simd, launcher=(), options=()):
    lines = run(*launcher, programs / "kernels_test", "--hashes", "--simd", simd, *options).splitlines()
    assert len(lines) > 50
    return lines


@posix
def test_sets_with_fma_give_the_same_bits(programs):
    fused = [simd for simd in crossent.simd_targets() if simd != "baseline"]
    if len(fused) < 2:
        pytest.skip(f"this machine runs {', '.join(fused) or 'none'} of the instruction sets with FMA")
    first, *others = (hashes(programs, simd) for simd in fused)
    for other in others:
        assert other == first


@posix
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize(("processor", "simd"), [("Nehalem", "baseline"), ("Haswell", "avx2")])
def test_emulated_processors_give_the_same_bits(programs, processor, simd):
    emulator = ("qemu-x86_64", "-cpu", processor)
    if simd not in crossent.simd_targets():
        pytest.skip(f"this machine does not run {simd}")
    assert hashes(programs, simd, emulator, ["--no-guards"]) == hashes(programs, simd)


@posix
def test_an_access_beyond_an_array_is_reported_with_its_case(tmp_path):
    """The tests above prove nothing unless this one passes."""
    source = tmp_path / "beyond.cpp"
    source.write_text(
        '#include "guarded.hpp"\n'
        "using namespace crossent_test;\n"
        "int main(int argc, char**) {\n"
        "  catch_faults();\n"
        '  begin_case("the case");\n'
        "  Guarded end(10, Place::at_end), start(10, Place::at_start);\n"
        "  volatile unsigned char* p = argc > 1 ? start.data() - 1 : end.data() + 10;\n"
        "  return *p;\n"
        "}\n"
    )
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    run("g++", "-std=c++17", f"-I{SOURCE}", source, "-o", tmp_path / "beyond")
    for arguments in ([], ["start"]):
        done = subprocess.run([tmp_path / "beyond", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "beyond an array: the case" in done.stderr
