"""The ``bayes-moe`` command."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from comparisons import catalogue
from comparisons.report import files, summary
from comparisons.running import compare, engine, export, findings, pools, recipe
from comparisons.running.progress import Progress
from comparisons.running.store import FILE, Store, StoreError
from comparisons.study import valid
from comparisons.study.contract import FAILED
from comparisons.study.plan import Cell, MissingExtra, Study

if TYPE_CHECKING:
    from comparisons.report.pictures import Picture

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
)
study_app = typer.Typer(help="Run studies and see what they found.", no_args_is_help=True)
app.add_typer(study_app, name="study")

Results = Annotated[Path, typer.Option(help="Folder of all results; each study has a folder in it, and resumes there.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small version, for a first look.")]
Which = Annotated[
    str | None,
    typer.Argument(
        help="Study, or folder with results; the latest results by default. Reading runs nothing that lies in a folder."
    ),
]
Names = Annotated[str | None, typer.Option(help="Only these, with commas between.")]
RESULTS = Path("results")
INTERRUPTED = 130  # what Typer makes of Ctrl-C


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayes-moe {importlib.metadata.version('bayes-moe')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Mixtures of experts: NUTS posteriors beside maximum likelihood, and how fast each learns."""


@study_app.command("list")
def list_studies() -> None:
    """List the named studies, their regimes and their estimators."""
    for name, make in catalogue.STUDIES.items():
        study = make(False)
        typer.echo(f"{name:<30}{study.title}")
        if study.sizes:
            typer.echo(f"{'':<30}{', '.join(r.name for r in study.regimes)}; {', '.join(study.settings)}")


