"""The store: what it keeps, what it refuses, and what becomes of damaged files, full disks and other writers."""

import contextlib
import json
import os
import resource
import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_study import study as STUDY
from pyarrow import csv

from comparisons.running import export
from comparisons.running.recipe import Recipe
from comparisons.running.store import FILE, Damaged, Store, StoreError, recipe_of
from comparisons.study import plan as study
from comparisons.study.plan import Cell

CELLS = list(STUDY.cells())
ROOT = 0
NOBODY = 65534
PAGE = 4096


def fill(path, study=STUDY):
    with Store(path, study) as store:
        for i, cell in enumerate(CELLS):
            store.write(cell, {"status": "ok", "error": "", "value": i / 3}, {"seconds": 0.5, "host": "x" * 200})
    return path


def values(path):
    with Store(path, STUDY) as store:
        return [row["value"] for row in store.rows()]


def flip(path, where, bit=1):
    content = bytearray(path.read_bytes())
    content[where] ^= bit
    path.write_bytes(content)


@contextlib.contextmanager
def file_limit(size):
    """No file may grow beyond a size: what a full disk does to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def unprivileged():
    """Root may write anything: be nobody for a while."""
    if os.geteuid() != ROOT:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(ROOT)


def test_rows_come_back_in_plan_order_to_the_last_bit(tmp_path):
    path = tmp_path / FILE
    with Store(path, STUDY) as store:
        for i, cell in reversed(list(enumerate(CELLS))):
            store.write(cell, {"status": "ok", "value": i / 3})
    with Store(path, STUDY) as store:
        rows = store.rows()
        assert [(r["n"], r["replicate"], r["value"]) for r in rows] == [
            (c.n, c.replicate, i / 3) for i, c in enumerate(CELLS)
        ]
        assert store.has(CELLS[0])
        assert store.done() == {store.key(cell) for cell in CELLS}


def test_cells_of_other_plans_count_and_those_of_other_settings_do_not(tmp_path):
    path, other = tmp_path / FILE, Cell("only", 500, 7, "quick")
    with Store(path, STUDY) as store:
        store.write(other, {"status": "ok"})
        assert [r["n"] for r in store.rows()] == [500]
    changed = replace(STUDY, settings={**STUDY.settings, "quick": {"seconds": 1.0}})
    with Store(path, changed) as store:
        assert store.rows() == []
        store.write(other, {"status": "ok"})
        assert len(store.done()) == 2
        assert store.left_out().startswith("1 fits in ")


def test_fits_of_another_version_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "NUMERICS", 3)
    fill(tmp_path / FILE)
    monkeypatch.undo()
    with Store(tmp_path / FILE, STUDY, reading=True) as store:
        assert store.rows() == []
        assert store.left_out().startswith(f"{len(CELLS)} fits in ")
        assert f"(numerics 3; this is {study.NUMERICS})" in store.left_out()
    with Store(fill(tmp_path / "new" / FILE), STUDY) as store:
        assert store.left_out() == ""


def test_a_cell_s_identity_holds_model_truth_and_seed():
    regime = STUDY.regimes[0]
    others = [
        replace(STUDY, seed=1),
        replace(STUDY, regimes=(replace(regime, truth=lambda n: regime.truth(n + 1)),)),
        replace(STUDY, settings={**STUDY.settings, "quick": {"seconds": 1.0}}),
    ]
    identities = [json.dumps(s.identity(CELLS[0]), sort_keys=True) for s in (STUDY, *others)]
    assert len(set(identities)) == len(identities)
    bigger = replace(STUDY, replicates={"quick": 99}, sizes={"quick": (50,)})
    assert bigger.identity(CELLS[0]) == STUDY.identity(CELLS[0])


def test_failures_are_forgotten_on_request(tmp_path):
    with Store(tmp_path / FILE, STUDY) as store:
        for cell, status in zip(CELLS, ("ok", "error", "crashed", "timeout", "failed_gate"), strict=False):
            store.write(cell, {"status": status})
        assert store.forget_failures(CELLS[:3]) == 2
        assert [r["status"] for r in store.rows()] == ["ok", "timeout", "failed_gate"]


def test_the_recipe_is_kept(tmp_path):
    recipe = Recipe("fake.py", True, "text")
    fill(tmp_path / FILE, replace(STUDY, recipe=recipe))
    assert Recipe(**recipe_of(tmp_path / FILE)) == recipe


def test_two_texts_of_a_study_file_do_not_mix(tmp_path):
    first, second = (replace(STUDY, recipe=Recipe("fake.py", False, text)) for text in ("one", "two"))
    Store(tmp_path / FILE, first).__exit__()
    Store(tmp_path / FILE, second).__exit__()  # it holds no fits yet
    fill(tmp_path / FILE, second)
    with pytest.raises(ValueError, match="another text of it .*--edited"):
        Store(tmp_path / FILE, first)
    assert recipe_of(tmp_path / FILE)["source"] == "two"
    Store(tmp_path / FILE, first, edited=True).__exit__()
    assert recipe_of(tmp_path / FILE)["source"] == "one"


def test_reading_writes_nothing(tmp_path):
    path = fill(tmp_path / "ended" / FILE, replace(STUDY, recipe=Recipe("fake.py", True, "text")))
    with Store(path, STUDY) as writer:
        writer.write(Cell("only", 90, 0, "quick"), {"status": "ok"})
        shutil.copytree(path.parent, tmp_path / "killed")  # what a driver that is killed leaves
    moved = replace(STUDY, recipe=Recipe("elsewhere/fake.py", True, "text"))
    for folder in (path.parent, tmp_path / "killed"):
        before = {part: part.read_bytes() for part in folder.iterdir() if part.suffix != ".sqlite-shm"}
        with Store(folder / FILE, moved, reading=True) as store:
            assert len(store.rows()) == len(CELLS) + 1
        assert {part: part.read_bytes() for part in folder.iterdir() if part.suffix != ".sqlite-shm"} == before
    assert len(before) == 2


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [1, 99])
def test_other_schemas_are_refused_and_left_alone(tmp_path, schema):
    path = fill(tmp_path / FILE)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema}")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"schema {schema}"):
        Store(path, STUDY)
    assert path.read_bytes() == before


def test_another_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds the study 'fake', not 'other'"):
        Store(fill(tmp_path / FILE), replace(STUDY, name="other"))


def test_another_program_s_file_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ValueError, match="not written by bayes-moe"):
        Store(tmp_path / FILE, STUDY)


# Damage ------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_value_is_found_and_one_row_runs_again(tmp_path):
    path = fill(tmp_path / FILE)
    flip(path, path.read_bytes().index(b'"value": 2.0') + len('"value": '))
    damaged = path.read_bytes()
    with pytest.raises(Damaged, match="checksum"):
        Store(path, STUDY, reading=True)
    with Store(path, STUDY) as store:
        assert len(store.rows()) == len(CELLS) - 1
        assert f"{len(CELLS) - 1} of its rows" in store.notice
    assert (tmp_path / f"{FILE}.damaged-1").read_bytes() == damaged


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path, seed):
    path = fill(tmp_path / FILE)
    whole = values(path)
    size = path.stat().st_size
    flip(path, seed * 7919 % size, 1 << seed % 8)
    try:
        left = values(path)
    except (ValueError, StoreError):  # in the header: schema, owner or kind of file
        return
    assert set(left) <= set(whole)
    assert len(left) == len(whole) or list(tmp_path.glob("*.damaged-1"))


@pytest.mark.parametrize("size", [10, PAGE, PAGE + 100, 3 * PAGE])
def test_a_truncated_file_is_set_aside_and_never_overwritten(tmp_path, size):
    path = fill(tmp_path / FILE)
    for number in (1, 2):
        path.write_bytes(path.read_bytes()[:size])
        with Store(path, STUDY) as store:
            assert f"{FILE}.damaged-{number}" in store.notice
        assert (tmp_path / f"{FILE}.damaged-{number}").stat().st_size == size
        fill(path)
    assert len(values(path)) == len(CELLS)


def test_no_sqlite_file_is_damaged(tmp_path):
    (tmp_path / FILE).write_text("not a database, " * 100)
    with pytest.raises(Damaged, match="is damaged"):
        Store(tmp_path / FILE, STUDY, reading=True)
    with pytest.raises(Damaged, match="is damaged"):
        recipe_of(tmp_path / FILE)


# Disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_named_and_what_was_kept_stays(tmp_path):
    path, written = tmp_path / FILE, 0
    with Store(path, STUDY) as store:
        for cell in CELLS[:3]:
            store.write(cell, {"status": "ok", "value": 0.0})
        size = max(part.stat().st_size for part in tmp_path.iterdir())
        with (
            file_limit(size + 2 * PAGE),
            pytest.raises(StoreError, match=r"results\.sqlite can't be used.*disk is full"),
        ):
            for replicate in range(1000):
                store.write(Cell("only", 90, replicate, "quick"), {"status": "ok", "text": "x" * 500})
                written += 1
    with Store(path, STUDY) as store:
        assert store.notice == ""
        assert len(store.rows()) == 3 + written


def test_a_full_disk_leaves_no_half_export(tmp_path):
    with file_limit(100), pytest.raises(OSError, match="File too large"):
        export.write([{"x": "y" * 1000}], tmp_path / "fits.csv")
    assert not (tmp_path / "fits.csv").exists()


def test_a_read_only_store_is_named():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = fill(folder / FILE)
        path.chmod(0o444)
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(StoreError, match=r"results\.sqlite can't be used"):
            fill(path)
        with unprivileged(), pytest.raises(StoreError, match="can't be kept at .*new"):
            Store(folder / "new" / FILE, STUDY)
        folder.chmod(0o755)


def test_archived_results_are_read_where_nothing_can_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = fill(folder / FILE, replace(STUDY, recipe=Recipe("fake.py", True, "text")))
        path.chmod(0o444)
        folder.chmod(0o555)
        with unprivileged():
            assert recipe_of(path)["name"] == "fake.py"
            with Store(path, STUDY, reading=True) as store:
                assert len(store.rows()) == len(CELLS)
        folder.chmod(0o755)


def test_a_file_without_tables_is_empty_not_damaged(tmp_path):
    (tmp_path / FILE).touch()
    for read in (recipe_of, lambda path: Store(path, STUDY, reading=True)):
        with pytest.raises(ValueError, match="there are no results in .* yet"):
            read(tmp_path / FILE)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="can't be kept at"):
        Store(tmp_path / "results" / FILE, STUDY)


# Export ------------------------------------------------------------------------------------------------------------


def test_exports_hold_every_row_with_its_provenance(tmp_path):
    with Store(fill(tmp_path / FILE), STUDY) as store:
        store.write(Cell("only", 90, 0, "quick"), {"status": "error", "error": "RuntimeError: x", "notes": ["a", "b"]})
        records = store.records()
        tables = [pq.read_table(export.write(records, tmp_path / "fits.parquet"))]
    tables.append(csv.read_csv(export.write(records, tmp_path / "fits.csv")))
    for table in tables:
        rows = table.to_pylist()
        assert [row["id"] for row in rows] == [record["id"] for record in records]
        assert rows[0]["seconds"] == 0.5
        assert rows[-1]["value"] == records[-1]["value"]
        assert sorted(row["notes"] or "" for row in rows)[-1] == "a; b"


def test_a_column_of_several_kinds_is_exported_as_strings(tmp_path):
    path = export.write([{"x": 3.5}, {"x": "none"}, {}], tmp_path / "fits.parquet")
    assert pq.read_table(path).to_pylist() == [{"x": "3.5"}, {"x": "none"}, {"x": None}]


def test_exports_need_a_known_suffix_and_rows(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet or \.csv"):
        export.write([{"x": 1}], tmp_path / "fits.xlsx")
    with pytest.raises(ValueError, match="no results yet"):
        export.write([], tmp_path / "fits.csv")
