"""A key and a certificate for one run: whoever lacks them can't speak to its workers.

Neither Python nor Dask makes keys without another package. So these few lines do: an elliptic-curve key (P-256) and a
certificate that it signs itself (RFC 5280, FIPS 186-5). They live in memory, are never written, and end with the run.
Their arithmetic takes a time that depends on the key, which matters only to who can measure one signature, made once.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time

P = 2**256 - 2**224 + 2**192 + 2**96 - 1  # the field of the curve y^2 = x^3 - 3 x + b
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
CURVE, PUBLIC_KEY, SIGNED = "1.2.840.10045.3.1.7", "1.2.840.10045.2.1", "1.2.840.10045.4.3.2"
COMMON_NAME, BASIC, USAGE, SUBJECT, AUTHORITY = "2.5.4.3", "2.5.29.19", "2.5.29.15", "2.5.29.14", "2.5.29.35"
NAME = "bayes-moe study run"
DAYS = 400  # longer than any run
INTEGER, BITS, OCTETS, OBJECT, TEXT, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31

Point = tuple[int, int] | None  # None: the point at infinity


def make() -> tuple[str, str]:
    """Make a certificate and its private key, both PEM."""
    private = 1 + secrets.randbelow(ORDER - 1)
    public = b"\x04" + b"".join(_word(value) for value in times(private, BASE))
    body = _certificate(public)
    algorithm = _seq(_object(SIGNED))
    certificate = _seq(body, algorithm, _bits(sign(private, body)))
    key = _seq(_integer(1), _tag(OCTETS, _word(private)), _tag(0xA0, _object(CURVE)), _tag(0xA1, _bits(public)))
    return _pem("CERTIFICATE", certificate), _pem("EC PRIVATE KEY", key)


def add(a: Point, b: Point) -> Point:
    """Sum of two points of the curve."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(count: int, point: Point) -> Point:
    """Multiple of a point."""
    out: Point = None
    while count:
        if count & 1:
            out = add(out, point)
        point, count = add(point, point), count >> 1
    return out


def sign(private: int, message: bytes) -> bytes:
    """ECDSA signature of a message by SHA-256."""
    hashed = int.from_bytes(hashlib.sha256(message).digest())
    while True:
        once = 1 + secrets.randbelow(ORDER - 1)
        r = times(once, BASE)[0] % ORDER
        s = pow(once, -1, ORDER) * (hashed + r * private) % ORDER
        if r and s:
            return _seq(_integer(r), _integer(s))


def _certificate(public: bytes) -> bytes:
    """What is signed: version, number, names, dates, key, and that it may vouch for itself."""
    name = _seq(_tag(SET, _seq(_object(COMMON_NAME), _tag(TEXT, NAME.encode()))))
    known = hashlib.sha1(public, usedforsecurity=False).digest()
    extensions = _seq(
        _seq(_object(BASIC), _true(), _tag(OCTETS, _seq(_true()))),
        _seq(_object(USAGE), _true(), _tag(OCTETS, _tag(BITS, b"\x02\x84"))),  # signs messages and certificates
        _seq(_object(SUBJECT), _tag(OCTETS, _tag(OCTETS, known))),
        _seq(_object(AUTHORITY), _tag(OCTETS, _seq(_tag(0x80, known)))),
    )
    return _seq(
        _tag(0xA0, _integer(2)),
        _integer(secrets.randbits(63) + 1),
        _seq(_object(SIGNED)),
        name,
        _seq(_date(-1), _date(DAYS)),
        name,
        _seq(_seq(_object(PUBLIC_KEY), _object(CURVE)), _bits(public)),
        _tag(0xA3, extensions),
    )


def _date(days: int) -> bytes:
    when = time.gmtime(time.time() + 86_400 * days)
    short = when.tm_year < 2050
    return _tag(0x17 if short else 0x18, time.strftime(f"%{'y' if short else 'Y'}%m%d%H%M%SZ", when).encode())


def _tag(kind: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2)
    return bytes([kind]) + length + content


def _seq(*parts: bytes) -> bytes:
    return _tag(SEQUENCE, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tag(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def _bits(content: bytes) -> bytes:
    return _tag(BITS, b"\x00" + content)


def _true() -> bytes:
    return b"\x01\x01\xff"


def _word(value: int) -> bytes:
    return value.to_bytes(32)


def _object(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = bytes([40 * first + second])
    for number in rest:
        parts = [number & 127]
        while number := number >> 7:
            parts.append(number & 127 | 128)
        out += bytes(reversed(parts))
    return _tag(OBJECT, out)


def _pem(title: str, content: bytes) -> str:
    text = base64.encodebytes(content).decode().replace("\n", "")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {title}-----", *lines, f"-----END {title}-----", ""])
