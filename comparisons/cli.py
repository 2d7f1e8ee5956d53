"""The ``bayes-moe`` command."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from comparisons import catalogue, engine, figures, recipe, report
from comparisons.store import Store
from comparisons.study import Cell, Study

app = typer.Typer(
    help="Mixtures of experts: NUTS posteriors beside maximum likelihood, and how fast each learns.",
    no_args_is_help=True,
    add_completion=False,
)
study_app = typer.Typer(help="Run studies and see what they found.", no_args_is_help=True)
app.add_typer(study_app, name="study")

Results = Annotated[Path, typer.Option(help="Folder for the results; a study resumes where it stopped.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small version, for a first look.")]


@study_app.command("list")
def list_studies() -> None:
    """List the named studies."""
    for name, make in catalogue.STUDIES.items():
        typer.echo(f"{name:<14}{make(False).title}")


@study_app.command()
def run(
    name: Annotated[str, typer.Argument(help="Name of the study, for example quickstart.")],
    results: Results = Path("results"),
    quick: Quick = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; as many as cores by default.")] = None,
) -> None:
    """Run a study, then show its table and figure. Example: bayes-moe study run quickstart --quick."""
    began = time.perf_counter()
    study = recipe.find(name, quick).study()
    folder = results / (f"{name}-quick" if quick else name)
    with Store(folder / "results.sqlite", study) as store:
        _run_cells(study, store, workers)
        rows = store.rows()
    typer.echo("\n" + report.table(rows, study))
    made = [figures.rate_plot(rows, study, folder / "rates.png")]
    if study.epilogue is not None:
        text, figure = study.epilogue(folder)
        typer.echo("\n" + text)
        made.append(figure)
    typer.echo("\nFigures: " + ", ".join(map(str, made)))
    typer.echo(f"Done in {time.perf_counter() - began:.0f} s.")
    if all(row["status"] == "error" for row in rows):
        raise typer.Exit(1)


def _run_cells(study: Study, store: Store, workers: int | None) -> None:
    total, done = sum(1 for _ in study.cells()), len(store.rows())
    typer.echo(f"{study.name}: {total} fits" + (f", {done} of them finished before" if done else ""))
    with tqdm(total=total, initial=done, unit="fit", smoothing=0.05, disable=None) as bar:

        def show(cell: Cell, row: dict) -> None:
            bar.update()
            if row["status"] == "error":
                bar.write(f"{cell}: {row['error']}")

        engine.run(study, store, show, workers)


def main() -> None:
    """Entry point: a bad argument is one line and exit status 2, no traceback."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"bayes-moe: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("\nStopped; finished fits are kept, the same command resumes.", err=True)
        sys.exit(130)
