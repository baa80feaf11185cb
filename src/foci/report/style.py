"""The look of every figure: colours, frame, and how a figure becomes a file or a part of a page. Imports no torch."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0b6fb3", "#c2500c", "#007f5c", "#a5478b", "#866900", "#57626d", "#b3243c", "#3d3d9e")
"""One per arm, in order; the first six are `--arm-0` to `--arm-5` of style.css."""
MARKERS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

ARM_COLOURS = 6
"""Arms that have a colour of their own on a page; more arms repeat the colours with another marker and dash."""


@dataclass(frozen=True)
class Look:
    """Colours and type size (points) of a figure's frame."""

    paper: str
    ink: str
    faint: str
    rule: str
    size: int | float = 9
    pad: int | float = 3.5


FILE = Look("white", "#1c1b19", "#625e57", "#e0dcd3")
"""A figure in a file of its own."""
PAGE = Look("#fe0001", "#fe0002", "#fe0003", "#fe0004", 9.5, 5)
"""A figure inside a page. The colours are placeholders: `inline` replaces them by variables of the page's style sheet,
so that the figure follows light and dark.
"""


def page_colour(index: int) -> str:
    """Returns the placeholder of arm `index`'s colour on a page."""
    return f"#fe01{index % ARM_COLOURS:02x}"


def framed(axes: Axes, look: Look = FILE, *, x: str = "", y: str = "") -> Axes:
    """Gives axes the frame of all figures: lines left and below, a grid behind, faint labels. Returns the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(look.rule)
    axes.tick_params(colors=look.faint, labelsize=look.size, length=0, pad=look.pad)
    axes.grid(color=look.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.label.set_color(look.faint)
        if name:
            axis.set_label_text(name)
    return axes


def svg(figure: Figure, key: str, **how: Any) -> str:
    """Returns the figure as SVG: text stays text, and the same figure and `key` give the same bytes."""
    buffer = io.StringIO()
    with _drawing(key):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, **how)
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes NAME.png and NAME.svg, the same bytes for the same figure. Returns the path of the SVG file."""
    with _drawing(name):
        figure.savefig(folder / f"{name}.png", metadata={"Software": None}, dpi=160)
    path = folder / f"{name}.svg"
    path.write_text(svg(figure, name), encoding="utf-8")
    return path


def inline(source: str, title: str, key: str, tips: Mapping[str, str] | None = None) -> Markup:
    """Makes an SVG a part of a page: ids that begin with `key`, colours of the page, `title` for those who hear it.

    `tips` are texts by id: an element with such an id gets `data-tip` and the class "point". No text enters the page
    except escaped by the XML writer.
    """
    root = ET.fromstring(source)  # noqa: S314 - written by matplotlib
    for parent in root.iter():
        for child in [c for c in parent if str(c.tag).endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for node in root.iter():
        node.tag = str(node.tag).rpartition("}")[2]
        node.attrib = {n.rpartition("}")[2]: _own(v, key) for n, v in node.attrib.items()}
        if node.get("href", "").startswith("#"):
            node.set("href", f"#{key}-{node.attrib['href'][1:]}")
        if (name := node.get("id")) is not None:
            node.set("id", f"{key}-{name}")
            if tips and name in tips:
                node.set("data-tip", tips[name])
                node.set("class", "point")
    for name in ("width", "height"):
        root.attrib.pop(name)
    root.set("role", "img")
    root.set("aria-label", title)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - written by matplotlib and ElementTree


def _drawing(key: str) -> Any:
    return mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False})


def _own(value: str, key: str) -> str:
    """An attribute with the page's colours and with references to the figure's own ids."""
    names = {PAGE.paper: "--paper", PAGE.ink: "--ink", PAGE.faint: "--faint", PAGE.rule: "--rule"}
    names |= {page_colour(i): f"--arm-{i}" for i in range(ARM_COLOURS)}
    value = re.sub(r"#fe0[01]0[0-9a-f]", lambda m: f"var({names[m[0]]})", value)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", value)
