"""The folder in which compiled code waits for later processes: this user's alone, or none."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import stat
import warnings
from pathlib import Path

import jaxlib

VARIABLE = "BAYES_MOE_CACHE"
OFF = ("off", "no", "none", "false", "0")
ON = ("", "on", "yes", "true", "1")  # where caches usually are
ELSEWHERE = f"Set {VARIABLE} to a folder that is yours alone, or to off."


def folder() -> Path | None:
    """Return the folder as the environment says, made if need be; None where none is wanted, or none is safe.

    It is named after the processor and the compiler: an executable made for another processor could crash. Losing it
    costs time only. What is in it runs as code, so nobody else may have a hand in it: see :func:`danger`.

    Warns
    -----
    UserWarning
        Where the folder is refused.
    """
    return _folder(*(os.environ.get(name, "").strip() for name in (VARIABLE, "XDG_CACHE_HOME", "HOME")))


@functools.lru_cache(maxsize=8)
def _folder(where: str, xdg: str, home: str) -> Path | None:
    if where.lower() in OFF:
        return None
    try:
        if where.lower() not in ON:
            base = Path(where).expanduser().absolute()
        elif Path(xdg).is_absolute():
            base = Path(xdg) / "bayes-moe"
        else:
            base = Path.home().absolute() / ".cache" / "bayes-moe"
    except RuntimeError:  # neither HOME nor an entry in the list of users; a ~name of nobody
        if where:
            warnings.warn(f"{VARIABLE}={where}: no such home. Compiled code is not kept. {ELSEWHERE}", stacklevel=2)
        return None
    return _made(base / f"xla-{jaxlib.__version__}-{_processor()}")


def _made(path: Path) -> Path | None:
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    try:
        reason = danger(missing[-1].parent if missing else path, final=not missing)
        if not reason:
            for each in reversed(missing):
                os.mkdir(each, 0o700)
            reason = danger(path, final=True)
    except FileExistsError:  # by another process of ours, just now
        reason = danger(path, final=True)
    except OSError:  # a read-only home, or no folder: compile anew each time
        return None
    if reason:
        warnings.warn(f"compiled code is not kept, for it runs as yours and {reason}. {ELSEWHERE}", stacklevel=2)
        return None
    return path


def danger(path: Path, *, final: bool) -> str:
    """Say how others could put code into a folder; nothing if they can't.

    Parameters
    ----------
    path : Path
        Absolute. Each folder on the way, each link and where it leads must be this user's or root's, and not be
        writable for others; those on the way may be as ``/tmp`` is, where nobody can move what is another's.
    final : bool
        Whether it is the cache itself: then it must be a folder that nobody else writes to at all, and so its files.
    """
    if not hasattr(os, "geteuid"):
        return ""  # Windows: the profile is the user's
    real = Path(os.path.realpath(path))
    for each in dict.fromkeys((*reversed(path.parents), path, *reversed(real.parents), real)):
        if reason := _touched(each, sticky=not final or each not in (path, real)):
            return reason
    files = os.listdir(path) if final else ()
    return next(filter(None, (_touched(path / file, sticky=False) for file in files)), "")


def _touched(path: Path, *, sticky: bool) -> str:
    """Say how others have a hand in one folder, file or link."""
    info = os.lstat(path)
    if info.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user"
    if stat.S_ISLNK(info.st_mode):
        return ""  # it is whoever can write to the folder that it lies in who can turn it
    others = info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and not _private(info.st_gid))
    if others and not (sticky and info.st_mode & stat.S_ISVTX):
        return f"others can write to {path} (chmod go-w would end that)"
    return ""


def _private(group: int) -> bool:
    """Whether this user is alone in a group: many systems give each user one of the same name."""
    import grp  # noqa: PLC0415 - not on Windows
    import pwd  # noqa: PLC0415

    try:
        name, found = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}


def _processor() -> str:
    """Short hash of what the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        known = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *known]).encode()).hexdigest()[:12]
