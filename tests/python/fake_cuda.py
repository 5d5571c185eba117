"""The stand-in for NVIDIA's driver, tests/device/fake_cuda.cc, for tests in interpreters of their own.

Whoever has loaded it by its path has it found as libcuda.so.1: for good, so not in the tests' own process.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "device" / "fake_cuda.cc"


def has_driver() -> bool:
    """Whether there is a real one."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def build(folder: Path) -> str | None:
    """Returns the library's path; None where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    out = folder / "libfake_cuda.so"
    command = [compiler, "-std=c++20", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(SOURCE)]
    subprocess.run([*command, "-o", str(out)], check=True, timeout=100)
    return str(out)


class FakeCuda:
    """The driver that is found from here on."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.fake_cuda_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        self._library.fake_cuda_get.restype = ctypes.c_int64
        self._library.fake_cuda_is_locked.argtypes = [ctypes.c_void_p]

    def set(self, name: str, value: int) -> None:
        """Makes it behave otherwise; see the source."""
        self._library.fake_cuda_set(name.encode(), value)

    def get(self, name: str) -> int:
        """What has been asked of it; see the source."""
        return int(self._library.fake_cuda_get(name.encode()))

    def is_locked(self, address: int) -> bool:
        """Whether the page at `address` is locked."""
        return bool(self._library.fake_cuda_is_locked(address))

    def assert_all_is_given_back(self) -> None:
        """Everything that was locked is unlocked, once and while it was mapped; no context is kept."""
        assert self.get("wrong") == 0
        assert self.get("unlocks") == self.get("locks")
        assert self.get("locked_now") == self.get("retained") == 0
