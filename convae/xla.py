"""Keeps what XLA compiled in the user's cache folder, for the processes to come.

TensorFlow has such a cache, but writes a file in place, runs one that is torn, and fails over one
that does not fit. So it gets a folder of this process alone, filled with the whole programs of
earlier ones; what is new there goes back under a digest. It finds a program by its functions'
names, which count what the process has made: trace in one thread, in a fixed order, to be found.
"""

import hashlib
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from convae.data import cache_folder, write_whole
from convae.hardware import cpu_features
from convae.processes import process_exists, process_folder

# The environment variable that switches it on by "1": no GPU has tried it yet.
SWITCH = "CONVAE_XLA_CACHE"
# A study leaves about sixteen files, of 0.1 to 3 MB on a CPU.
N_KEPT = 128
# What a compiled program may depend on, besides what it computes, the device and XLA's flags.
PACKAGES = ("tensorflow", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cuda-nvcc-cu12")
_N_DIGEST = hashlib.sha256().digest_size
_logger = logging.getLogger(__name__)


@dataclass
class _Cache:
    """Of a process."""

    folder: Path  # TensorFlow's; empty unless something compiles
    device: str | None = None  # that programs are compiled for; None until it is open


_cache: _Cache | None = None


@contextmanager
def offered_cache(*, gpu_only: bool) -> Iterator[None]:
    """Has TensorFlow use the cache, if its first look for devices is in this block.

    Args:
        gpu_only: whether for a GPU's programs, and not for a CPU's if that is what is found.
    """
    global _cache
    given = os.environ.get("TF_XLA_FLAGS", "")
    if _cache or os.environ.get(SWITCH) != "1" or "persistent_cache" in given or _has_failed():
        yield
        return
    folder = process_folder("convae-xla-")
    flags = f"{given} --tf_xla_persistent_cache_directory={folder}"
    if gpu_only:
        flags += " --tf_xla_persistent_cache_device_types=XLA_GPU_JIT"
    os.environ["TF_XLA_FLAGS"] = flags
    try:
        yield
    finally:  # a process that this one starts gets another folder
        os.environ["TF_XLA_FLAGS"] = given
    _cache = _Cache(folder)


def fit_cache(device: str) -> None:
    """Tells the cache what the programs of this process are compiled for."""
    if _cache is not None:
        _cache.device = device


@contextmanager
def cached_programs() -> Iterator[None]:
    """While the block compiles, finds programs of earlier processes; then keeps the new ones.

    Nothing else may compile meanwhile.
    """
    if _cache is None or _cache.device is None:
        yield
        return
    store = _store(_cache.device)
    mark = _root() / f"{os.getpid()}.compiling"
    try:
        store.mkdir(parents=True, exist_ok=True)
        mark.touch()
        _fill(_cache.folder, store)
    except OSError as error:
        _logger.warning("XLA's programs cannot be kept in %s (%s)", store, error)
        yield
        return
    yield
    with suppress(OSError):
        mark.unlink()
        _keep(_cache.folder, store)
        for path in _cache.folder.iterdir():  # a process that is killed later leaves no files
            path.unlink()


def _root() -> Path:
    return cache_folder() / "xla"


def _store(device: str) -> Path:
    facts = [device, cpu_features(), os.environ.get("XLA_FLAGS", "")]
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            facts.append(f"{package} {importlib.metadata.version(package)}")
    return _root() / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _has_failed() -> bool:
    """Whether a process died while it compiled; then forgets all programs.

    One of them may have been the cause, or the cache itself: this process goes without.
    """
    failed = False
    with suppress(OSError):
        for mark in _root().glob("*.compiling"):
            if not process_exists(int(mark.stem)):
                failed = True
                mark.unlink(missing_ok=True)
    if failed:
        shutil.rmtree(_root(), ignore_errors=True)
    return failed


def _fill(folder: Path, store: Path) -> None:
    for path in store.glob("*.pb"):
        content = path.read_bytes()
        digest, program = content[:_N_DIGEST], content[_N_DIGEST:]
        if hashlib.sha256(program).digest() == digest:
            (folder / path.name).write_bytes(program)
        else:
            path.unlink(missing_ok=True)


def _keep(folder: Path, store: Path) -> None:
    for path in folder.glob("*.pb"):
        if not (store / path.name).exists():
            program = path.read_bytes()
            with write_whole(store / path.name) as file:
                file.write(hashlib.sha256(program).digest() + program)
    kept = sorted(_root().glob("*/*"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-N_KEPT]:
        path.unlink(missing_ok=True)
