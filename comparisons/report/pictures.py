"""Figures as data: pixels and an SVG of shapes and text alone, so that to open one runs and fetches nothing."""

from __future__ import annotations

import base64
import binascii
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from comparisons.study import valid
from comparisons.study.valid import Invalid

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
HREF = f"{{{XLINK}}}href"
SHAPES = "svg g defs clipPath path rect circle ellipse line polyline polygon use text tspan style image pattern"
TAGS = {f"{{{SVG}}}{name}" for name in SHAPES.split()}
PLACES = "id class d x y x1 x2 y1 y2 cx cy r rx ry dx dy width height viewBox version transform points style"
LOOKS = "fill stroke opacity clip-path clip-rule color font-family font-size font-style font-weight text-anchor"
MORE = "clipPathUnits patternUnits patternTransform preserveAspectRatio"
ATTRIBUTES = {*PLACES.split(), *LOOKS.split(), *MORE.split()}
PREFIXES = ("stroke-", "fill-", "marker-")
PLAIN = re.compile(r"""[\w\s*{}:;,.#()'"%+/=-]*""")
OUTSIDE = re.compile(r"url\((?!#)|@|\\|script|expression", re.IGNORECASE)
INSIDE = re.compile(r"#[\w.-]+|data:image/png;base64,[A-Za-z0-9+/=\s]+")
DEEPEST = 50
PIXELS = 10**8
LONGEST = 2**27  # letters of a picture
DPI = 150


@dataclass(frozen=True)
class Picture:
    """A drawn figure; is saved as one of Matplotlib's is.

    Parameters
    ----------
    png : bytes
    svg : bytes
    """

    png: bytes
    svg: bytes

    def savefig(self, target: Path | BinaryIO, *, format: str = "", **_: object) -> None:  # noqa: A002 - Matplotlib's
        """Write as PNG or SVG, by the format, or the suffix of a path."""
        content = self.svg if (format or target.suffix[1:]) == "svg" else self.png
        target.write_bytes(content) if hasattr(target, "write_bytes") else target.write(content)


def drawn(figure: Figure) -> Picture:
    """Picture of a figure."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Picture(png.getvalue(), clean(svg.getvalue()))


def written(picture: Picture) -> dict[str, str]:
    """Picture as what JSON can write."""
    return {"png": base64.b64encode(picture.png).decode(), "svg": picture.svg.decode()}


def read(value: object) -> Picture:
    """Picture of what :func:`written` returned.

    Raises
    ------
    Invalid
        For what is none.
    """
    parts = valid.mapping(value, "figure", lambda part, what: valid.text(part, what, longest=LONGEST, lines=True))
    if parts.keys() != {"png", "svg"}:
        raise Invalid("its figure must be a PNG and an SVG")
    try:
        png = base64.b64decode(parts["png"], validate=True)
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width * image.height > PIXELS:
                raise Invalid(f"its figure has more than {PIXELS:,} pixels")
            image.verify()
    except Invalid:
        raise
    except (binascii.Error, Exception) as error:  # whatever a broken image makes its reader raise
        raise Invalid(f"its figure is no PNG ({type(error).__name__})") from None
    return Picture(png, clean(parts["svg"].encode()))


def clean(svg: bytes) -> bytes:
    """Shapes and text of an SVG; scripts, links, what lies elsewhere and what we do not know are left out.

    Raises
    ------
    Invalid
        If it is no SVG.
    """
    body = svg[max(svg.find(b"<svg"), 0) :]  # without the DOCTYPE, in which entities could be declared
    try:
        root = ET.fromstring(body)
    except (ET.ParseError, ValueError) as error:
        raise Invalid(f"its figure is no SVG ({error})") from None
    if root.tag != f"{{{SVG}}}svg":
        raise Invalid("its figure is no SVG")
    kept = _clean(root, DEEPEST)
    kept.attrib |= {"xmlns": SVG, "xmlns:xlink": XLINK}
    return ET.tostring(kept, encoding="utf-8", xml_declaration=True)


def _clean(element: ET.Element, levels: int) -> ET.Element:
    name = element.tag.removeprefix(f"{{{SVG}}}")
    out = ET.Element(name, {k.replace(HREF, "xlink:href"): v for k, v in element.attrib.items() if _harmless(k, v)})
    if name != "style" or _local(element.text or ""):
        out.text = element.text
    for part in element:
        if levels and part.tag in TAGS:
            out.append(_clean(part, levels - 1))
    out.tail = element.tail
    return out


def _harmless(name: str, value: str) -> bool:
    if name == HREF:
        return INSIDE.fullmatch(value) is not None
    return (name in ATTRIBUTES or name.startswith(PREFIXES)) and _local(value)


def _local(text: str) -> bool:
    """Whether a style names nothing outside its own picture."""
    return PLAIN.fullmatch(text) is not None and OUTSIDE.search(text) is None
