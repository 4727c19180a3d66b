"""A study's tables turned into a training that takes no time and whose truth is known.

    python -m benchmarks.surrogate              (the fit and its leave-one-out errors; seconds)
    python -m benchmarks.surrogate --confirm 4  (trains four more settings of each model; minutes)

From `results/surrogate-cpu/`, a search with random settings, each trained once for 20 epochs, from
`results/surrogate-best-cpu/`, settings that earlier fits took for the best ones, and from what
`results/audit-cpu/` and `results/baseline-cpu/` say of several seeds, for each model:

- the curve of log `val_mse` by epoch: the first principal components of the real curves, each a
  Gaussian process of the setting, among them log(learning rate / (1 − momentum) / batch size), the
  way that a step of SGD goes, times the steps of an epoch;
- the chance of a collapse: a trial that ends worse than an image that is the same for all, because
  its units died, or diverges, by logistic regression on learning rate, momentum and batch size;
  its curve is then a real collapsed one. Likewise the chance to be dead at first only;
- the noise over seeds: curves of real residuals from the mean over seeds, whole, so that epochs
  are as correlated as in reality, of the first epochs of the audit and the baseline (their settings
  vary in batch size and architecture alone, and none collapsed), scaled by the speed as far as
  single curves of faster trials go up and down more. Their means are points of the fit, too.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from optuna.distributions import FloatDistribution
from pyarrow import csv
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from analysis.load import load_run
from benchmarks.race import build_parser, print_table
from convae.config import Choices, Range, TrialConfig
from convae.errors import DivergenceError
from study.folder import schema, tables
from study.folder.storage import RunFolder
from study.plan.ledger import config_of_row
from study.plan.space import Space, built_in
from study.plan.spec import StudySpec
from study.plan.trials import search_config

RESULTS = Path(__file__).parent / "results"
CONFIRMED = RESULTS / "surrogate-best-cpu"
SEARCHED = (RESULTS / "surrogate-cpu", CONFIRMED)
REPEATED = (RESULTS / "audit-cpu", RESULTS / "baseline-cpu")
# What was searched when its trials were measured: the built-in spaces are wider now.
MEASURED = {
    "batch_size": Choices((64, 128, 256, 512, 1000)),
    "learning_rate": Range(0.05, 5.0),
    "one_minus_momentum": Range(0.05, 1.0),
}
SPACES = tuple(
    Space(
        model=model,
        searched=tuple((name, MEASURED.get(name, how)) for name, how in built_in(model).searched),
    )
    for model in schema.MODELS
)
N_COMPONENTS = 3
N_GRID = 13  # values of a range, among which the best setting is sought
# An image that is the mean of all has an MSE of 0.067, a black one 0.11.
DEAD_MSE = 0.075
# With an effective learning rate of the reference's, or less, a trial above it is slow, not dead.
SAFE = 2.0
# Noise is extrapolated to trials so much faster or slower than real ones with several seeds.
MOST_FASTER = float(np.log(4))


def features(config: TrialConfig) -> list[float]:
    """A setting as numbers, each varying by one to four over the search space."""
    speed = np.log(_effective(config) * 256 / config.batch_size)
    if config.split == schema.FULL_SPLIT:
        speed += np.log(60_000 / 50_000)  # steps an epoch
    of_model = (
        [np.log2(config.latent_filters / 8)]
        if config.model == schema.CONV
        else [
            np.log2(config.hidden_units / 64),
            2.0 * (config.hidden_activation == "sigmoid"),
            10 * config.dropout,
        ]
    )
    return [
        speed,
        np.log(1 - config.momentum),
        np.log2(config.batch_size / 256) / 2,
        float(config.nesterov),
        *of_model,
    ]


class GaussianProcess:
    """A value by features: a linear trend, and a smooth part whose scales the data tell.

    Scales are those of the greatest posterior density, with log-normal priors, because as many
    features as there are here overfit a few dozen points otherwise.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._mean, self._sd = x, y.mean(), y.std() or 1.0
        self._y = (y - self._mean) / self._sd
        start = np.array([0.0, -2.0, *np.full(x.shape[1], 1.0)])
        spread = np.array([1.0, 1.5, *np.full(x.shape[1], 1.0)])

        def loss(theta: np.ndarray) -> float:
            factor, weights = self._solve(theta)
            fit = self._y @ weights / 2 + np.log(np.diag(factor[0])).sum()
            return float(fit + (((theta - start) / spread) ** 2).sum() / 2)

        self._theta = minimize(loss, start, method="L-BFGS-B").x
        self._factor, self._weights = self._solve(self._theta)

    def _kernel(self, a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> np.ndarray:
        scaled = [x / np.exp(theta[2:]) for x in (a, b)]
        distance = ((scaled[0][:, None] - scaled[1][None]) ** 2).sum(2)
        return np.exp(2 * theta[0] - distance / 2) + 1 + a @ b.T

    def _solve(self, theta: np.ndarray) -> tuple[Any, np.ndarray]:
        noise = np.exp(2 * theta[1]) + 1e-6
        factor = cho_factor(
            self._kernel(self._x, self._x, theta) + noise * np.eye(len(self._x)), lower=True
        )
        return factor, cho_solve(factor, self._y)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The expected value."""
        return self._mean + self._sd * (self._kernel(x, self._x, self._theta) @ self._weights)

    def left_out(self) -> np.ndarray:
        """What it expects of each of its points without that point, the scales as they are."""
        inverse = cho_solve(self._factor, np.eye(len(self._x)))
        return self._mean + self._sd * (self._y - self._weights / np.diag(inverse))


class Surrogate:
    """One model's training, without training.

    Args:
        model: the architecture.
        searched: run folders of searches, with a setting a trial, on the search's images.
        repeated: run folders with several seeds a setting, at least as many epochs.
    """

    def __init__(
        self,
        model: str,
        searched: Sequence[Path] = SEARCHED,
        repeated: Sequence[Path] = REPEATED,
    ) -> None:
        self.model = model
        found = [curves_of(folder, model, schema.SEARCH_SPLIT) for folder in searched]
        configs = [config for their_configs, _ in found for config in their_configs]
        curves = [curve for _, their_curves in found for curve in their_curves]
        self.epochs = max(len(curve) for curve in curves)
        # A diverged trial has fewer epochs; what follows is no number.
        y = np.array([[*curve, *[np.nan] * (self.epochs - len(curve))] for curve in curves])
        x = np.array([features(config) for config in configs])
        fast = np.array([_effective(config) > SAFE for config in configs])
        dead = ~(y < np.log(DEAD_MSE)) & fast[:, None]
        n_dead = dead.cumprod(1).sum(1)  # epochs at the start
        collapsed = dead[:, -1]
        late = ~collapsed & (n_dead > 0)
        self._collapses = y[collapsed]
        self._late_starts = [curve[:n] for curve, n in zip(y[late], n_dead[late], strict=True)]
        self.n_settings = len(configs)
        sound = ~collapsed
        for row in np.flatnonzero(late):
            y[row, : n_dead[row]] = y[row, n_dead[row]]
        y, x = y[sound], x[sound]
        n_sound = len(y)

        again, seeds, residuals = [], [], []
        for folder in repeated:
            their_configs, their_curves = curves_of(folder, model, schema.FULL_SPLIT)
            again += their_configs
            table = pd.DataFrame([curve[: self.epochs] for curve in their_curves])
            groups = table.groupby([str(key(config)) for config in their_configs])
            n = groups.transform("count")
            of_mean = (table - groups.transform("mean")) * np.sqrt(n / (n - 1))
            residuals += list(of_mean.to_numpy())
            for rows in groups.groups.values():
                x = np.vstack([x, features(their_configs[rows[0]])])
                y = np.vstack([y, table.loc[rows].mean()])
            seeds += list(table.to_numpy())
        risks = _risks(configs + again)
        no = np.zeros(len(again), bool)
        self._collapse = _logistic(risks, np.concatenate([collapsed, no]))
        alive = np.concatenate([sound, ~no])
        self._late = _logistic(risks[alive], np.concatenate([late, no])[alive])

        self._noise = list(zip(again, residuals, strict=True))
        speeds = np.array([*x[:n_sound, 0], *(features(config)[0] for config in again)])
        jitters = np.log([_jitter(curve) for curve in (*y[:n_sound], *seeds)])
        self._noise_slope = float(np.polyfit(speeds, jitters, 1)[0])

        self._mean_curve = y.mean(0)
        self._components = np.linalg.svd(y - self._mean_curve, full_matrices=False)[2][
            :N_COMPONENTS
        ]
        scores = (y - self._mean_curve) @ self._components.T
        self._processes = [GaussianProcess(x, score) for score in scores.T]
        left_out = np.array([process.left_out() for process in self._processes]).T
        errors = self._mean_curve + left_out @ self._components - y
        self.errors = errors[:n_sound]  # of the search's own settings
        self.spread = y[:n_sound].std(0)

    @cached_property
    def _collapsed_value(self) -> float:
        finals = self._collapses[:, -1:]
        return float(np.nanmean(finals)) if np.isfinite(finals).any() else float(np.log(DEAD_MSE))

    def true_curves(self, configs: Sequence[TrialConfig]) -> np.ndarray:
        """Expected log MSE by epoch of trials that do not collapse, a row a setting."""
        x = np.array([features(config) for config in configs])
        scores = np.array([process(x) for process in self._processes]).T
        return self._mean_curve + scores @ self._components

    def p_collapse(self, configs: Sequence[TrialConfig]) -> np.ndarray:
        """The chance that a seed collapses or diverges."""
        return expit(_risks(configs) @ self._collapse) * bool(len(self._collapses))

    def true_values(self, configs: Sequence[TrialConfig]) -> np.ndarray:
        """The geometric means over all seeds, collapsed ones too, of the final MSE."""
        p = self.p_collapse(configs)
        return np.exp((1 - p) * self.true_curves(configs)[:, -1] + p * self._collapsed_value)

    def true_value(self, config: TrialConfig) -> float:
        """The same of one setting."""
        return float(self.true_values([config])[0])

    def measure(self, config: TrialConfig, seed: int) -> list[float]:
        """A training's MSE by epoch; fewer epochs if it diverges. It repeats itself by the seed."""
        rng = np.random.default_rng((seed, zlib.crc32(str(key(config)).encode())))
        if rng.random() < self.p_collapse([config])[0]:
            curve = self._collapses[rng.integers(len(self._collapses))]
            return [float(mse) for mse in np.exp(curve[np.isfinite(curve)])]
        like = [(c, r) for c, r in self._noise if c.hidden_activation == config.hidden_activation]
        other, residual = like[rng.integers(len(like))]
        faster = np.clip(features(config)[0] - features(other)[0], -MOST_FASTER, MOST_FASTER)
        curve = self.true_curves([config])[0] + residual * np.exp(self._noise_slope * faster)
        if self._late_starts and rng.random() < expit(_risks([config]) @ self._late)[0]:
            start = self._late_starts[rng.integers(len(self._late_starts))]
            curve[: len(start)] = start
        return [float(mse) for mse in np.exp(curve)]

    @cached_property
    def best(self) -> TrialConfig:
        """The best known setting on all images: of a fine grid, then of smaller steps from it."""
        spec = StudySpec(preset="surrogate", epochs=self.epochs, spaces=SPACES)
        space, rng = spec.space_of(self.model).distributions, np.random.default_rng(0)
        ranges = {name: d for name, d in space.items() if isinstance(d, FloatDistribution)}

        def config_of(point: dict[str, Any]) -> TrialConfig:
            return search_config(self.model, point, spec, schema.FULL_SPLIT)

        def best_of(points: list[dict[str, Any]]) -> dict[str, Any]:
            return points[int(self.true_values(list(map(config_of, points))).argmin())]

        def step(point: dict[str, Any], scale: float) -> dict[str, Any]:
            moved = {name: point[name] * np.exp(scale * rng.normal()) for name in ranges}
            clipped = {
                n: float(np.clip(v, ranges[n].low, ranges[n].high)) for n, v in moved.items()
            }
            return point | clipped

        axes = [
            np.geomspace(d.low, d.high, N_GRID).tolist() if name in ranges else d.choices
            for name, d in space.items()
        ]
        best = best_of([dict(zip(space, point, strict=True)) for point in product(*axes)])
        for scale in (0.3, 0.1, 0.03, 0.01):
            best = best_of([best, *(step(best, scale) for _ in range(300))])
        return config_of(best)

    def regret(self, config: TrialConfig) -> float:
        """Log of the setting's true value over the best known one's, on all images as winners."""
        config = replace(config, split=schema.FULL_SPLIT)
        return float(np.log(self.true_value(config))) - self.log_best

    @cached_property
    def log_best(self) -> float:
        """Log of the best known true value."""
        return float(np.log(self.true_value(self.best)))

    def facts(self) -> dict[str, Any]:
        """How well it fits, for a result file."""
        noise = np.array([residual for _, residual in self._noise])
        return {
            "n_settings": self.n_settings,
            "n_collapsed": len(self._collapses),
            "n_late_starts": len(self._late_starts),
            "n_residual_curves": len(noise),
            "epochs": self.epochs,
            "left_out_rmse_of_log_mse": _rms(self.errors[:, -1]),
            "left_out_rmse_first_epoch": _rms(self.errors[:, 0]),
            "sd_of_log_mse_over_settings": float(self.spread[-1]),
            "seed_sd_of_log_mse": _rms(noise[:, -1]),
            "seed_sd_first_epoch": _rms(noise[:, 0]),
            "seed_sd_grows_with_speed_to_the": self._noise_slope,
            "best_setting": {k: v for k, v in self.best.to_dict().items() if v is not None},
            "best_mse": float(np.exp(self.log_best)),
            "reference_mse": self.true_value(TrialConfig(model=self.model)),
        }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


@cache
def load(model: str) -> Surrogate:
    """The surrogate of the project's own tables."""
    return Surrogate(model)


def key(config: TrialConfig) -> tuple[Any, ...]:
    """The setting, whatever its seed and epochs."""
    return (*config.architecture, *features(config))


def _effective(config: TrialConfig) -> float:
    """The learning rate that a long run of equal gradients sees."""
    return config.learning_rate / (1 - config.momentum)


def _risks(configs: Sequence[TrialConfig]) -> np.ndarray:
    return np.array(
        [
            [
                1.0,
                np.log(_effective(config)),
                np.log(1 - config.momentum),
                np.log2(config.batch_size / 256) / 2,
            ]
            for config in configs
        ]
    )


def _jitter(curve: np.ndarray) -> float:
    """How much a curve goes up and down after its first epochs: its noise, of a single seed."""
    return float(np.std(np.diff(curve[4:], 2)) / np.sqrt(6))


def _logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression, held back a little, for classes may be apart."""

    def loss(w: np.ndarray) -> float:
        z = x @ w
        return float((np.logaddexp(0, z) - y * z).sum() + 0.05 * (w[1:] ** 2).sum())

    return minimize(loss, np.zeros(x.shape[1])).x


def curves_of(folder: Path, model: str, split: str) -> tuple[list[TrialConfig], list[np.ndarray]]:
    """The ended trials of a run folder and their log MSE by epoch."""
    trials, epochs = load_run(folder)
    ended = trials.state.isin([schema.COMPLETED, schema.DIVERGED])
    chosen = trials[(trials.model == model) & (trials.split == split) & ended]
    metric = schema.VAL_MSE if split == schema.SEARCH_SPLIT else schema.TEST_MSE
    values = {name: rows.sort_values("epoch") for name, rows in epochs.groupby("trial_id")}
    configs = [
        config_of_row({k: None if pd.isna(v) else v for k, v in row.items()})
        for row in chosen.astype(object).to_dict("records")
    ]
    return configs, [
        np.log(values[name][metric].to_numpy()) if name in values else np.array([])
        for name in chosen.trial_id
    ]


def confirm(model: str, n: int) -> None:
    """Trains what is taken for the best setting, until it stays the same or n times.

    A fit alone finds its best setting where there are no data.
    """
    from convae.data import load_images
    from convae.device import open_device
    from convae.training import Trainer

    trainer = Trainer(load_images(None), open_device(gpu=False, n_threads=1))
    for _ in range(n):
        trials, epochs = (table.to_pylist() for table in tables.read_tables(RunFolder(CONFIRMED)))
        config = replace(Surrogate(model).best, split=schema.SEARCH_SPLIT)
        if key(config) in [key(config_of_row(row)) for row in trials]:
            return
        trial_id = f"{schema.SEARCH}-{model}-best-{len(trials):03d}"
        training = trainer.start(config)
        row = {"trial_id": trial_id, "group": schema.SEARCH, **config.to_dict()}
        row |= {"state": schema.COMPLETED, "epochs_completed": config.epochs}
        for epoch in range(1, config.epochs + 1):
            try:
                result = training.run_epoch()
            except DivergenceError:
                row |= {"state": schema.DIVERGED, "diverged_epoch": epoch}
                row["epochs_completed"] = epoch - 1
                break
            row |= {schema.TRAIN_MSE: result.train_mse, schema.VAL_MSE: result.eval_mse}
            mse = {name: row[name] for name in (schema.TRAIN_MSE, schema.VAL_MSE)}
            epochs.append({"trial_id": trial_id, "epoch": epoch, **mse})
        trials.append(row)
        print(trial_id, config, row.get(schema.VAL_MSE), flush=True)
        for rows, columns, name in (
            (trials, tables.TRIALS, schema.TRIALS_CSV_FILE),
            (epochs, tables.EPOCHS, schema.EPOCHS_CSV_FILE),
        ):
            csv.write_csv(pa.Table.from_pylist(rows, columns), CONFIRMED / name)


def main() -> None:
    """Prints how well the surrogates fit."""
    parser = build_parser("surrogate", __doc__, "the same")
    parser.add_argument("--confirm", type=int, default=0, help="train so many best settings")
    options = parser.parse_args()
    for model in schema.MODELS:
        confirm(model, options.confirm)
    facts = {model: load(model).facts() for model in schema.MODELS}
    table = [
        [name, *(f"{each[name]:.4g}" for each in facts.values())]
        for name in facts[schema.CONV]
        if name != "best_setting"
    ]
    print_table("Surrogates", ["", *facts], table)
    for model, each in facts.items():
        print(model, each["best_setting"])


if __name__ == "__main__":
    main()
