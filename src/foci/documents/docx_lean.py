"""A Word document made lean and plain before mammoth reads it.

mammoth leaves out simple fields, ruby text and page breaks, and begins numbered lists again at 1 after each paragraph
between two items. So fields become their words, ruby text its base, page breaks spaces, and the number of each item is
written at its beginning, between two `NUMBER` marks; `with_numbers` moves it into the HTML that mammoth made.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lxml import etree

NUMBER = "\ufdd1"
"""Stands before and after the number of an item."""
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_MARK = re.compile(f"{NUMBER}([0-9]+){NUMBER}")
_TEXTS = ("word/document.xml", "word/footnotes.xml", "word/endnotes.xml")
_CONTENTS = f"{_W}sdtPr/{_W}docPartObj/{_W}docPartGallery[@{_W}val='Table of Contents']"
_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Choice"
"""One of two forms of a text box; the other one is read."""
_GONE = (f"{_W}pPr/{_W}rPr/{_W}del", f"{_W}pPr/{_W}rPr/{_W}moveFrom")
"""Marks a paragraph that was deleted or moved away."""


def lean(path: Path) -> io.BytesIO:
    """Returns a document without its pictures and without the looks of its styles, which most of the time goes into.

    Kept of a style is its name, by which headings are known, and its numbering. Tables of contents are left out.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(made, "w") as copy:
        names = archive.namelist()
        known = {
            name: _parsed(archive.read(name)) for name in names if name in ("word/styles.xml", "word/numbering.xml")
        }
        styles, numbering = known.get("word/styles.xml"), known.get("word/numbering.xml")
        lists = _Lists.of(numbering, styles)
        for name in names:
            if name in _TEXTS:
                tree = _parsed(archive.read(name))
                _make_plain(tree, lists)
                copy.writestr(name, etree.tostring(tree))
            elif name == "word/styles.xml" and styles is not None:
                _without_looks(styles)
                copy.writestr(name, etree.tostring(styles))
            elif name.endswith((".xml", ".rels")):
                copy.writestr(name, archive.read(name))
    return made


def with_numbers(tree: etree._Element) -> etree._Element:
    """Takes the numbers that `lean` wrote out of an HTML tree; an item of a numbered list gets its own as `value`."""
    for element in tree.iter(etree.Element):
        if (found := _MARK.match(element.text or "")) is not None and element.tag == "li":
            element.set("value", found.group(1))
        if NUMBER in (element.text or ""):
            element.text = _MARK.sub("", element.text)
        if NUMBER in (element.tail or ""):
            element.tail = _MARK.sub("", element.tail)
    return tree


def _parsed(raw: bytes) -> etree._Element:
    return etree.fromstring(raw, parser=etree.XMLParser(resolve_entities=False, no_network=True))


def _without_looks(styles: etree._Element) -> None:
    for part in styles.xpath("//*[local-name()='latentStyles' or local-name()='docDefaults']"):
        part.getparent().remove(part)
    for style in styles.iter("{*}style"):
        for part in list(style):
            if not part.xpath("self::*[local-name()='name'] | .//*[local-name()='numPr']"):
                style.remove(part)


def _make_plain(tree: etree._Element, lists: "_Lists") -> None:
    for box in list(tree.iter(f"{_W}sdt")):
        if box.find(_CONTENTS) is not None and box.getparent() is not None:
            box.getparent().remove(box)
    for simple in list(tree.iter(f"{_W}fldSimple")):
        _replace(simple, list(simple))
    for ruby in list(tree.iter(f"{_W}ruby")):
        base, run = ruby.find(f"{_W}rubyBase"), ruby.getparent()
        if run.tag == f"{_W}r":
            _replace(run, list(base) if base is not None else [])
    for broken in tree.iter(f"{_W}br"):
        if broken.get(f"{_W}type") in ("page", "column"):
            broken.tag, broken.text = f"{_W}t", " "
            broken.set(_SPACE, "preserve")
    for paragraph in tree.iter(f"{_W}p"):
        away = any(paragraph.find(gone) is not None for gone in _GONE)
        if away or next(paragraph.iterancestors(_CHOICE), None) is not None:
            continue
        if (number := lists.number(paragraph)) is not None:
            run = etree.Element(f"{_W}r")
            etree.SubElement(run, f"{_W}t").text = f"{NUMBER}{number}{NUMBER}"
            paragraph.insert(0 if paragraph.find(f"{_W}pPr") is None else 1, run)


