"""The plan of a study: fixed trials, then what the searches ask for, then finalists and winners.

One seed makes a lucky setting look good, so a search's best settings train again with fresh seeds,
beside the reference setting, before one of them is the winner.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna

from convae.config import TrialConfig
from convae.sharing import DeviceSharing
from study.folder import schema
from study.folder.tables import Row
from study.plan.decision import Comparison, Rule, compare, seeds_wanted
from study.plan.ledger import ENDS, Ledger, Listener, config_of_row
from study.plan.search import Search
from study.plan.spec import StudySpec
from study.plan.stopping import Curve
from study.plan.trials import (
    PlannedTrial,
    fixed_trials,
    plan_trial,
    reference_config,
    searching_trials,
    setting_of,
    winner_sharing,
)

# After the searches, in this order: each waits until the one before has ended.
STAGES = (schema.SEARCH, schema.FINALIST, schema.WINNER)


class Plan(Listener):
    """Hands out a study's trials, each entered in the ledger first.

    It goes on where the ledger stands. Each architecture has its own search and an equal share of
    the search trials; finalists wait until no search trial runs, winners until no finalist does.

    Args:
        spec, ledger: the study's; the plan listens to the ledger.
        storage: for Optuna's studies; None for one that ends with the plan.
        enforce_alone: hand out nothing beside a trial that must be alone; False if the engines
            see to that.
        lanes: of each model, on all devices; None without.
        lags: of each model's search, see `study.plan.search`; None for one that does not repeat.
        n_places: trials at work at once, at most; None for no limit. It may be changed.
    """

    def __init__(
        self,
        spec: StudySpec,
        ledger: Ledger,
        storage: optuna.storages.BaseStorage | None = None,
        *,
        enforce_alone: bool = True,
        lanes: Mapping[str, int] | None = None,
        lags: Mapping[str, int] | None = None,
        n_places: int | None = None,
    ) -> None:
        self._enforce_alone, self._lanes, self.n_places = enforce_alone, lanes, n_places
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each new study
        self._spec, self._ledger = spec, ledger
        storage = storage or optuna.storages.InMemoryStorage()
        self.fixed = fixed_trials(spec)
        self._fixed = deque(trial for trial in self.fixed if not ledger.is_done(trial.trial_id))
        # The reference settings that are compared, each with its base, where seeds are added.
        labels = {trial.setting for trial in self.fixed if _is_reference(trial)}
        pairs = ((t.setting, t.base) for t in self.fixed if _is_reference(t) and t.base in labels)
        self._pairs = list(dict.fromkeys(pairs)) if spec.until_decided else []
        n_pairs = len(self._pairs) + min(spec.n_finalists, spec.share) * len(spec.models)
        self.rule = Rule(spec.until_decided, n_pairs) if spec.until_decided and n_pairs else None
        self._n_ended = -1  # reference trials, when seeds were last added to them
        self._searches = {
            (model, number): Search(
                model,
                replace(spec, sampler=sampler, seed=seed),
                ledger,
                storage,
                (lags or {}).get(model),
                number,
            )
            for number, (sampler, seed) in enumerate(spec.searches)
            for model in (spec.models if spec.n_search_trials else ())
        }
        # Finalists and winners, once they are known.
        self._last: dict[str, deque[PlannedTrial]] = {}
        self._at_work: dict[str, PlannedTrial] = {}
        self._failed: deque[PlannedTrial] = deque()  # once, so that they start again
        ledger.listeners += [*self._searches.values(), self]

    @property
    def is_finished(self) -> bool:
        """Whether no further trial will ever be handed out."""
        last = self._last.get(schema.WINNER, True)  # not known yet
        return not (last or self._fixed or self._at_work or self._failed)

    @property
    def n_to_come(self) -> int:
        """Trials that are yet to be handed out, as far as is known by now."""
        return self.n_trials - self._ledger.count(*ENDS) - self.n_at_work

    @property
    def n_at_work(self) -> int:
        """Trials that train, or wait for a worker."""
        return len(self._at_work)

    @property
    def comparisons(self) -> list[Comparison]:
        """How far the comparisons are to which seeds are added until they are decided."""
        found = self._compare(schema.REFERENCE, self._pairs, self._spec.seed)
        has_finalists = self._searches and schema.FINALIST in self._last
        models = self._spec.models if has_finalists else ()
        return found + [one for model in models for one in self._compare_finalists(model)]

    @property
    def n_trials(self) -> int:
        """Of the whole study, as far as is known by now.

        There are more than `study.plan.trials` counts where seeds were added, and fewer where a
        search has not as many finalists.
        """
        known = [sum(self.searching_trials(model).values()) for model in self._spec.models]
        return len(self.fixed) + sum(known)

    def searching_trials(self, model: str) -> dict[str, int]:
        """The same as in `study.plan.trials`, but those of a group that has begun are counted."""
        found = dict(searching_trials(self._spec, model))
        for group in found.keys() & self._last.keys():
            last = [*self._last[group]]  # the live view asks from another thread
            waiting = {p.trial_id for p in last if p.config.model == model}
            found[group] = len(waiting | {row["trial_id"] for row in self._rows(group, model)})
        return found

    def study_of(self, model: str, number: int = 0) -> optuna.Study:
        """Optuna's study of one of an architecture's searches."""
        return self._searches[model, number].study

    @property
    def waits_for(self) -> list[str]:
        """Trials that must end before the next ones can be planned, though there may be room."""
        searches = [search for search in self._searches.values() if search.is_open]
        found = [search.waits_for for search in searches]
        return [] if self._fixed or None in found else [each for each in found if each]

    def goes_on(self, planned: PlannedTrial, epochs: Curve) -> bool:
        """Whether a trial goes on after the last of these epochs; those before are in the ledger.

        Only search trials are ended early.
        """
        if not planned.prunable:
            return True
        seeds = [seed for _, seed in self._spec.searches]
        its = planned.config.model, seeds.index(planned.config.seed)
        return self._searches[its].goes_on(planned.trial_id, epochs)

    def close(self) -> None:
        """Brings Optuna's studies up to date, of which nothing is asked any more."""
        for search in self._searches.values():
            search.close()

    def next(self) -> PlannedTrial | None:
        """The next trial; None while it must wait for others, or if there is none left."""
        planned = self._next()
        if planned is not None:
            self._ledger.plan(planned)
        return planned

    def _next(self) -> PlannedTrial | None:
        at_work = self._at_work.values()
        self._add_references()
        if self.n_places is not None and len(at_work) >= self.n_places:
            return None
        if self._enforce_alone and any(
            planned.sharing is DeviceSharing.ALONE for planned in at_work
        ):
            return None
        if first := self._failed or self._fixed:
            is_alone = self._enforce_alone and first[0].sharing is DeviceSharing.ALONE
            if is_alone and at_work:
                return None
            return self._failed.popleft() if self._failed else self._next_fixed()
        if searches := [search for search in self._searches.values() if search.is_open]:
            # A search that waits for one of its own trials leaves its turn to another.
            free = [search for search in searches if search.waits_for is None]
            turn = min(free, key=lambda each: (each.number, each.n_planned), default=None)
            return turn.next() if turn else None
        for before, group in itertools.pairwise(STAGES):
            if group not in self._last:
                if any(planned.group == before for planned in at_work):
                    return None
                if before == schema.FINALIST and self.rule:
                    self._last[before].extend(self._of_group(before))
                    if self._last[before]:  # further seeds
                        return self._last[before].popleft()
                self._last[group] = deque(self._of_group(group))
            if self._last[group]:
                return self._last[group].popleft()
        return None

    def _add_references(self) -> None:
        """Adds seeds to reference settings whose comparison is open, once all they have ended."""
        waiting = itertools.chain(self._fixed, self._at_work.values())
        if not self._pairs or any(map(_is_reference, waiting)):
            return
        n_ended = sum(row["state"] != schema.RUNNING for row in self._rows(schema.REFERENCE))
        if n_ended == self._n_ended:
            return
        self._n_ended = n_ended
        known = {trial.trial_id for trial in self.fixed}
        wanted = seeds_wanted(self._compare(schema.REFERENCE, self._pairs, self._spec.seed))
        more = [t for t in fixed_trials(self._spec, wanted) if t.trial_id not in known]
        self.fixed += more
        self._fixed.extend(t for t in more if not self._ledger.is_done(t.trial_id))

    def _compare(
        self, group: str, pairs: Sequence[tuple[str, str]], first: int
    ) -> list[Comparison]:
        """How far comparisons of a group are; `first` is its first seed."""
        if self.rule is None:
            return []
        seeds = range(first, first + self.rule.most)
        split = schema.SEARCH_SPLIT if group == schema.FINALIST else schema.FULL_SPLIT
        rows = [row for row in self._rows(group) if row["split"] == split]
        return [compare(group, rows, *pair, seeds, self.rule) for pair in pairs]

    def _compare_finalists(self, model: str) -> list[Comparison]:
        """How far a model's finalists are compared with its reference setting."""
        labels = [setting_of(config, self._spec) for config in self._settings(model).values()]
        pairs = [(label, labels[-1]) for label in labels[:-1]]
        return self._compare(schema.FINALIST, pairs, self._spec.finalist_seeds.start)

    def _next_fixed(self) -> PlannedTrial:
        """The first fixed trial whose model has a free lane, or if there is none the first."""
        if self._lanes is not None:
            shared = DeviceSharing.LANES
            at_work = (p.config.model for p in self._at_work.values() if p.sharing is shared)
            taken = Counter(at_work)
            for planned in self._fixed:
                model = planned.config.model
                if planned.sharing is not shared or taken[model] < self._lanes[model]:
                    self._fixed.remove(planned)
                    return planned
        return self._fixed.popleft()

    def _settings(self, model: str) -> dict[str, TrialConfig]:
        """The settings among which the winner is, by name: the search's best, and the reference."""
        spec, n = self._spec, self._spec.n_finalists
        reference = reference_config(model, spec, split=schema.SEARCH_SPLIT, seed=spec.seed)
        best = self._best_searched(model, n + 1)
        others = [(name, config) for name, config in best.items() if config != reference][:n]
        return dict(others) | ({"reference": reference} if best else {})

    def _best_searched(self, model: str, n: int) -> dict[str, TrialConfig]:
        """The best settings of all searches of an architecture, at most n, by name; one seed."""
        every = (one for key, s in self._searches.items() if key[0] == model for one in s.best(n))
        names: dict[TrialConfig, str] = {}
        for _, name, config in sorted(every, key=lambda one: one[0]):
            names.setdefault(replace(config, seed=self._spec.seed), name)
        return {name: config for config, name in list(names.items())[:n]}

    def _of_group(self, group: str) -> list[PlannedTrial]:
        """The finalists or winners that are to be trained.

        Those that an earlier session began belong to them, whatever is known better by now.
        """
        of_model = self._finalists if group == schema.FINALIST else self._winners
        configs = {
            i: config for model in self._spec.models for i, config in of_model(model).items()
        }
        for row in self._rows(group):
            configs.setdefault(row["trial_id"], config_of_row(row))
        is_winner = group == schema.WINNER
        return [
            plan_trial(
                self._spec,
                group,
                trial_id,
                config,
                keep_model=is_winner and config.seed == self._spec.seed,
                sharing=winner_sharing(self._spec) if is_winner else DeviceSharing.LANES,
            )
            for trial_id, config in configs.items()
            if not self._ledger.is_done(trial_id)
        ]

    def _rows(self, group: str, model: str | None = None) -> list[Row]:
        """What the ledger has of a group, in the order in which it was planned."""
        rows = (row for row in self._ledger.rows() if row["group"] == group)
        return [row for row in rows if model in (None, row["model"])]

    def _finalists(self, model: str) -> dict[str, TrialConfig]:
        """By trial."""
        if schema.FINALIST not in searching_trials(self._spec, model):
            return {}
        seeds = self._spec.finalist_seeds
        # All of a model have as many: the winner must not be the one that had fewer to lose.
        wanted = seeds_wanted(self._compare_finalists(model)) if self.rule else {}
        n = max([len(seeds), *wanted.values()])
        return {
            f"{schema.FINALIST}-{model}-{name}-s{seed}": replace(config, seed=seed)
            for name, config in self._settings(model).items()
            for seed in range(seeds.start, seeds.start + n)
        }

    def _best(self, model: str) -> TrialConfig | None:
        """The setting to be trained on all images; None if none has been found."""
        if self._finalists(model):
            rows = self._rows(schema.FINALIST, model)

            def rank(config: TrialConfig) -> tuple[int, float]:
                setting = setting_of(config, self._spec)
                return _rank([row for row in rows if row["setting"] == setting])

            return min(self._settings(model).values(), key=rank)
        return next(iter(self._best_searched(model, 1).values()), None)

    def _winners(self, model: str) -> dict[str, TrialConfig]:
        """By trial."""
        if (best := self._best(model)) is None:
            return {}
        # More may be known than when a winner was named before: then there is another one.
        settings = dict.fromkeys(row["setting"] for row in self._rows(schema.WINNER, model))
        settings.setdefault(setting_of(best, self._spec))
        number = list(settings).index(setting_of(best, self._spec)) + 1
        name = f"{schema.WINNER}-{model}" + (f"-{number}" if number > 1 else "")
        return {
            f"{name}-s{seed}": replace(best, split=schema.FULL_SPLIT, seed=seed)
            for seed in self._spec.seeds
        }

    # What the ledger tells.

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """Notes that it is at work."""
        self._at_work[planned.trial_id] = planned

    def failed_once(self, row: Row, note: str) -> None:
        """Hands it out again."""
        self._failed.append(self._at_work.pop(row["trial_id"]))

    def ended(self, row: Row) -> None:
        """Notes that it no longer is."""
        self._at_work.pop(row["trial_id"], None)


def _is_reference(planned: PlannedTrial) -> bool:
    """Whether a trial is one of those to whose settings seeds are added."""
    return planned.group == schema.REFERENCE and planned.config.split == schema.FULL_SPLIT


def _rank(rows: Sequence[Row]) -> tuple[int, float]:
    """Of a finalist's trials, the least first: seeds without a value, then the mean of the others.

    A setting that diverged with one seed comes after all that did not.
    """
    values = [row[schema.OBJECTIVE] for row in rows if row["state"] == schema.COMPLETED]
    return len(rows) - len(values), sum(values) / len(values) if values else math.inf
