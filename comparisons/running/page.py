"""The report of a study: one HTML file that needs nothing else, figures as PNG and SVG, slopes as CSV."""

from __future__ import annotations

import base64
import io
import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from comparisons.gaussian import voronoi_figure as cell_figure
from comparisons.gaussian import voronoi_rates as cell_rates
from comparisons.report import coverage, figures, files, optimisation, rates, summary
from comparisons.report.slopes import NOT_COVERED
from comparisons.running import export
from comparisons.running.store import Store
from comparisons.study import valid
from comparisons.study.contract import FAILED
from comparisons.study.plan import Regime, Study

Table = list[list[str]]
CAPTIONS = {
    "findings": "What this study asks beside errors by sample size; the numbers are in the tables above.",
    "cells": "Slopes of mean errors by the number of fitted atoms in a true atom's Voronoi cell. Grey: the theorem's, "
    "an upper bound on errors in the worst case.",
    "rates": "Error against sample size for each regime (rows) and parameter (columns), on logarithmic axes. "
    "Lines: estimators, with 95% bootstrap bands. Dashed: what an estimator attaining the Cramér–Rao bound would show. "
    "Grey: the theorem's slope. Shaded: the asymptotic window.",
    "contraction": "How far the posterior is from the truth: error of its mean, expected error of a draw, and the "
    "error that 95% of its draws stay below; medians over data sets.",
    "efficiency": "Root mean square error over the Cramér–Rao bound, by sample size: in the asymptotic window (shaded) "
    "an efficient estimator has one. A posterior mean may have less, because its prior knows something.",
    "coverage": "Share of 95% intervals that hold the truth, by sample size; credible intervals of the posterior, "
    "Wald and profile-likelihood intervals of the MLE.",
}
SLOPE_HEADS = ["", "parameter", "estimate", "n", "data sets", "slope [95%]", "theorem", "p", "bound", "p", "over bound"]
EFFICIENCY_HEADS = ["", "estimate", "parameter", "n", "data sets", "error over bound [95%]", "in the window"]
OPTIMISATION_HEADS = ["", "n", "data sets", "missed the maximum", "found a higher one", "below the truth"]
CELL_HEADS = ["", "atoms in the cell", "parameter", "slope of the mean error [95%]", "theory", "corrected"]
CELL_HEADS += ["n", "cells at a size"]
NAMES = {"median": "median", "mean": "mean", "rmse": "root mean square"}
MESSAGE = 1000  # letters of an error message
MESSAGES = 10  # distinct error messages shown


@np.errstate(over="ignore", invalid="ignore")  # an error may be so large that its square is infinite
def write(study: Study, store: Store, folder: Path | None = None) -> list[Path]:
    """Write the report of a study.

    Parameters
    ----------
    study : Study
    store : Store
    folder : Path, optional
        Made if it does not exist; that of the results by default.

    Returns
    -------
    list of Path
        The HTML file first.

    Raises
    ------
    ValueError
        If there are no results yet.
    """
    records = store.records()
    if all(r["status"] in FAILED for r in records):
        raise ValueError(f"{store.path} holds no fit with a result yet.")
    folder = files.folder(folder or store.path.parent)
    slopes = summary.slopes(records, study)
    efficiency = summary.efficiency(records, study)
    text, drawn_findings = study.findings(records) if study.findings is not None else ("", None)
    cells = cell_rates.records(records, study)
    drawn = {"findings": drawn_findings, "cells": cell_figure.figure(cells)} | draw(records, study, efficiency)
    drawn = {name: figure for name, figure in drawn.items() if figure is not None}
    paths = []
    for name, figure in drawn.items():
        paths += [folder / f"{name}.png", folder / f"{name}.svg"]
        figures.save(figure, *paths[-2:])
    found = {"slopes.csv": slopes, "efficiency.csv": efficiency, "cells.csv": cells}
    made = {"study": study.name, "commit": ", ".join(dict.fromkeys(str(r.get("commit", "unknown")) for r in records))}
    tables = [export.write([made | r for r in table], folder / name) for name, table in found.items() if table]
    page = folder / "report.html"
    html = render(study, records, slopes, efficiency, cells, drawn, store.path.parent, text, store.commands())
    with files.whole(page) as part:
        part.write_text(html, encoding="utf-8")
    return [page, *tables, *paths]


def draw(rows: summary.Rows, study: Study, efficiency: Sequence[dict]) -> dict[str, Figure | None]:
    """Return the figures by name."""
    several = len(summary.sizes_of(rows)) > 1
    return {
        "rates": figures.rates_figure(rows, study) if several and any(r.exponents for r in study.regimes) else None,
        "contraction": figures.contraction_figure(rows, study),
        "efficiency": figures.efficiency_figure(efficiency, study),
        "coverage": figures.coverage_figure(rows, study),
    }


