"""Projects that use the C++ library, each way: from the installed Python package, moved elsewhere, by pkg-config, by
`cmake --install`, and as a subdirectory. The consumer is tests/cpp/consumer.
"""

import re
import shutil
import subprocess
from pathlib import Path

import crossent
import pytest

ROOT = Path(__file__).parent.parent
CONSUMER = Path(__file__).parent / "cpp" / "consumer"
INSTALLED = Path(crossent.get_include()).parent
COMPILERS = [name for name in ("g++", "clang++", *(f"clang++-{n}" for n in range(16, 30))) if shutil.which(name)]

pytestmark = pytest.mark.skipif(not COMPILERS, reason="needs g++ or clang++")
needs_cmake = pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("ninja")), reason="needs cmake and ninja")
needs_pkg_config = pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def assert_works(program, **options):
    assert f"crossent {crossent.__version__}" in run(program, crossent.__version__, **options)


def build_with_cmake(build, *definitions):
    """Build the consumer; returns what kind of library CMake found."""
    output = run("cmake", "-G", "Ninja", "-S", CONSUMER, "-B", build, *definitions)
    run("cmake", "--build", build)
    return re.search(r"crossent::crossent is a (\w+)", output)[1]


def build_with_pkg_config(folder, package_path, compiler=COMPILERS[0] if COMPILERS else ""):
    """Compile and link with nothing but what pkg-config says."""
    environment = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(package_path)}
    assert run("pkg-config", "--modversion", "crossent", env=environment).strip() == crossent.__version__
    flags = run("pkg-config", "--cflags", "--libs", "crossent", env=environment).split()
    folder.mkdir(exist_ok=True)
    run(compiler, "-std=c++17", CONSUMER / "main.cpp", *flags, "-o", folder / "consumer")


@needs_cmake
@pytest.mark.parametrize("compiler", COMPILERS)
def test_find_package_in_the_installed_python_package(compiler, tmp_path):
    """What the shared library needs is its own affair: neither OpenMP nor threads are looked for."""
    without = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("OpenMP", "Threads")]
    found = f"-Dcrossent_DIR={crossent.get_cmake_dir()}"
    assert build_with_cmake(tmp_path, found, f"-DCMAKE_CXX_COMPILER={compiler}", *without) == "SHARED_LIBRARY"
    assert_works(tmp_path / "consumer")


@needs_pkg_config
@pytest.mark.parametrize("compiler", COMPILERS)
def test_pkg_config_in_the_installed_python_package(compiler, tmp_path):
    build_with_pkg_config(tmp_path, INSTALLED / "lib" / "pkgconfig", compiler)
    assert_works(tmp_path / "consumer")


@needs_cmake
def test_the_installed_files_work_in_another_folder(tmp_path):
    moved = tmp_path / "somewhere else" / "crossent"
    for folder in ("include", "lib"):
        shutil.copytree(INSTALLED / folder, moved / folder)
    vendored = INSTALLED.with_name("crossent.libs")  # where a repaired wheel has the OpenMP runtime
    if vendored.exists():
        shutil.copytree(vendored, moved.with_name(vendored.name))
    build_with_cmake(tmp_path / "build", f"-Dcrossent_DIR={moved / 'lib' / 'cmake' / 'crossent'}")
    cache = (tmp_path / "build" / "build.ninja").read_text()
    assert str(INSTALLED) not in cache
    assert_works(tmp_path / "build" / "consumer")


def test_no_installed_file_names_the_folder_it_was_built_in():
    for file in [*INSTALLED.rglob("*.cmake"), *INSTALLED.rglob("*.pc"), *INSTALLED.rglob("*.hpp")]:
        assert str(ROOT) not in file.read_text(), file


@needs_cmake
def test_msvc_is_refused_in_one_sentence(tmp_path):
    done = subprocess.run(
        ["cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, "-DMSVC=ON"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert " ".join(done.stderr.split()).count("build it with clang-cl") == 1


def copy_of_the_sources(folder):
    """Where a compiler cache that knows paths from the build's folder on (.ci/run) has seen the sources: two levels up."""
    for name in ("CMakeLists.txt", "pyproject.toml"):
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder)
    for name in ("cmake", "cpp", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@needs_cmake
@pytest.mark.slow
def test_add_subdirectory_ctest_and_a_moved_installation(tmp_path):
    """One build from the sources proves all three, for the static library and the shared one, of the same kernels."""
    sources = copy_of_the_sources(tmp_path / "crossent")
    build = sources / "build" / "consumer"
    for shared, kind in (("OFF", "STATIC_LIBRARY"), ("ON", "SHARED_LIBRARY")):
        prefix, moved, user = (tmp_path / name for name in (f"prefix {kind}", f"moved_{kind}", f"user {kind}"))
        options = ("-DCROSSENT_TESTS=ON", "-DCROSSENT_WARNINGS_AS_ERRORS=ON", f"-DBUILD_SHARED_LIBS={shared}")
        assert build_with_cmake(build, f"-DCROSSENT_SOURCE={sources}", *options) == kind
        assert_works(build / "consumer")
        # The shared library has the same kernels, and test_cpp.py tests them in the installed one.
        some = ("--exclude-regex", "kernels_test") if kind == "SHARED_LIBRARY" else ()
        tests = run("ctest", "--test-dir", build, "--output-on-failure", *some)
        assert "100% tests passed" in tests
        run("cmake", "--install", build, "--prefix", prefix)
        prefix.rename(moved)
        hidden = build.rename(tmp_path / "elsewhere")
        assert build_with_cmake(user, f"-DCMAKE_PREFIX_PATH={moved}") == kind
        assert_works(user / "consumer")
        if shutil.which("pkg-config"):
            (description,) = moved.rglob("crossent.pc")
            build_with_pkg_config(user / "by pkg-config", description.parent)
            assert_works(user / "by pkg-config" / "consumer", env={"LD_LIBRARY_PATH": str(description.parent.parent)})
        hidden.rename(build)
