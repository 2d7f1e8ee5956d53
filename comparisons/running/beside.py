"""What a results file keeps beside its fits: the commands that made them, and what reading them needs."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from comparisons.report import pictures
from comparisons.report.pictures import Picture
from comparisons.running import described, description, opening
from comparisons.running.described import Described, Found
from comparisons.running.opening import META, named, valid_part
from comparisons.study import valid
from comparisons.study.plan import Regime, Study
from comparisons.study.valid import Invalid

DESCRIPTION, AT_SIZE, COMMAND, FINDINGS = "description", "size ", "command ", "findings"  # how keys begin
RUN = "bayes-moe study run "
LONGEST = 2**20  # letters of findings


def keep_command(connection: sqlite3.Connection, command: str) -> None:
    """Keep a command, once, as its words: what is shown of it later is a ``bayes-moe study run`` and nothing else."""
    text = json.dumps({"words": shlex.split(command.removeprefix(RUN))})
    opening.keep(connection, COMMAND + text, text, "IGNORE")


def commands(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Return the commands, in their order."""
    kept = [value for key, value in entries(connection, path).items() if key.startswith(COMMAND)]
    with valid_part(path, "a command"):
        words = [valid.several(valid.parsed(text, "it").get("words"), "it", _word) for text in kept]
    return [RUN + shlex.join(part) for part in words]


def keep_description(
    connection: sqlite3.Connection, path: Path, study: Study, sizes: Iterable[tuple[str, int]]
) -> None:
    """Keep a study as data, and its regimes at some sizes, each a regime's name and n.

    Raises
    ------
    ValueError
        If the study holds what can't be described.
    """
    about = json.dumps(description.describe(study))
    at = {
        f"{AT_SIZE}{n} {name}": json.dumps({"regime": name, "n": n, **description.describe_at(study.regime(name), n)})
        for name, n in sizes
    }
    try:
        described.read(json.loads(about), [json.loads(text) for text in at.values()])
    except Invalid as error:
        raise ValueError(f"the study {study.name!r} can't be described beside its results: {error}.") from None
    with named(path):
        for key, text in ({DESCRIPTION: about} | at).items():
            opening.keep(connection, key, text)
    _forget_stale(connection, path, {regime.name: regime for regime in study.regimes})


def keep_findings(connection: sqlite3.Connection, text: str, picture: Picture, fits: int) -> None:
    """Keep a study's own findings, and of how many fits they are."""
    found = {"text": text, "fits": fits, "figure": pictures.written(picture)}
    opening.keep(connection, FINDINGS, json.dumps(found))


def study_of(connection: sqlite3.Connection, path: Path) -> Described:
    """Return the study as the file describes it.

    Raises
    ------
    ValueError
        If it does not, or its description is none.
    """
    kept = entries(connection, path)
    if DESCRIPTION not in kept:
        raise ValueError(f"{path} does not say how its study is made. `bayes-moe study run` there mends it.")
    with valid_part(path, "its description"):
        about = valid.parsed(kept[DESCRIPTION], "it")
        sizes = [valid.parsed(value, key) for key, value in kept.items() if key.startswith(AT_SIZE)]
        study = described.read(about, sizes, _found(kept))
        if study.name != kept.get("study"):
            raise Invalid("its name must be that of the study")
    return study


def entries(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Everything that is kept beside the fits, in its order."""
    with named(path):
        return {key: value for key, value, _ in connection.execute(META)}


def _forget_stale(connection: sqlite3.Connection, path: Path, regimes: Mapping[str, Regime]) -> None:
    """Forget what regimes said at sizes where they say something else by now: fits of that are left out."""
    for key, text in entries(connection, path).items():
        if key.startswith(AT_SIZE):
            one = json.loads(text)
            mine = regimes.get(one["regime"])
            if mine is None or json.loads(json.dumps(mine.fingerprint(one["n"]))) != one["fingerprint"]:
                with named(path):
                    connection.execute("DELETE FROM meta WHERE key = ?", (key,))


def _found(kept: Mapping[str, str]) -> Found | None:
    """A study's own findings, as they were kept."""
    if FINDINGS not in kept:
        return None
    about = valid.parsed(kept[FINDINGS], "its findings")
    text = valid.text(about.get("text"), "its findings", longest=LONGEST, lines=True)
    return Found(valid.shown(text), pictures.read(about.get("figure")), valid.whole(about.get("fits"), "fits"))


def _word(value: object, what: str) -> str:
    return valid.text(value, what, longest=opening.WORD)
