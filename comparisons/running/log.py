"""SQLite's write-ahead log, read by ourselves: SQLite takes a flipped bit for the log's end, without a word.

Everything after the first frame whose checksum fails is then lost, and the next writer makes that final. So the log
is looked at before SQLite is, and what its frames hold can still be put into a copy of the file, one by one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HEADER = struct.Struct(">8I")  # magic, version, page size, sequence, two salts, two checksums
FRAME = struct.Struct(">6I")  # page, pages of the file after a commit or 0, two salts, two checksums
MAGIC = 0x377F0682  # its last bit tells the order of bytes in checksums
PAGE = 4096
LOOKS, PAUSE = 3, 0.15  # a writer may be in the middle of a frame: damage is what stays
WRAP = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """One page in the log.

    Parameters
    ----------
    page : int
        Its number, from one.
    commits : bool
        Whether a transaction ends with it.
    salts : tuple of int
        Those of the log's generation: after a restart older frames stay behind newer ones.
    data : bytes
    whole : bool
        Whether its checksum follows from the frame before.
    """

    page: int
    commits: bool
    salts: tuple[int, int]
    data: bytes
    whole: bool


@dataclass(frozen=True)
class Log:
    """What a log holds.

    Parameters
    ----------
    salts : tuple of int
        Of the present generation.
    frames : tuple of Frame
        In the order of the file, older generations too.
    fault : str
        What is wrong; empty if nothing is.
    """

    salts: tuple[int, int]
    frames: tuple[Frame, ...]
    fault: str

    @property
    def present(self) -> list[Frame]:
        """Frames of the present generation, and those between them."""
        return list(self.frames[: _last(self.frames, self.salts) + 1])


def fault(path: Path) -> str:
    """Say what is wrong with the log at a path; nothing where there is none, or it is whole."""
    seen = ""
    for look in range(LOOKS):
        seen = read(path).fault
        if not seen or look == LOOKS - 1:
            break
        time.sleep(PAUSE)
    return seen


def read(path: Path) -> Log:
    """Read a log, whole or not; an empty one where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if len(content) < HEADER.size:
        return Log((0, 0), (), "")
    magic, _, size, _, *salts, first, second = HEADER.unpack_from(content)
    little = not magic & 1
    sums = checksum(content[: HEADER.size - 8], (0, 0), little)
    sound = magic | 1 == MAGIC | 1 and sums == (first, second)
    size = size if size in {512 * 2**k for k in range(8)} else PAGE
    frames = tuple(_frames(content, size, sums if sound else (first, second), little))
    salts = tuple(salts)
    if not sound and frames and not any(frame.salts == salts for frame in frames):
        salts = frames[0].salts
    return Log(salts, frames, _fault(frames, salts, sound))


def checksum(content: bytes, sums: Sums, little: bool) -> Sums:
    """SQLite's checksum of pairs of words, carried on from what came before."""
    a, b = sums
    words = struct.unpack(f"{'<' if little else '>'}{len(content) // 4}I", content)
    for first, second in zip(words[::2], words[1::2], strict=True):
        a = (a + first + b) & WRAP
        b = (b + second + a) & WRAP
    return a, b


def replay(database: bytes, frames: Iterable[Frame]) -> bytes:
    """Database file with the pages of some frames put in, in their order; what lies absurdly far out is left out."""
    out = bytearray(database)
    frames = list(frames)
    most = len(database) + sum(len(frame.data) for frame in frames)
    for frame in frames:
        start = (frame.page - 1) * len(frame.data)
        if 0 <= start <= most:
            out.extend(bytes(max(0, start + len(frame.data) - len(out))))
            out[start : start + len(frame.data)] = frame.data
    return bytes(out)


def versions(database: bytes, log: Log) -> list[bytes]:
    """Ways to read a damaged pair of file and log, each of which may hold rows that the others lost."""
    present = log.present
    older = sorted((f for f in log.frames if f.salts != log.salts), key=lambda frame: frame.salts[0])
    ways: Sequence[Callable[[], list[Frame]]] = (
        lambda: [],
        lambda: present,
        lambda: [frame for frame in present if frame.whole],
        lambda: [*older, *present] if not database else present,
    )
    return [content for content in dict.fromkeys(replay(database, way()) for way in ways) if content]


def _frames(content: bytes, size: int, sums: Sums, little: bool) -> Iterable[Frame]:
    for start in range(HEADER.size, len(content) - FRAME.size - size + 1, FRAME.size + size):
        page, commit, *salts, first, second = FRAME.unpack_from(content, start)
        data = content[start + FRAME.size : start + FRAME.size + size]
        found = checksum(content[start : start + 8] + data, sums, little)
        sums = first, second  # so that each frame is judged by itself
        yield Frame(page, commit != 0, tuple(salts), data, found == sums and page > 0)


def _last(frames: Sequence[Frame], salts: tuple[int, int]) -> int:
    return max((place for place, frame in enumerate(frames) if frame.salts == salts), default=-1)


def _fault(frames: Sequence[Frame], salts: tuple[int, int], sound: bool) -> str:
    """What is wrong: a frame before the last one, or a commit, that is not whole. An unfinished transaction is not."""
    if not sound and frames:
        return "its first bytes do not match their checksum"
    last = _last(frames, salts)
    for place, frame in enumerate(frames[: last + 2]):
        ours = sum(a == b for a, b in zip(frame.salts, salts, strict=True))
        ends = place < last or (place == last and frame.commits)
        if (ours == 2 and not frame.whole and ends) or (ours < 2 and place < last) or (ours == 1 and place == last + 1):
            return f"frame {place + 1} of {len(frames)} does not match its checksum"
    return ""
