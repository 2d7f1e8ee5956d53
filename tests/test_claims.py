"""What README and findings say is what the tables beside them say, and every section names the command that says it."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from comparisons import catalogue

ROOT = Path(__file__).parents[1]
FINDINGS, README = ((ROOT / name).read_text() for name in ("docs/findings.md", "README.md"))
SLOPES, CELLS = (pd.read_csv(ROOT / "docs" / name) for name in ("slopes.csv", "cells.csv"))
ROUNDED = 0.00501  # of what has two decimals, made from four
GATES = {"0": "flat", "(0.7, −0.7)": "sloped"}
NUMBER = r"[−-]?\d+(?:\.\d+)?(?:/\d+)?"


def numbers(text):
    """All numbers of a cell; the findings have minus signs of both kinds, and fractions."""
    found = [word.replace("−", "-").split("/") for word in re.findall(NUMBER, text.replace(",", ""))]
    return [float(top) / float(*(bottom or [1])) for top, *bottom in found]


def rows_of(text, start):
    """Cells of the table rows that begin with ``start``."""
    lines = re.findall(rf"^\| (?:{start}).*$", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def window(estimate):
    """Slopes of medians over the asymptotic window."""
    return SLOPES.query("statistic == 'median' and range == 'window' and estimate == @estimate")


def held(estimate):
    """Of how many intervals the bound's slope lies in how many."""
    slopes = window(estimate)
    return int(slopes.bound.between(slopes.low, slopes.high).sum()), len(slopes)


# The table of slopes -----------------------------------------------------------------------------------------------

TABLE = rows_of(FINDINGS, r"\d[ab]?, ")


def gaps(row):
    """Differences between a line of the findings' table and the slopes beside it."""
    title, gate, first, *cells = row
    slopes = window("MLE, near start")
    slopes = slopes[(slopes.study == f"contaminated-fig{title.split(',')[0]}") & (slopes.regime == GATES[gate])]
    assert numbers(first) == slopes.n_min.unique().tolist()
    for parameter, cell in zip(("e^tau", "beta", "eta"), cells, strict=True):
        one = slopes[slopes.parameter == parameter].iloc[0]
        for said, name in zip(numbers(cell), ("slope", "low", "high", "bound", "theory"), strict=True):
            yield abs(said - one[name])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_of_slopes_is_that_of_the_file(row):
    assert max(gaps(row)) < ROUNDED


def test_there_are_ten_lines_and_another_number_would_show():
    assert len(TABLE) == 10
    assert max(gaps([*TABLE[0][:3], TABLE[0][3].replace("−0.40", "−0.42"), *TABLE[0][4:]])) > ROUNDED


# Counts in words ---------------------------------------------------------------------------------------------------

COUNTS = {
    "near the truth": (r"bound's slope lies in (\d+) of the (\d+)", "MLE, near start"),
    "random starts": (r"intervals of (\d+) of (\d+) slopes of the median hold the bound's", "MLE"),
    "posterior means": (r"intervals hold the bound's slope in (\d+) of (\d+)", "posterior mean"),
}


@pytest.mark.parametrize(("pattern", "estimate"), COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("text", [FINDINGS, README], ids=["findings", "README"])
def test_counts_are_those_of_the_file(text, pattern, estimate):
    said = re.findall(pattern, re.sub(r"\s+", " ", text))
    assert said or text is README
    assert {tuple(map(int, one)) for one in said} <= {held(estimate)}


def test_the_slow_parameter_is_as_slow_as_the_readme_says():
    """Both intervals at beta* = 0 in the order 1a, 1b, and which of them hold -1/2 too."""
    slopes = window("MLE, near start")
    slow = slopes[(slopes.theory == -0.25) & (slopes.regime == "flat")].sort_values("study")
    for text in (README, FINDINGS):
        sentence = re.search(r"The slow parameter.*?one half too", re.sub(r"\s+", " ", text)).group()
        said = numbers(re.sub(r"1[ab]|95%|β\\?\* = 0", "", sentence))
        wanted = [one[name] for _, one in slow.iterrows() for name in ("slope", "low", "high")]
        assert said == pytest.approx(wanted, abs=ROUNDED)
    assert slow.low.lt(-0.5).tolist() == [True, False]


# Slopes by Voronoi cell --------------------------------------------------------------------------------------------

ATOMS = {"one (K = 4)": ("k4", 1), "two (K = 4)": ("k4", 2), "two (K = 5)": ("k5", 2), "three (K = 5)": ("k5", 3)}
NAMES = ("c", "Gamma", "a", "b", "nu")


def cell_of(model, atoms, parameter):
    regime, count = ATOMS[atoms]
    names = (parameter, f"{parameter}, c0 != 0")
    found = CELLS[
        (CELLS.study == f"gaussian-gated-{model.lower()}") & (CELLS.regime == regime) & (CELLS.atoms == count)
    ]
    return found[found.parameter.isin(names)].iloc[0]


def test_slopes_by_cell_are_those_of_the_file():
    rows = rows_of(FINDINGS, r"M\d")
    assert len(rows) == 7
    for models, atoms, *cells in rows:
        for parameter, cell in zip(NAMES, cells, strict=True):
            found = [cell_of(model, atoms, parameter) for model in models.split(" / ")]
            wanted = [one.slope for one in found] if len(found) > 1 else [*found[0][["slope", "low", "high"]]]
            assert numbers(cell) == pytest.approx(wanted, abs=ROUNDED), (models, atoms, parameter)


# Commands ----------------------------------------------------------------------------------------------------------

STUDY = re.compile(r"bayes-moe study run ([^`#\n]+)")
ANY = re.compile(r"`(?:bayes-moe study |make |python -m |pytest )")


def commands(text):
    return [shlex.split(one) for one in STUDY.findall(text)]


@pytest.mark.parametrize("text", [FINDINGS, README], ids=["findings", "README"])
def test_commands_are_of_studies_and_estimators_that_exist(text):
    found = [words for words in commands(text) if not words[0].endswith(".py")]
    assert found
    for name, *options in found:
        assert name in catalogue.STUDIES, name
        given = dict(zip(options, options[1:], strict=False))
        estimators = given.get("--estimators", "").split(",")
        assert set(filter(None, estimators)) <= set(catalogue.STUDIES[name](False).sizes), (name, estimators)


def test_every_section_with_figures_names_its_command():
    sections = re.split(r"^#+ ", FINDINGS, flags=re.MULTILINE)[2:]
    assert len(sections) == 7
    for section in sections:
        assert ANY.search(section), section.splitlines()[0]


# Digits ------------------------------------------------------------------------------------------------------------


def test_readme_and_findings_say_the_same_of_the_digits():
    row = next(cells for cells in rows_of(FINDINGS, "posterior, linear"))
    text = re.sub(r"\s+", " ", README)
    accuracy, gain = re.search(r"best mean accuracy \((.*?)\).*?chance \((.*?)\)", text).groups()
    assert row[2].split(" +- ")[0] == accuracy
    assert row[3] == gain.replace("±", "+-")
    low, high = (numbers(row[3])[0] + sign * numbers(row[3])[1] for sign in (-1, 1))
    assert low < 0 < high  # "may be chance"
