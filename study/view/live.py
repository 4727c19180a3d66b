"""What a person watching sees: a study's state as one line, or as a view that fills a terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table

from study.folder import schema
from study.plan.trials import PlannedTrial
from study.view.pace import Remaining

# Of which trials the best are shown, and by which metric.
BEST = ((schema.SEARCH, schema.VAL_MSE), (schema.REFERENCE, schema.TEST_MSE))
SCROLL_LINES = 8  # of the terminal's, left to the finished trials above the view
BAR_WIDTH = 20
GAP = 2  # between columns
LABEL_WIDTH = 6


@dataclass
class RunningTrial:
    """A trial that runs, after its latest epoch."""

    planned: PlannedTrial
    epoch: int = 0
    mse: str = "starting"  # as text that names the metric
    n_measured: int = 0  # epochs; fewer than `epoch` if it goes on where it stopped earlier
    seconds: float = 0.0  # that these took

    def remaining(self) -> Remaining:
        """What is left of it."""
        config = self.planned.config
        epoch_seconds = self.seconds / self.n_measured if self.n_measured else None
        return Remaining(config.model, config.epochs - self.epoch, epoch_seconds)


@dataclass(frozen=True)
class Status:
    """A study at a moment."""

    states: Mapping[str, int]  # how many trials are in each state, or still to come
    spent: str  # epochs and device seconds, without attempts that failed
    left: str  # the time left
    # The lowest MSE of completed trials and whose it is, by model and group; None for none.
    best: Mapping[str, Mapping[str, tuple[float, str] | None]]
    running: Sequence[RunningTrial]  # in the order in which they started
    notes: Sequence[str] = ()  # why a place is free, which trials are silent

    def line(self) -> str:
        """In one line, without what is zero."""
        states = ", ".join(f"{n} {state}" for state, n in self.states.items() if n)
        return "; ".join(filter(None, (states, self.spent, self.left, *self.notes)))


class LiveView:
    """Draws the status anew whenever the terminal asks, from any thread."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The head, and as many of the running trials as there is room for."""
        status = self._status()
        n_lines = 0
        for part in _head(status):
            lines = console.render_lines(part, options, pad=False)
            n_lines += len(lines)
            yield part
        room = max(2, options.size.height - SCROLL_LINES - n_lines)
        shown = status.running
        if len(shown) > room:
            shown = shown[: room - 1]
        if shown:
            yield _running(shown, options.max_width)
        if len(shown) < len(status.running):
            yield f"and {len(status.running) - len(shown)} more"


def _head(status: Status) -> Iterator[Rule | Table]:
    yield Rule(style="dim")
    head = Table.grid(padding=(0, GAP))
    head.add_column(min_width=LABEL_WIDTH)
    head.add_row("trials", ", ".join(f"{n} {state}" for state, n in status.states.items()))
    head.add_row("spent", f"{status.spent}; {status.left}")
    for note in status.notes:
        head.add_row("note", note)
    yield head
    groups = [
        (group, metric)
        for group, metric in BEST
        if any(group in bests for bests in status.best.values())
    ]
    best = Table.grid(padding=(0, GAP))
    best.add_column(min_width=LABEL_WIDTH)
    best.add_row("best", *(f"{metric}, {group}" for group, metric in groups))
    for model, bests in status.best.items():
        cells = (bests.get(group) for group, _ in groups)
        best.add_row(model, *(f"{cell[0]:.5f} {cell[1]}" if cell else "–" for cell in cells))
    yield best


def _running(trials: Sequence[RunningTrial], width: int) -> Table:
    totals = [trial.planned.config.epochs for trial in trials]
    epochs = [f"{trial.epoch}/{total}" for trial, total in zip(trials, totals, strict=True)]
    bar_width = min(BAR_WIDTH, width // 4)
    # A long name gives way to the numbers.
    numbers_width = max(map(len, epochs)) + max(len(trial.mse) for trial in trials)
    name_width = width - bar_width - numbers_width - 3 * GAP
    table = Table.grid(padding=(0, GAP))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(1, name_width))
    table.add_column(width=bar_width)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    for trial, total, epoch in zip(trials, totals, epochs, strict=True):
        bar = ProgressBar(total=total, completed=trial.epoch, width=bar_width)
        table.add_row(trial.planned.trial_id, bar, epoch, trial.mse)
    return table
