"""Figures of layers: relative gradient norms with control and intervals, and the learning rates that followed."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from foci.report.plots import canvas, inline, stroke
from foci.report.style import MARKERS, PAGE, page_colour
from foci.report.words import decimal, number

MEASURED = ("relative", "relative_low", "relative_high", "control", "control_low", "control_high")
NORM_NOTE = (
    "Mean gradient norm of each layer over the traced spans, divided by that over ordinary text; grey: random spans of "
    "the same lengths in that text. Bands: 95 % bootstrap intervals. The level of all layers together says only that "
    "spans are short: compare the shapes."
)
RATE_NOTE = "What the learning rate of each layer is multiplied by; 0 is frozen."

Blocks = Sequence[Mapping[str, Any]]
Arms = Sequence[tuple[str, Sequence[Mapping[str, Any]]]]


def section(arms: Arms) -> dict[str, Any] | None:
    """Returns the section's figures and a sentence per arm. None where no arm has a profile."""
    known: list[dict[str, Any]] = [
        {"index": index, "name": name, "profile": profile, "blocks": _layers(profile)}
        for index, (name, profiles) in enumerate(arms)
        for profile in profiles
    ]
    known = [one for one in known if one["blocks"]]
    if not known:
        return None
    figures = [
        {
            "title": f"Relative gradient norm by layer: {', '.join(one['name'] for one in alike)}",
            "note": NORM_NOTE,
            "svg": norms(alike[0]["blocks"], alike[0]["index"], f"norms{n}"),
        }
        for n, alike in enumerate(_measured_alike(known))
    ]
    figures.append({"title": "Learning rates by layer", "note": RATE_NOTE, "svg": rates(known)})
    return {"figures": figures, "arms": [one | _described(one["profile"]) for one in known]}


def norms(blocks: Blocks, index: int, key: str) -> Markup:
    """Draws relative norms by layer with their interval in the colour of arm `index`; the control in grey."""
    figure, axes = canvas()
    x = list(range(len(blocks)))
    columns = {name: [float(block[name]) for block in blocks] for name in MEASURED}
    for name, shade, width in (("control", PAGE.faint, 1.2), ("relative", page_colour(index), 2.0)):
        axes.fill_between(x, columns[f"{name}_low"], columns[f"{name}_high"], color=shade, alpha=0.16, linewidth=0)
        axes.plot(x, columns[name], color=shade, linewidth=width, linestyle="--" if name == "control" else "-")
    tips = {}
    for n, block in enumerate(blocks):
        gid = f"n{n}"
        axes.plot(
            [n], [columns["relative"][n]], marker=MARKERS[index % len(MARKERS)], color=page_colour(index),
            linestyle="none", markersize=6, markeredgecolor=PAGE.paper, gid=gid, zorder=3,
        )  # fmt: skip
        tips[gid] = f"{block['block']} · {_between(block, 'relative')} · random spans {_between(block, 'control')}"
    _by_layer(axes, len(blocks))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("gradient norm over that of ordinary text")
    return inline(figure, "Relative gradient norm by layer, with random spans and intervals", key, tips)


def rates(arms: Sequence[Mapping[str, Any]]) -> Markup:
    """Draws the learning rate of every layer, one line per arm."""
    figure, axes = canvas()
    tips: dict[str, str] = {}
    for n, arm in enumerate(arms):
        above = (len(arms) - 1 - n) / max(len(arms) - 1, 3)
        values = [float(block["rate"]) for block in arm["blocks"]]
        look = stroke(arm["index"], above) | {"linewidth": 1.0, "alpha": 0.6}
        axes.plot(range(len(values)), values, drawstyle="steps-mid", **look)
        for layer, (block, value) in enumerate(zip(arm["blocks"], values, strict=True)):
            gid = f"r{n}-{layer}"
            axes.plot(
                [layer], [value], marker=MARKERS[arm["index"] % len(MARKERS)], color=page_colour(arm["index"]), gid=gid,
                linestyle="none", markersize=5 + 4 * above, markeredgecolor=PAGE.paper, zorder=3,
            )  # fmt: skip
            tips[gid] = f"{arm['name']} · {block['block']} · rate x {decimal(value, 2)}"
    _by_layer(axes, max(len(arm["blocks"]) for arm in arms))
    axes.set_ylim(bottom=-0.04)
    axes.set_ylabel("learning rate, times")
    return inline(figure, "Learning rates by layer, one line per arm", "rates", tips)


def _by_layer(axes: Axes, count: int) -> None:
    axes.set_xlabel("layer")
    axes.set_xlim(-0.5, count - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}" if 0 <= x < count else ""))


def _layers(profile: Mapping[str, Any]) -> Blocks:
    """Returns the layers of a profile that have a rate, in depth order."""
    blocks = [b for b in profile["blocks"] if isinstance(b, Mapping) and number(b.get("rate")) is not None]
    return [b for b in blocks if str(b.get("block", "")).startswith("layers.")]


def _measured_alike(known: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Arms whose R was measured, those with the same numbers together."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in known:
        if all(number(block.get(name)) is not None for block in one["blocks"] for name in MEASURED):
            found.setdefault(repr([[block[name] for name in MEASURED] for block in one["blocks"]]), []).append(one)
    return list(found.values())


def _described(profile: Mapping[str, Any]) -> dict[str, str]:
    """Describes an arm's profile: the source of its spans, and its summary."""
    spans, reference = profile.get("spans"), profile.get("reference")
    source = "spans unknown"
    if isinstance(spans, Mapping) and isinstance(reference, Mapping):
        source = f"{spans.get('count')} spans, {spans.get('from')}; {reference.get('rows')} rows of ordinary text"
    return {"source": source, "summary": str(profile.get("told", ""))}


def _between(block: Mapping[str, Any], name: str) -> str:
    low, high = (decimal(block[f"{name}_{end}"], 2) for end in ("low", "high"))
    return f"{decimal(block[name], 2)} [{low}, {high}]"