def render(  # noqa: PLR0913 - one for each section
    study: Study,
    records: summary.Rows,
    slopes: Sequence[dict],
    efficiency: Sequence[dict],
    cells: Sequence[dict],
    drawn: dict[str, Figure],
    folder: Path,
    findings: str = "",
    commands: Sequence[str] = (),
) -> str:
    """Return the report as HTML, everything in it."""
    loader = jinja2.PackageLoader("comparisons.running", ".")
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True}
    template = jinja2.Environment(loader=loader, **options).get_template("report.html.j2")
    sections = _findings(study, records) | _account(study, records, commands)
    return template.render(
        study=study,
        count=len(records),
        finished=max(str(r.get("finished", "")) for r in records) or "unknown",
        slope_tables=_slope_tables(slopes),
        efficiency_heads=EFFICIENCY_HEADS,
        efficiency=_efficiency([r for r in efficiency if r["statistic"] == "rmse"]),
        cell_heads=CELL_HEADS,
        cells=[_cell(r) for r in cells],
        figures=[(CAPTIONS[name], _embed(figure)) for name, figure in drawn.items()],
        folder=shlex.quote(str(folder)),
        findings=findings,
        **sections,
    )


def _findings(study: Study, records: summary.Rows) -> dict[str, object]:
    """Return what was found, section by section."""
    ran = [regime for regime in study.regimes if summary.sizes_of(records, regime)]
    sizes = summary.sizes_of(records)
    optimisation_heads, optimisation_lines = _optimisation(records, ran)
    return {
        "pairs": _pairs(records, study, ran),
        "window_rule": f"{rates.WINDOW:.0%}",
        "window_heads": ["", *(f"n = {n:,}" for n in sizes), "window from"],
        "windows": [_window(regime, sizes) for regime in ran if regime.scales],
        "optimisation_heads": optimisation_heads,
        "optimisation": optimisation_lines,
        "coverages": [line for regime in ran for line in _coverages(records, regime)],
        "failures": _failures(records, study.regimes),
        "messages": list(dict.fromkeys(_message(r["error"]) for r in records if r.get("error")))[:MESSAGES],
    }


def _message(error: str) -> str:
    return valid.shown(textwrap.shorten(error, MESSAGE, placeholder=" ..."))


def _account(study: Study, records: summary.Rows, commands: Sequence[str]) -> dict[str, object]:
    """Return what was assumed, and how to do it again."""
    recipe = study.recipe
    whole = f"{recipe.name}{' --quick' if recipe.quick else ''}" if recipe else study.name
    return {
        "settings": _settings(records, study),
        "assumptions": list(dict.fromkeys(line for regime in study.regimes for line in regime.assumptions)),
        "commands": commands or [f"bayes-moe study run {whole}"],
        "provenance": _provenance(records),
    }


def _slope_tables(slopes: Sequence[dict]) -> list[tuple[str, list[str], Table]]:
    """Split the slopes into tables: medians over all sizes first."""
    order = [(s, r) for r in ("all", "window") for s in ("median", "rmse", "mean")]
    where = {"all": "every size", "window": "the asymptotic window"}
    gates = {"all": "", "passed": ", posteriors that passed the sampling gate"}
    out = []
    for gate, words in gates.items():
        for statistic, part in order:
            wanted = (gate, statistic, part)
            lines = [_slope_line(r) for r in slopes if (r["gate"], r["statistic"], r["range"]) == wanted]
            if lines:
                out.append((f"Slopes of the {NAMES[statistic]} error over {where[part]}{words}", SLOPE_HEADS, lines))
    return out


def _slope_line(r: dict) -> list[str]:
    sizes = f"{r['n_min']:,} to {r['n_max']:,}"
    found = rates.Slope(r["slope"], r["low"], r["high"])
    line = [r["regime"], r["parameter"], r["estimate"], sizes, str(r["replicates"]), str(found)]
    line += [f"{r['theory']:+.3f}", _p_value(r["p_theory"])]
    return line + (
        [f"{r['bound']:+.2f}", _p_value(r["p_bound"]), f"{r['over_bound']:.2f}"] if "bound" in r else ["", "", ""]
    )


def _ends(r: dict) -> str:
    return f"{r['low']:.2f}, {r['high']:.2f}" if np.isfinite([r["low"], r["high"]]).all() else NOT_COVERED


def _p_value(value: float) -> str:
    """To read; nothing where the slope has no interval."""
    return "" if np.isnan(value) else f"{value:.2g}"


