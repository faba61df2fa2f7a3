"""Studies: a planned grid of runs, run, and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.reading import require_at_least, require_rates
from peftport.api.study_files import export_of, report_of, rescue_of
from peftport.api.study_results import (
    Exported,
    Planned,
    Reported,
    Rescued,
    Standing,
    StudyRun,
    TunedRates,
)
from peftport.errors import BadInput
from peftport.files import is_folder

if TYPE_CHECKING:
    import pandas as pd

    from peftport.studies.plan import Plan
    from peftport.studies.resolve import Facts
    from peftport.studies.spec import Spec

RATES = (0.001, 0.003, 0.01, 0.03)


class Study:
    """A grid of runs: hosts, techniques, methods, controls, budgets, seeds.

    Attributes:
        spec: the whole specification.
        folder: where its store and its report are.
        outcome: how it stood after the last `run`; None before.
    """

    def __init__(
        self,
        spec: str | Path | Mapping[str, Any],
        *,
        out: str | Path | None = None,
        settings: Mapping[str, Any] | Sequence[str] = (),
    ) -> None:
        """Find a study; nothing is run.

        Args:
            spec: a preset's name, a YAML file, the folder of a study that was begun, or the
                content of a YAML file as a mapping.
            out: the folder; `runs/NAME` if not given.
            settings: parameters that the specification asks for, or any of its keys
                (`{"training.batch_size": 8}`).

        Raises:
            BadInput: there is no such preset, file or study, or a key is unknown or wrong.

        >>> import peftport as pp
        >>> study = pp.Study("quick")
        >>> study.spec.name, study.folder.name
        ('quick', 'quick')
        """
        given = _settings(settings)
        self._name = "" if isinstance(spec, Mapping) else str(spec)
        self.begun = bool(self._name) and is_folder(Path(self._name))
        if self.begun:
            for option, said in (("--out", out), ("--set", given)):
                if said:
                    raise BadInput(
                        f"{option} belongs to a new study; {spec} goes on as it was begun."
                    )
            self.folder = Path(self._name)
        else:
            self._loaded = _load(spec, given)
            self.folder = Path(out) if out else Path("runs") / self._loaded.name
        self.outcome: StudyRun | None = None

    @cached_property
    def spec(self) -> Spec:
        """The whole specification."""
        if not self.begun:
            return self._loaded
        from peftport.studies.spec import parse_spec
        from peftport.studies.store import read_study

        with read_study(self.folder) as store:
            return parse_spec(store.spec, self._name)

    def plan(
        self, *, measure: bool = True, progress: Callable[[str], None] = lambda text: None
    ) -> Planned:
        """Count what the study comes to, before anything is trained.

        Args:
            measure: also estimate seconds, and bytes of memory and disk, by a short trial.

        Raises:
            BadInput: the specification names what cannot be found or combined.

        >>> import peftport as pp
        >>> pp.Study("quick").plan(measure=False).to_dict()["runs"]
        192
        """
        from peftport.studies.identity import Identity
        from peftport.studies.outline import outline
        from peftport.studies.plan import Plan
        from peftport.studies.precision import with_precision
        from peftport.studies.resolve import resolve

        facts = resolve(self.spec, fetch=False)
        planned = Plan(with_precision(self.spec, self.folder, facts))
        Identity(planned, *facts.marks()).check_unique()
        found = outline(planned, facts)
        if measure:
            found["estimate"] = _estimate(planned, facts, progress)
        return Planned(found)

    def run(
        self,
        *,
        executor: str = "local",
        workers: int | None = None,
        threads: int | None = None,
        address: str | None = None,
        gpus: float | None = None,
        retry_failed: bool = False,
        extend: bool = False,
        ignore_memory: bool = False,
        progress: Any = None,
        started: Callable[[str], None] = lambda text: None,
    ) -> Study:
        """Run what is missing, beginning the study if need be, and write its report.

        Args:
            executor: "local", this machine, or "ray", a cluster at `address`.
            workers: packs worked on at the same time, with `threads` each; on Ray with `gpus`.
            retry_failed: run again what has failed.
            extend: where the folder holds a smaller study, go on with it as this one, which has
                more seeds, say; every run that is recorded there has to be one of this one's.
            ignore_memory: try it though its workers should not fit into memory.
            progress: a `peftport.studies.progress.Progress`.
            started: told name and folder.

        Returns:
            The study itself; `outcome` says how it stands.

        Raises:
            BadInput: a name stands for nothing, the folder holds another, or memory is short.
            RunFailed: the store cannot be written.
        """
        from peftport.studies.executors import EXECUTORS, ExecutorOptions
        from peftport.studies.run import run_study

        spec = self.spec
        made = EXECUTORS.get(executor).from_options(
            ExecutorOptions(workers, threads, address, gpus)
        )
        started(f"study {spec.name} in {self.folder}")
        outcome = run_study(
            spec,
            self.folder,
            made,
            retry_failed=retry_failed,
            extend=extend,
            ignore_memory=ignore_memory,
            progress=progress,
            meanwhile=partial(import_module, "peftport.reports.page"),
        )
        self.begun, page = True, None
        if outcome.done and not outcome.interrupted:
            page = self.report()
        self.outcome = StudyRun(spec.name, self.folder, outcome, page)
        return self

    def status(self) -> Standing:
        """How far the study is, also while it is being run.

        Raises:
            BadInput: it was not begun.
        """
        from peftport.studies.outline import standing

        return Standing(standing(self.folder))

    def frame(self) -> pd.DataFrame:
        """A row for each run that was recorded, with the columns of `peftport study export`.

        Raises:
            BadInput: it was not begun.
        """
        from peftport.reports.stored import read_rows

        return read_rows(self.folder)

    def report(
        self,
        out: str | Path | None = None,
        *,
        figures: bool = False,
        corrected_on: str = "training",
    ) -> Reported:
        """Write the report: a page that needs no network, tables in Markdown and LaTeX.

        Args:
            out: a folder; the study's own if not given.
            figures: also write the page's figures as PNG files.
            corrected_on: "training" texts, or the "test" texts themselves without their labels,
                which shows whether what the report says hangs on the threshold's texts.

        Raises:
            BadInput: the study was not begun, `out` cannot be made, or the correction cannot rest
                on the test texts.
        """
        return report_of(self.folder, out, figures=figures, corrected_on=corrected_on)

    def export(
        self, out: str | Path | None = None, form: str = "csv", *, excel_safe: bool = False
    ) -> Exported:
        """The rows as bytes, or in a new file.

        Args:
            out: a new file.
            form: "csv", "parquet" or "json".
            excel_safe: in CSV, an apostrophe before texts that a spreadsheet would compute.

        Raises:
            BadInput: `out` exists already or cannot be written, or the form is unknown.
        """
        return export_of(self.folder, out, form, excel_safe=excel_safe)

    def rescue(self, out: str | Path) -> Rescued:
        """Write what is whole of a damaged study into a new folder, which `run` goes on with.

        Raises:
            BadInput: there is no study, or `out` exists already.
        """
        return rescue_of(self.folder, out)

    def tune(
        self,
        rates: Sequence[float] = RATES,
        *,
        seeds: int = 2,
        out: str | Path | None = None,
        workers: int | None = None,
        threads: int | None = None,
        progress: Any = None,
        started: Callable[[str], None] = lambda text: None,
    ) -> TunedRates:
        """Choose each technique's learning rate on the validation split.

        Trains the first pair of each relation in the first setting with every rate, the same rates
        for modules that are native, ported, sampled and from scratch. What was tried is kept.

        Args:
            rates: to choose from.
            seeds: how many, none of which the study uses.
            out: a folder for the studies of the rates; `runs/NAME-rates` if not given.
            progress: as for `run`.
            started: told each rate.

        Raises:
            BadInput: as `run`.
            KeyboardInterrupt: it was interrupted; the same call goes on.
        """
        from peftport.studies import tune as tuning
        from peftport.studies.executors import ExecutorOptions
        from peftport.studies.executors.local import LocalExecutor
        from peftport.studies.run import run_study
        from peftport.studies.store import read_study

        require_at_least(1, seeds=seeds)
        require_rates(rates=rates)
        made = tuning.candidates(self.spec, rates, seeds)
        folder = Path(out) if out else Path("runs") / f"{self.spec.name}-rates"
        rows = {}
        for rate, candidate in made.items():
            started(f"learning rate {rate:g}, tested on {candidate.split}")
            executor = LocalExecutor.from_options(ExecutorOptions(workers, threads))
            place = folder / f"{rate:g}"
            outcome = run_study(candidate, place, executor, progress=progress)
            if outcome.interrupted:
                raise KeyboardInterrupt
            with read_study(place) as store:
                rows[rate], kind = list(store.rows()), store.kind
        found = tuning.tried(rows, kind)
        return TunedRates(tuning.record(found, made), tuning.table_text(found, made))

    def __repr__(self) -> str:
        return f"<peftport.Study {self.spec.name!r} in {str(self.folder)!r}>"

    def _repr_html_(self) -> str:
        """The last outcome, or else the plan."""
        return (self.outcome or self.plan(measure=False))._repr_html_()


def _settings(given: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Settings as they are written: KEY=VALUE, values in YAML (of which JSON is a part)."""
    import json

    if not isinstance(given, Mapping):
        return list(given)
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in given.items()
    ]


def _load(spec: str | Path | Mapping[str, Any], settings: list[str]) -> Spec:
    from peftport.studies.load import load_spec, read_spec

    return (
        read_spec(spec, settings) if isinstance(spec, Mapping) else load_spec(str(spec), settings)
    )


def _estimate(
    planned: Plan, facts: Facts, progress: Callable[[str], None]
) -> dict[str, Any] | None:
    """What a study takes; None where hosts or tasks are not at hand to be measured."""
    if facts.unknown:
        return None
    from peftport.studies.estimate import estimate_study
    from peftport.studies.measure import measure_costs

    return estimate_study(planned, facts, measure_costs(planned, facts, progress))
