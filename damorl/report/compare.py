"""Everything that a report shows, compared, and what a reader must be told before believing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from damorl.report.aggregate import Aggregate, make_aggregate
from damorl.report.collect import LAST, Run, Status
from damorl.report.methods import ABSENT, Method, flatten, name_methods
from damorl.report.results import DataSet, Result, data_sets, gather_results
from damorl.report.statistics import Estimate, num_missing

NAMED = 4  # settings named in one sentence
SAME_CLOCK = {
    "total_updates": "their budgets of updates",
    "eval_interval": "updates between evaluations",
    "eval_episodes": "episodes per evaluation",
}


@dataclass(frozen=True)
class Comparison:
    """Runs sorted into methods and data sets, with their numbers."""

    runs: tuple[Run, ...]
    method_of: Mapping[str, Method] = field(repr=False)
    """By where the run is: see `Run.place`."""
    methods: tuple[Method, ...]
    data: tuple[DataSet, ...]
    results: tuple[Result, ...]
    estimates: tuple[Estimate | None, ...]
    """One per result."""
    aggregate: Aggregate | None
    seed: int
    """Of every bootstrap."""

    @property
    def there(self) -> tuple[Run, ...]:
        """The runs of which something is there."""
        return tuple(run for run in self.runs if not run.absent)


def compare(runs: Sequence[Run], seed: int = 0) -> Comparison:
    """Sort runs into methods and data sets, and estimate. `seed` decides every bootstrap."""
    method_of, data = name_methods(runs), data_sets(runs)
    results = tuple(gather_results(runs, method_of, data))
    return Comparison(
        runs=tuple(runs),
        method_of={run.place: method for run, method in zip(runs, method_of, strict=True)},
        methods=tuple(dict.fromkeys(method_of)),
        data=data,
        results=results,
        estimates=tuple(result.estimate(seed) for result in results),
        aggregate=make_aggregate(results, seed),
        seed=seed,
    )


def replication(comparison: Comparison) -> str:
    """What was repeated to get the seeds of a method, and what was not, in two sentences."""
    own = "its initial parameters, all its random draws"
    if any(run.models for run in comparison.runs):
        own += " and, where a model is learned, the fit of its own model"
    return (
        f"What is repeated is the seed: {own}. The data set is the same for all seeds, so no interval tells what other "
        "data of the same kind would give."
    )


def cautions(comparison: Comparison) -> list[str]:
    """One sentence for each reason not to compare, or not to believe, some of the numbers."""
    return [
        *_different_files(comparison),
        *_unequal_clocks(comparison),
        *_unequal_scales(comparison),
        *(sentence for result in comparison.results for sentence in _thin_results(result)),
        *(sentence for result in comparison.results for sentence in _shared_models(result)),
        *_few_evaluations(comparison),
        *(sentence for method in comparison.methods for sentence in _changing_settings(comparison, method)),
        *_uneven_aggregate(comparison.aggregate),
        *_unclean_sources(comparison),
    ]


def _different_files(comparison: Comparison) -> Iterator[str]:
    for name in dict.fromkeys(data.name for data in comparison.data):
        hashes = [data.sha256[:8] for data in comparison.data if data.name == name]
        if len(hashes) > 1:
            yield (
                f"{name} was {len(hashes)} different files (sha256 {', '.join(hashes)}): "
                "their scores stand apart and must not be compared."
            )


def _unequal_clocks(comparison: Comparison) -> Iterator[str]:
    """Runs on one data set that differ in what they cost or how they are scored; the same difference is told once."""
    where: dict[str, list[str]] = {}
    for data in comparison.data:
        runs = _runs_on(comparison, data)
        values = {what: sorted({run.config["loop"].get(key, 0) for run in runs}) for key, what in SAME_CLOCK.items()}
        differing = [f"{what} ({_listed(found)})" for what, found in values.items() if len(found) > 1]
        if differing:
            where.setdefault(", in ".join(differing), []).append(data.label)
    for differing, labels in where.items():
        place = _place(labels, comparison)
        yield f"On {place} the runs differ in {differing}: scores do not compare at equal numbers of updates."


def _unequal_scales(comparison: Comparison) -> Iterator[str]:
    for data in comparison.data:
        runs = _runs_on(comparison, data)
        scales = {(run.data.get("reference_min"), run.data.get("reference_max")) for run in runs} - {(None, None)}
        if len(scales) > 1:
            yield f"On {data.label} the reference returns differ: the normalised scores are on different scales."


def _few_evaluations(comparison: Comparison) -> Iterator[str]:
    """Scores that are means of fewer evaluations than they should be; once for each method and number."""
    where: dict[tuple[str, int], list[str]] = {}
    for result in comparison.results:
        evaluations = min((score.evaluations for score in result.counted), default=LAST)
        if result.finished and evaluations < LAST:
            where.setdefault((result.method.label, evaluations), []).append(result.data.label)
    for (method, evaluations), labels in where.items():
        place = _place(labels, comparison)
        yield f"{method} on {place}: only {evaluations} evaluations could be averaged, not {LAST}."


def _runs_on(comparison: Comparison, data: DataSet) -> list[Run]:
    return [run for run in comparison.runs if run.data_key == (data.name, data.sha256)]


def _place(labels: Sequence[str], comparison: Comparison) -> str:
    """The data sets by name, or `every data set` where they are all there is."""
    return "every data set" if 1 < len(labels) == len(comparison.data) else ", ".join(labels)


def _thin_results(result: Result) -> Iterator[str]:
    """Numbers that stand for less than they seem to."""
    where = f"{result.method.label} on {result.data.label}"
    if result.counted and not result.finished:
        done, total = min(score.updates for score in result.counted), max(run.total_updates for run in result.runs)
        yield f"{where} is unfinished ({done:,} of {total:,} updates): its number is shown and enters no aggregate."
    if result.missing:
        yield f"{where}: {result.missing} of {result.missing + len(result.counted)} seeds are missing or unfinished."
    if any(score.status is Status.DUPLICATE for _, score in result.seeds):
        yield f"{where}: a seed is there more than once; it counts once."


def _shared_models(result: Result) -> Iterator[str]:
    """Seeds that were trained in the same model repeat less than they seem to."""
    counted = [run.models.get(score.seed) for run, score in result.seeds if score in result.counted]
    known = [sha256 for sha256 in counted if sha256]
    models = len(set(known))
    if models < len(known):
        yield (
            f"{result.method.label} on {result.data.label}: {len(known)} seeds share {models} fitted "
            f"model{'s' * (models > 1)}: the interval leaves out how much one fit differs from another."
        )


def _changing_settings(comparison: Comparison, method: Method) -> Iterator[str]:
    """A method whose settings are not the same on every data set."""
    configs = [
        flatten(run.config["algo_config"]) for run in comparison.runs if comparison.method_of[run.place] == method
    ]
    keys = dict.fromkeys(key for config in configs for key in config)
    changing = [key for key in keys if len({config.get(key, ABSENT) for config in configs}) > 1]
    if changing:
        more = f" and {len(changing) - NAMED} more" if len(changing) > NAMED else ""
        yield (
            f"{method.label} was not run with the same settings on all data sets "
            f"({', '.join(changing[:NAMED])}{more}); see the settings that differ."
        )


def _uneven_aggregate(aggregate: Aggregate | None) -> Iterator[str]:
    if aggregate is not None and any(num_missing(scores) for scores in aggregate.scores.values()):
        yield (
            "Over all data sets, some methods lack seeds: in their IQM, optimality gap and profile "
            "a data set with fewer seeds weighs less."
        )


def _unclean_sources(comparison: Comparison) -> Iterator[str]:
    """Code that is not one commit, libraries that are not one version."""
    sources = [run.provenance.get("git") or {} for run in comparison.runs]
    dirty = sum(bool(source.get("dirty")) for source in sources)
    if dirty:
        yield f"{dirty} of {len(sources)} runs were made from a changed checkout: their revision does not tell all."
    revisions = {source["revision"] for source in sources if source.get("revision")}
    if len(revisions) > 1:
        yield f"The runs were made by {len(revisions)} different revisions of the code."
    versions = [run.provenance.get("versions") or {} for run in comparison.runs]
    for package in dict.fromkeys(name for own in versions for name in own):
        found = sorted({str(own[package]) for own in versions if own.get(package)})
        if len(found) > 1:
            yield f"The runs were made with different versions of {package} ({', '.join(found)})."


def _listed(values: Sequence[int]) -> str:
    """`1, 2 and 3`."""
    words = [f"{value:,}" for value in values]
    return f"{', '.join(words[:-1])} and {words[-1]}"