def _replace(old: etree._Element, new: list[etree._Element]) -> None:
    parent = old.getparent()
    at = parent.index(old)
    parent[at : at + 1] = new


@dataclass
class _Lists:
    """The numbered lists of a document, and how far each has counted.

    `kinds` has the list of each number, `starts` and `formats` say at what a level of a list begins and how it is
    counted, `anew` has the levels that a number begins again, `styled` the number and level that a style gives,
    `levels` the level that a list gives to a style.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    formats: Mapping[tuple[str, int], str] = field(default_factory=dict)
    anew: dict[tuple[str, int], int] = field(default_factory=dict)
    styled: Mapping[str, etree._Element] = field(default_factory=dict)
    levels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    counts: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def of(cls, numbering: etree._Element | None, styles: etree._Element | None) -> "_Lists":
        """Reads the definitions of lists."""
        if numbering is None:
            return cls()
        levels = [(_value(one, "abstractNumId"), level) for one in numbering.iter(f"{_W}abstractNum") for level in one]
        places = [((kind, _number(level.get(f"{_W}ilvl"))), level) for kind, level in levels if level.tag == f"{_W}lvl"]
        numbers = list(numbering.iter(f"{_W}num"))
        return cls(
            {_value(one, "numId"): _said(one, "abstractNumId") for one in numbers},
            {place: _number(_said(level, "start", "1")) for place, level in places},
            {place: _said(level, "numFmt", "decimal") for place, level in places},
            {
                (_value(one, "numId"), _number(_value(level, "ilvl"))): _number(_said(level, "startOverride"))
                for one in numbers
                for level in one.iter(f"{_W}lvlOverride")
                if level.find(f"{_W}startOverride") is not None
            },
            dict(_styled(styles)) if styles is not None else {},
            {(kind, style): place for (kind, place), level in places if (style := _said(level, "pStyle"))},
        )

    def number(self, paragraph: etree._Element) -> int | None:
        """Counts a paragraph. Returns its number in its list; None where it is no item of a numbered one."""
        settings = paragraph.find(f"{_W}pPr")
        if settings is None:
            return None
        style = settings.find(f"{_W}pStyle")
        given = settings.find(f"{_W}numPr")
        inherited = None if style is None else self.styled.get(_value(style, "val"))
        levels = [one.find(f"{_W}ilvl") for one in (given, inherited) if one is not None]
        numbers = [one.find(f"{_W}numId") for one in (given, inherited) if one is not None]
        name = next((_value(one, "val") for one in numbers if one is not None), "0")
        kind = self.kinds.get(name)
        by_style = self.levels.get((kind or "", "" if style is None else _value(style, "val")), 0)
        level = next((_number(_value(one, "val")) for one in levels if one is not None), by_style)
        if kind is None or self.formats.get((kind, level), "none") in ("bullet", "none"):
            return None
        start = self.anew.pop((name, level), None)
        at = self.counts.get((kind, level)) if start is None else None
        first = self.starts.get((kind, level), 1) if start is None else start
        self.counts[kind, level] = first if at is None else at + 1
        for deeper in [place for place in self.counts if place[0] == kind and place[1] > level]:
            del self.counts[deeper]
        return self.counts[kind, level]


def _styled(styles: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    """Yields each style's name and the numbering that it, or one that it is based on, gives."""
    own = {_value(style, "styleId"): style for style in styles.iter(f"{_W}style")}
    for name in own:
        seen, at = set[str](), name
        while at in own and at not in seen:
            seen.add(at)
            if (found := own[at].find(f"{_W}pPr/{_W}numPr")) is not None:
                yield name, found
                break
            at = _said(own[at], "basedOn")


def _value(element: etree._Element, key: str) -> str:
    return element.get(f"{_W}{key}") or ""


def _said(element: etree._Element, name: str, default: str = "") -> str:
    """Returns the value of a child; the default where there is none."""
    child = element.find(f"{_W}{name}")
    return (_value(child, "val") if child is not None else "") or default


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
