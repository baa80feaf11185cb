"""Pages from templates: one frame, one style sheet, one policy for the report of a run, a suite and a weigher."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from foci.report import words
from foci.system.harmless import visible


def render(template: str, *, script: str = "", **shown: Any) -> str:
    """Returns a page of `template` (a file of this package) as text.

    The page loads nothing. Its policy allows its own `script` (a file of this package), by hash, and no other. Every
    text in `shown` is escaped, but for `Markup`; characters that would steer a browser's lines are written out.
    """
    here = files("foci.report")
    style = (here / "style.css").read_text(encoding="utf-8")
    code = "\n" + (here / script).read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=PackageLoader("foci", "report"),
    )  # fmt: skip
    environment.globals["words"] = words
    page = environment.get_template(template).render(
        shown,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(code),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
    )
    return visible(page)
