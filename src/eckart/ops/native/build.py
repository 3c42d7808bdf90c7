"""Compiles the products: C for every level of a processor, by the compiler that the package `ziglang` carries.

Needs nothing but the standard library and that package, and runs by itself:

    python src/eckart/ops/native/build.py
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = "ziglang>=0.14"
LEVELS = {
    "x86_64": {"baseline": "x86_64", "avx2": "x86_64_v3", "avx512": "x86_64_v4+avx512vnni"},
    "aarch64": {"baseline": "generic"},
}
"""For each architecture its levels and, for each of them, the processors that the compiler may count on."""
FLAGS = (
    "-std=c11",
    "-O3",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-mprefer-vector-width=512",
    "-Wall",
    "-Wextra",
)
"""Products and sums are rounded as they are written, so that all levels compute the same."""
QUIET = ("-Wno-psabi", "-Wno-unknown-pragmas")
"""Vectors that are split into registers are no news."""
UNCHECKED = ("-fno-sanitize=all",)
"""Zig checks for undefined behaviour unless told otherwise; told so, it checks for none that is named elsewhere."""


def target() -> tuple[str, str, str] | None:
    """This machine: its architecture, what the compiler calls it, the tag of its wheels; None where it is not known."""
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if architecture not in LEVELS:
        return None
    system = platform.system()
    if system == "Linux":
        if platform.libc_ver()[0] != "glibc":
            return architecture, f"{architecture}-linux-musl", f"musllinux_1_2_{architecture}"
        return architecture, f"{architecture}-linux-gnu.2.28", f"manylinux_2_28_{architecture}"
    if system == "Darwin":
        return architecture, f"{architecture}-macos.11.0", f"macosx_11_0_{platform.machine().lower()}"
    return None


def library(folder: Path = HERE) -> Path:
    """Where the compiled library is."""
    return folder / ("libeckart.dylib" if platform.system() == "Darwin" else "libeckart.so")


def sources() -> list[Path]:
    """What the library is made from."""
    return sorted(HERE.glob("*.[ch]"))


def digest() -> str:
    """16 hexadecimal digits of the sources, which the library remembers: one of other sources is not to be called."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources())).hexdigest()[:16]


def fresh() -> bool:
    """Whether the library is there and newer than all it is made from."""
    made = library()
    return made.exists() and made.stat().st_mtime > max(file.stat().st_mtime for file in [*sources(), Path(__file__)])


def compile_products(made: Path, flags: tuple[str, ...] = UNCHECKED, linked: tuple[str, ...] = ("-s",)) -> None:
    """Compiles all sources at all levels into one library, which appears whole or not at all.

    Args:
        made: the library.
        flags: more of them for the compiler; in place of `UNCHECKED`.
        linked: and for the linker.

    Raises:
        RuntimeError: a machine that is not known, or what the compiler said.
    """
    where = target()
    if where is None:
        raise RuntimeError(f"no compiled products for {platform.machine()} on {platform.system()}")
    architecture, triple, _ = where
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", triple]
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".build-") as folder:

        def run(arguments: list[str]) -> None:
            done = subprocess.run([*compiler, *arguments], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr)

        objects: list[str] = []
        commands: list[list[str]] = []
        levelled = sorted(set(HERE.glob("*.c")) - {HERE / "dispatch.c"})
        for level, processor in LEVELS[architecture].items():
            for source in levelled:
                objects.append(str(Path(folder, f"{source.stem}-{level}.o")))
                options = [f"-mcpu={processor}", f"-DLEVEL={level}", *FLAGS, *QUIET, *flags]
                commands.append([*options, "-c", str(source), "-o", objects[-1]])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, commands))
        whole = Path(folder, made.name)
        doors = [f'-DSOURCES="{digest()}"', str(HERE / "dispatch.c")]
        run([*FLAGS, *QUIET, *flags, "-shared", *linked, *doors, *objects, "-o", str(whole)])
        os.replace(whole, made)


if __name__ == "__main__":
    compile_products(library())
    print(library())
