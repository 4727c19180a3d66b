"""What the benchmarks share: peers that take turns, each in a process of its own, and their table.

Threads and the memory of a GPU are settings of a process, so that peers in one would disturb each
other. Only one peer works at a time; a noisy machine disturbs all alike.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from convae.config import TrialConfig
from convae.hardware import describe_machine, versions
from convae.stderr_filter import filtered_stderr

# The report's two models at its setting.
CONFIGS = {"conv": TrialConfig(model="conv"), "dense-512": TrialConfig(model="dense")}
# BENCHMARK_RESULTS names another folder; then short forms are written too.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
Epoch = Callable[[], None]
# (configuration, data or None) -> an epoch of it, and the device's description
Peer = Callable[[Any, str | None], tuple[Epoch, str]]


class PeerError(RuntimeError):
    """A peer could not run; the message is its own."""


class _Process:
    """A peer at work on one configuration, compiled and warmed up by an epoch that is not timed."""

    def __init__(self, peer: Peer, config: Any, data: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, peer, config, data))
        self._process.start()
        theirs.close()
        self.device = self._receive()

    def turn(self) -> tuple[float, float]:
        """Wall and processor seconds of one more epoch."""
        self._connection.send(True)
        wall, processor = self._receive()
        return wall, processor

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except EOFError:
            raise PeerError("its process ended") from None
        if kind == "error":
            raise PeerError(value)
        return value

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Any, peer: Peer, config: Any, data: str | None) -> None:
    try:
        with filtered_stderr():
            epoch, device = peer(config, data)
            epoch()
        connection.send(("ready", device))
        while connection.recv():
            start, processor_start = time.perf_counter(), time.process_time()
            epoch()
            wall = time.perf_counter() - start
            connection.send(("seconds", (wall, time.process_time() - processor_start)))
    except EOFError:
        pass  # no more turns
    except Exception as error:  # told by the parent
        connection.send(("error", f"{type(error).__name__}: {str(error).splitlines()[0]}"))


@dataclass(frozen=True)
class Race:
    """How a race went, by peer.

    Attributes:
        seconds: of each epoch.
        cpu_seconds: of the processor, all threads together: what other work beside it changes less.
        notes: the device, or why the peer could not run.
    """

    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, list[float]]
    notes: dict[str, str]

    def ratios(self, to: str) -> dict[str, float]:
        """Medians of seconds over that of the peer `to`."""
        return _ratios(self.seconds, to)

    def cpu_ratios(self, to: str) -> dict[str, float]:
        """The same of processor seconds."""
        return _ratios(self.cpu_seconds, to)


def _ratios(values: dict[str, list[float]], to: str) -> dict[str, float]:
    medians = {name: statistics.median(each) for name, each in values.items()}
    return {name: medians[name] / medians[to] for name in medians if name != to}


def race(peers: Mapping[str, Peer], config: Any, data: str | None, n: int) -> Race:
    """Times n epochs of each peer, one after the other in turn.

    Args:
        peers: by name.
        config: given to each.
        data: likewise; where MNIST is, or None.
        n: turns.
    """
    with ExitStack() as stack:
        processes: dict[str, _Process] = {}
        notes: dict[str, str] = {}
        for name, peer in peers.items():
            try:
                processes[name] = stack.enter_context(_Process(peer, config, data))
                notes[name] = processes[name].device
            except PeerError as error:
                notes[name] = f"could not run: {error}"
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in processes}
        for _ in range(n):
            for name, process in processes.items():
                turns[name].append(process.turn())
    return Race(
        {name: [wall for wall, _ in each] for name, each in turns.items()},
        {name: [processor for _, processor in each] for name, each in turns.items()},
        notes,
    )


def cell(seconds: list[float]) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"


def print_table(title: str, headings: list[str], rows: list[list[str]]) -> None:
    """Prints it as wide as it is."""
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def write_result(name: str, result: dict[str, Any], *, short: bool = False) -> None:
    """Writes `results/NAME.json`, with hardware, load and versions; of a short form nothing."""
    if short and "BENCHMARK_RESULTS" not in os.environ:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = {
        "machine": describe_machine(),
        "versions": versions(),
        "load_average_at_the_end": list(os.getloadavg()),
    }
    path.write_text(json.dumps({**result, **facts}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


def build_parser(module: str, doc: str | None, short: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help=f"{short}, nothing written")
    parser.add_argument("--data", help="mnist.npz or a folder of IDX files")
    return parser
