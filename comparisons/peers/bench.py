"""``make bench``: ours beside other software, in one run. Example: python -m comparisons.peers.bench --quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from comparisons.peers import analysis, jobs, kept, plots, tables
from comparisons.peers.plan import PARTS, QUICK, Sizes, plan
from comparisons.report import figures, files


def run(
    results: Annotated[Path, typer.Option(help="Folder for table, figure and log.")] = Path("results/bench"),
    quick: Annotated[bool, typer.Option("--quick", help="A small version, for a first look.")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Paired repeats; 3, or 1 with --quick.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Parts ({', '.join(PARTS)}) or methods ({', '.join(jobs.METHODS)}).")
    ] = None,
) -> None:
    """Measure ours beside other software, then show table and figure. Example: --quick --only posterior --only stan.

    Stopped, the same command goes on where it was.
    """
    parts, methods = choose(only or [])
    planned = plan(QUICK if quick else Sizes(), parts, methods, repeats or (1 if quick else 3))
    log = files.folder(results) / "log.txt"
    with files.whole(log) as part:
        part.write_text("What the measured programs printed.\n")
    folder = results / "jobs"
    outcomes, earlier = [], 0
    with tqdm(planned, unit="job", smoothing=0.05, disable=None) as bar:
        for job in bar:
            bar.set_postfix_str(f"{job.part} {job.method}")
            outcome = kept.recall(job, folder)
            earlier += outcome is not None
            if outcome is None:
                outcome = jobs.execute(job, log)
                kept.keep(outcome, folder)
                tables.write_csv(analysis.rows([*outcomes, outcome]), results / "bench.csv")  # for those who can't wait
            outcomes.append(outcome)
    rows = analysis.rows(outcomes)
    typer.echo("\n" + tables.table(rows))
    if earlier:
        typer.echo(f"\n{earlier} of {len(planned)} jobs were measured before; to measure them again delete {folder}.")
    picture = results / "bench.png"
    figures.save(plots.figure(rows), picture)
    made = [tables.write_csv(rows, results / "bench.csv"), picture, log]
    typer.echo("\nWritten: " + ", ".join(map(str, made)))
    if all(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def choose(only: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split names into parts and methods; ours is always measured.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    names = [name for given in only for name in given.split(",")]
    unknown = [name for name in names if name not in PARTS and name not in jobs.METHODS]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join([*PARTS, *jobs.METHODS])}.")
    parts = tuple(part for part in PARTS if part in names) or PARTS
    wanted = [name for name in names if name in jobs.METHODS] or list(jobs.METHODS)
    return parts, tuple(name for name in jobs.METHODS if name == "ours" or name in wanted)


if __name__ == "__main__":
    typer.run(run)
