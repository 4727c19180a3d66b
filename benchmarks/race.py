"""What the benchmarks share: peers that take turns, each in a process of its own, and tables.

Threads and the memory of a GPU are settings of a process, so that peers in one would disturb each
other. Only one peer works at a time; a noisy machine disturbs all alike.
"""

import argparse
import json
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from convae.config import TrialConfig
from convae.hardware import describe_machine, versions
from convae.stderr_filter import filtered_stderr

# The report's two models at its setting.
CONFIGS = {"conv": TrialConfig(model="conv"), "dense-512": TrialConfig(model="dense")}
# BENCHMARK_RESULTS names another folder; then short forms are written too.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
Epoch = Callable[[], object]
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

    def compared(self, to: str) -> tuple[dict[str, Any], list[list[str]]]:
        """Its numbers for a file, and a line a peer for a table under `headings(to)`."""
        ratios, cpu_ratios = (
            {name: statistics.median(each[name]) / statistics.median(each[to]) for name in each}
            for each in (self.seconds, self.cpu_seconds)
        )
        del ratios[to], cpu_ratios[to]
        lines = []
        for name, note in self.notes.items():
            line = [name, note, "", "", ""]
            if name in self.seconds:
                each = [f"{r[name]:.2f}" if name in r else "" for r in (ratios, cpu_ratios)]
                line[1:] = cell(self.seconds[name]), each[0], cell(self.cpu_seconds[name]), each[1]
            lines.append(line)
        facts = {"ratios_of_medians": ratios, "cpu_ratios_of_medians": cpu_ratios}
        return asdict(self) | facts, lines


def headings(to: str) -> list[str]:
    """Of the lines of `Race.compared`."""
    return ["by", "seconds", f"÷ {to}", "processor seconds", f"÷ {to}"]


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


class Process(NamedTuple):
    """What Linux tells of a process."""

    title: str
    parent: int
    processor_seconds: float
    peak_gib: float  # of resident memory


def descendants(pid: int) -> dict[int, Process]:
    """A process and all below it, by number; empty where there is no /proc."""
    found: dict[int, Process] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_text(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            peak = re.search(r"VmHWM:\s+(\d+)", (folder / "status").read_text())
        except OSError:
            continue  # it has ended
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        gib = int(peak[1]) / 2**20 if peak else 0.0
        found[int(folder.name)] = Process(title, int(fields[1]), seconds, gib)

    def is_below(ancestor: int) -> bool:
        while ancestor in found and ancestor != pid:
            ancestor = found[ancestor].parent
        return ancestor == pid

    return {each: process for each, process in found.items() if is_below(each)}


def cell(seconds: list[float]) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"


def print_table(title: str, headings: Iterable[str], rows: Iterable[list[str]]) -> None:
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


def build_parser(
    module: str, doc: str | None, short: str, *, repeats: int | None = None
) -> argparse.ArgumentParser:
    """The options that all benchmarks have, and those of repeated searches if they are given."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help=f"{short}, nothing written")
    parser.add_argument("--data", help="mnist.npz or a folder of IDX files")
    if repeats:
        told = f"of each search (default {repeats})"
        parser.add_argument("--repeats", type=int, default=repeats, help=told)
        parser.add_argument("--processes", type=int, default=1, help="at once (default 1)")
    return parser
