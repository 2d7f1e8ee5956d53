"""The commit in a row's provenance is this project's own, or none."""

import shutil
import subprocess

import pytest

from comparisons.running import cell


def git(folder, *words):
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *options, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def copied(where, *, tracked, name="bayes-moe"):
    """Copy of the one file, with a project file; in the index of the enclosing repository or not."""
    (where / "comparisons" / "running").mkdir(parents=True)
    shutil.copy(cell.__file__, where / "comparisons" / "running" / "cell.py")
    (where / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    top = next(folder for folder in (where, *where.parents) if (folder / ".git").exists())
    (top / "theirs").write_text("theirs")
    git(top, "add", *([where] if tracked else []), "theirs")
    git(top, "commit", "-qm", "theirs")
    return git(top, "rev-parse", "HEAD")


def commit_at(where, monkeypatch):
    monkeypatch.setattr(cell, "__file__", str(where / "comparisons" / "running" / "cell.py"))
    return cell._commit()


@pytest.fixture
def theirs(tmp_path):
    git(tmp_path, "init", "-q")
    return tmp_path


@pytest.mark.parametrize("place", ["", "vendor", ".venv/lib/python3/site-packages"])
@pytest.mark.parametrize("tracked", [False, True])
def test_another_project_s_commit_is_never_taken(theirs, place, tracked, monkeypatch):
    name = "theirs" if not place else "bayes-moe"
    copied(theirs / place, tracked=tracked, name=name)
    assert commit_at(theirs / place, monkeypatch) == ("", None)


def test_a_copy_that_nobody_tracks_has_no_commit(theirs, monkeypatch):
    copied(theirs, tracked=False)
    assert commit_at(theirs, monkeypatch) == ("", None)


def test_our_own_tree_has_its_commit_and_knows_that_it_was_edited(theirs, monkeypatch):
    head = copied(theirs, tracked=True)
    assert commit_at(theirs, monkeypatch) == (head, False)
    (theirs / "theirs").write_text("edited")
    assert commit_at(theirs, monkeypatch) == (head, True)


def test_a_hook_of_another_repository_changes_nothing(theirs, tmp_path_factory, monkeypatch):
    head = copied(theirs, tracked=True)
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    git(other, "commit", "-qm", "other", "--allow-empty")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit_at(theirs, monkeypatch)[0] == head


def test_without_git_there_is_none(theirs, monkeypatch):
    copied(theirs, tracked=True)
    monkeypatch.setenv("PATH", "")
    assert commit_at(theirs, monkeypatch) == ("", None)
