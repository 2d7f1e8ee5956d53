"""Files are written whole or not at all, under fresh names, and never through a link: a folder may come from anyone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a fresh file beside a path to write in, and put it in the path's place once it is whole.

    What was there before is replaced, not written into: a link's target stays as it is. After an error nothing is left.

    Parameters
    ----------
    path : Path
        In a folder that exists; the fresh name has its suffix.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    os.close(os.open(part, FRESH, 0o666))
    try:
        yield part
        _flush(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def folder(path: Path) -> Path:
    """Make a folder to write in, if it is not there; refuse a link in its place, which may lead anywhere.

    Raises
    ------
    ValueError
        For a link.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, to {os.readlink(path)}. Nothing is written through it: give that folder.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def plain(path: Path) -> bool:
    """Whether there is a file at a path; false for nothing.

    Raises
    ------
    ValueError
        For a link, a folder, a pipe or whatever else is no plain file.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(kind):
        what = "a link" if stat.S_ISLNK(kind) else "no plain file"
        raise ValueError(f"{path} is {what}, where a file of results belongs. Remove it, or use another folder.")
    return True


def owner(path: Path) -> str:
    """Name of the user whose file it is."""
    try:
        return path.owner()
    except (KeyError, OSError):  # a user without an entry
        return "a user without a name"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