def _pairs(rows: summary.Rows, study: Study, ran: Sequence[Regime]) -> Table:
    """Differences of slopes between the MLE and the posterior mean, on the data sets that both saw."""
    out = []
    for regime in ran:
        for parameter in regime.exponents:
            found = {c.label: c for c in summary.curves(rows, study, regime, parameter)}
            for first in ("MLE", "MLE, near start"):
                if first in found and "posterior mean" in found:
                    difference = summary.paired(found[first], found["posterior mean"])
                    title = f"{regime.name}, {summary.SYMBOLS.get(parameter, parameter)}"
                    out += [[title, first, "posterior mean", str(difference)]] if difference else []
    return out


def _window(regime: Regime, sizes: Sequence[int]) -> list[str]:
    inside = rates.window(regime, sizes)
    cells = [" / ".join(f"{v:.2f}" for v in rates.relative_bound(regime, n).values()) for n in sizes]
    title = f"{regime.name} ({', '.join(summary.SYMBOLS.get(p, p) for p in regime.moe.fields)})"
    return [title, *cells, f"{inside[0]:,}" if inside else "not reached"]


def _efficiency(records: Sequence[dict]) -> Table:
    return [
        [r["regime"], r["estimate"], r["parameter"], f"{r['n']:,}", str(r["replicates"])]
        + [f"{r['over_bound']:.2f} [{_ends(r)}]", "yes" if r["window"] else ""]
        for r in records
    ]


def _cell(r: dict) -> list[str]:
    """Line of the table of slopes by the number of atoms in a Voronoi cell, for studies of mixing measures."""
    found = rates.Slope(r["slope"], r["low"], r["high"])
    return [
        *(f"{r['regime']}, {r['estimate']}", str(r["atoms"]), r["parameter"], str(found)),
        *(f"{r['theory']:+.3f}", f"{r['corrected']:+.3f}", f"{r['n_min']:,} to {r['n_max']:,}"),
        f"{r['fewest']} to {r['most']}",
    ]


def _optimisation(rows: summary.Rows, ran: Sequence[Regime]) -> tuple[list[str], Table]:
    """Heads and lines of the optimisation error; regimes may have other parameters than each other."""
    names = list(dict.fromkeys(name for regime in ran for name in regime.moe.fields))
    heads = [*OPTIMISATION_HEADS, *(f"mean change of error, {summary.SYMBOLS.get(name, name)}" for name in names)]
    lines = [
        [regime.name, f"{o.n:,}", str(o.count), *(f"{v:.1%}" for v in (o.missed, o.won, o.below_truth))]
        + [f"{o.error[name]:.2g}" if name in o.error else "" for name in names]
        for regime in ran
        for o in optimisation.summarise(rows, regime)
    ]
    return heads, lines


def _coverages(rows: summary.Rows, regime: Regime) -> Table:
    return [
        [f"{regime.name}, {c.kind}", c.parameter, f"{c.n:,}", f"{c.value:.3f} [{c.low:.3f}, {c.high:.3f}]"]
        + ["" if c.width != c.width else f"{c.width:.3g}", str(c.count), str(c.missing)]
        for c in coverage.summarise(rows, regime)
    ]


def _failures(rows: summary.Rows, ran: Sequence[Regime]) -> Table:
    out = []
    for regime in ran:
        for estimator, n in sorted({(str(r["estimator"]), int(r["n"])) for r in rows if r["regime"] == regime.name}):
            mine = [r for r in rows if (r["regime"], r["estimator"], r["n"]) == (regime.name, estimator, n)]
            counts = Counter(str(r["status"]) for r in mine)
            counts["at a bound"] = sum(bool(r.get("at_bounds")) for r in mine)
            counts["climbed the ladder"] = sum(r.get("attempt", 0) > 0 for r in mine)
            rest = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok" and count)
            out.append([regime.name, estimator, f"{n:,}", str(len(mine)), str(counts["ok"]), rest])
    return out


def _settings(rows: summary.Rows, study: Study) -> Table:
    out = []
    for name, settings in study.settings.items():
        mine = Counter(int(r["n"]) for r in rows if r["estimator"] == name and r["regime"] == rows[0]["regime"])
        said = ", ".join(f"{key} = {value}" for key, value in settings.items())
        counts = ", ".join(f"{n:,}: {count}" for n, count in sorted(mine.items()))
        out.append([name, said, counts])
    return out


def _provenance(rows: summary.Rows) -> Table:
    versions = dict.fromkeys(name for row in rows for name in row if name.startswith("version_"))
    names = [*versions, "commit", "dirty", "system", "machine", "device"]
    out = []
    for name in names:
        values = dict.fromkeys(str(r[name]) for r in rows if name in r)
        out.append([name.removeprefix("version_"), ", ".join(values)])
    hours = sum(float(r.get("seconds", 0.0)) for r in rows) / 3600
    return [*out, ["hours of fitting", f"{hours:.2f}"]]


def _embed(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()