@study_app.command()
def run(  # noqa: PLR0913 - one for each option
    name: Annotated[
        str, typer.Argument(help="Name of a study, or a Python file with a Study in it, which imports no neighbour.")
    ],
    results: Results = RESULTS,
    quick: Quick = False,
    regimes: Names = None,
    estimators: Names = None,
    sizes: Annotated[str | None, typer.Option(help="Sample sizes, as 1000,1e4.")] = None,
    replicates: Annotated[int | None, typer.Option(min=1, help="Data sets a size.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads or processes; as many as cores by default.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="local for worker processes, or the address of a Dask scheduler; else threads.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds a fit may take on a worker process.")] = None,
    keep_draws: Annotated[bool, typer.Option("--keep-draws", help="Keep every fit's draws as netCDF.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what ended without a result.")] = False,
    edited: Annotated[
        bool, typer.Option("--edited", help="Go on with fits of another text of the study file.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a network scheduler without TLS.")] = False,
) -> None:
    """Run a study, then show its table and figures. Example: bayes-moe study run contaminated-fig1a --quick."""
    began = time.perf_counter()
    if name.endswith(".py") and Path(name).is_file():
        typer.echo(f"Running the Python in {name}, a file of {files.owner(Path(name))}.")
    study = recipe.find(name, quick).study()
    plan = recipe.narrow(
        study,
        regimes=None if regimes is None else _words("regimes", regimes),
        estimators=None if estimators is None else _words("estimators", estimators),
        sizes=None if sizes is None else _sizes(sizes),
        replicates=replicates,
    )
    narrowed = {"--regimes": regimes, "--estimators": estimators, "--sizes": sizes, "--replicates": replicates}
    words = [name, *["--quick"] * quick, *(str(w) for pair in narrowed.items() if pair[1] is not None for w in pair)]
    options = {"scheduler": scheduler, "timeout": timeout, "keep_draws": keep_draws, "insecure": insecure}
    engine.check(scheduler, timeout, insecure)
    if line := pools.caution(scheduler):
        typer.echo(line, err=True)
    folder = results / (f"{study.name}-quick" if quick else study.name)
    rows, found = [], None
    if study.sizes:
        with Store(folder / FILE, study, edited=edited, strict=True) as store:
            store.describe(plan)
            store.keep_command(f"bayes-moe study run {shlex.join(words)}")
            try:
                rows = _fitted(plan, store, retry, workers, options)
            except KeyboardInterrupt:
                with contextlib.suppress(Exception):  # a user's own findings may need all fits
                    findings.keep(study, store)
                raise
            found = findings.keep(study, store)
    planned = set(plan.cells())
    _conclude(study, folder, rows, found, planned >= set(study.cells()))
    typer.echo(f"Done in {time.perf_counter() - began:.0f} s.")
    lost = summary.lost([row for row in rows if Cell.of(row) in planned])
    for line in lost:
        typer.echo(line, err=True)
    if lost:
        raise typer.Exit(1)


def _fitted(plan: Study, store: Store, retry: bool, workers: int | None, options: dict[str, object]) -> summary.Rows:
    """Run the plan, and return all rows of the study's store."""
    for line in (store.notice, store.left_out()):
        if line:
            typer.echo(line, err=True)
    if retry:
        store.forget_failures(plan.cells())
    if options["keep_draws"]:
        finished = {Cell.of(row) for row in store.rows() if row["status"] not in FAILED} & set(plan.cells())
        bare = sum(not engine.draws_path(store, cell).exists() for cell in finished)
        if bare:
            typer.echo(f"{bare} finished fits have no draws; only another --results folder gets them.", err=True)
    with Progress(plan, store) as progress:
        engine.run(plan, store, progress.show, workers, **options)
    return store.rows()


def _conclude(study: Study, folder: Path, rows: summary.Rows, found: tuple[str, Picture] | None, whole: bool) -> None:
    from comparisons.report import figures  # noqa: PLC0415 - matplotlib takes a second to import

    if rows:
        typer.echo("\n" + summary.table(rows, study))
    made = [figures.rate_plot(rows, study, folder / "rates.png")] if len(summary.sizes_of(rows)) > 1 else []
    if found is not None:
        text, drawn = found
        typer.echo("\n" + text)
        made.append(folder / "findings.png")
        figures.save(drawn, made[-1])
    if study.epilogue is not None and whole:
        try:
            text, figure = study.epilogue(folder)
        except KeyboardInterrupt:
            _stop("Stopped; finished fits are kept, the work after them begins anew.")
        typer.echo("\n" + text)
        made.append(figure)
    elif study.epilogue is not None:
        typer.echo("\nThe work after the fits, real data, was left out: it is for the whole plan.")
    typer.echo("\nFigures: " + (", ".join(map(str, made)) or "none; curves of errors need two sizes"))


@study_app.command()
def status(which: Which = None, results: Results = RESULTS) -> None:
    """Say how far a study is. Example: bayes-moe study status contaminated-fig1a."""
    with _opened(which, results) as store:
        study = store.study
        _show(f"{study.title}\n{store.path}\n" + summary.progress(store.rows(), study))


@study_app.command()
def report(
    which: Which = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write to; that of the results by default.")] = None,
    results: Results = RESULTS,
) -> None:
    """Write an HTML report, figures (PNG, SVG) and slopes (CSV). Example: bayes-moe study report contaminated-fig1a."""
    from comparisons.running import page as html  # noqa: PLC0415 - matplotlib takes a second to import

    with _opened(which, results) as store:
        for path in html.write(store.study, store, to):
            _show(path)


@study_app.command("export")
def export_results(
    which: Which = None,
    to: Annotated[
        Path | None, typer.Option(help="A .parquet or .csv file; both, beside the results, by default.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write all rows with their provenance. Example: bayes-moe study export contaminated-fig1a --to fits.parquet."""
    with _opened(which, results) as store:
        beside = [] if to else [files.folder(store.path.parent) / f"fits{suffix}" for suffix in export.SUFFIXES]
        paths = [to] if to else beside
        for path in paths:
            _show(export.write(store.records(), path))


@study_app.command("compare")
def compare_studies(
    first: Annotated[str, typer.Argument(help="Study, or folder with results.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    results: Results = RESULTS,
) -> None:
    """Compare fits and slopes of two results. Example: bayes-moe study compare results/quickstart other/quickstart."""
    with _opened(first, results) as left, _opened(second, results) as right:
        _show(compare.table((left.study, left), (right.study, right)))


def _opened(which: str | None, results: Path) -> Store:
    """Store of a name, a folder or the latest results, to be read as data."""
    store = Store(_locate(which, results), reading=True)
    if line := store.left_out():
        _show(line, err=True)
    return store


def _locate(which: str | None, results: Path) -> Path:
    there = sorted((p for p in results.glob(f"*/{FILE}") if p.is_file()), key=lambda path: path.stat().st_mtime)
    if which is None:
        if not there:
            raise ValueError(f"there are no results in {results}. {_remedy('NAME', results)}")
        return there[-1]
    for folder in (Path(which), results / which, results / f"{which}-quick"):
        if (folder / FILE).is_file():
            return folder / FILE
    recipe.known("study with results", [which], {path.parent.name: None for path in there} | catalogue.STUDIES)
    raise ValueError(f"the study {which} has no results in {results}. {_remedy(which, results)}")


def _remedy(name: str, results: Path) -> str:
    where = "" if results == RESULTS else f" --results {shlex.quote(str(results))}"
    return f"`bayes-moe study run {name}{where}` makes them."


def _words(option: str, text: str) -> list[str]:
    """Words with commas between; at least one."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{option} must name at least one, with commas between; got {text!r}. Leave it out for all.")
    return words


def _sizes(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 2, with commas between; 1e4 is one."""
    out = []
    for word in _words("sizes", text):
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"sizes must be numbers with commas between, as 1000,1e4; got {word!r}.") from None
        if not 2 <= number < 1e10 or number != int(number):
            raise ValueError(f"sizes must be whole numbers from 2 to 1e10, got {word!r}.")
        out.append(int(number))
    return tuple(sorted(set(out)))


def main() -> None:
    """Entry point: a bad argument is one line and exit status 2, a fault while running one line and 1; no traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that has no Greek
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except TyperException as error:
        _say(error.format_message())
        sys.exit(2)
    except (ValueError, MissingExtra) as error:
        _say(str(error))
        sys.exit(2)
    except (StoreError, engine.EngineError) as error:
        _say(str(error))
        _leave(1)
    except OSError as error:
        _say(f"a file or a connection failed: {error}.")
        _leave(1)
    except KeyboardInterrupt:
        _stop("Stopped; finished fits are kept, the same command resumes.")


def _show(text: object, err: bool = False) -> None:
    """Show what came with a folder, its name too: it moves no cursor."""
    typer.echo(valid.shown(str(text)), err=err)


def _say(message: str) -> None:
    if message:  # none where the help was shown instead
        _show(f"bayes-moe: {' '.join(message.split())}", err=True)


def _stop(message: str) -> None:
    typer.echo(f"\n{message}", err=True)
    _leave(INTERRUPTED)


def _leave(code: int) -> None:
    """End now: a thread in the middle of a fit can't be stopped, and its fit would be thrown away."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
