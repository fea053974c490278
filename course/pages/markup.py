"""Rendering a record as HTML: prose, code, tables, pictures, checks. Text from outside is escaped."""

import base64
import inspect
import json
import re
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from pygments.lexers import PythonLexer
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Token

from course.console.records import Finding, Grid, Leads, Map, Picture, Slider, Tested
from course.study.lessons import all_terms
from course.study.saying import Term

PARTS = Path(__file__).parent / "parts"
BLANK = 255  # the byte of a cell without a weight


def slug_of(text: str) -> str:
    """An anchor, with which an address can end: “Beam search” → beam-search."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def address(file: str, anchor: str = "") -> str:
    """A relative address, escaped for href."""
    return escape(quote(file) + (f"#{anchor}" if anchor else ""))


# ------------------------------------------------------------------ prose


@cache
def formulas() -> dict[str, str]:
    """A formula as a line of text → the same formula as MathML, both written by hand."""
    text = (PARTS / "formulas.html").read_text(encoding="utf-8")
    return {line: " ".join(math.split())
            for line, math in re.findall(r"<!-- (.*?) -->\s*(<math.*?</math>)", text, re.DOTALL)}


class Prose:
    """The prose of one page, with links for steps and lessons, and for each term where it first occurs.

    `steps` are the names of the page's steps, `pages` the address of each lesson's page, `lesson` is the
    number of the page's own lesson, if it has one.
    """

    def __init__(self, steps: dict[int, str], pages: dict[int, str], lesson: int | None = None):
        self.steps, self.pages, self.lesson = steps, pages, lesson
        self.terms = {word.lower(): term for term in all_terms() for word in (term.name, *term.also)}
        self.linked: set[Term] = set()
        words = "|".join(re.escape(word) for word in sorted(self.terms, key=len, reverse=True))
        self.pattern = re.compile(
            rf"`(?P<code>[^`]+)`|[Ll]essons? (?P<lesson>\d\d?)\b(?P<of>, step \d+)?"
            rf"|[Ss]teps? (?P<steps>\d+(?:(?:, | and )\d+)*)(?! to)\b"
            rf"|(?<![\w-])(?P<term>{words})(?![\w-])", re.IGNORECASE)

    def paragraphs(self, text: str) -> str:
        """A docstring as HTML: paragraphs, and indented blocks of formulas or drawings."""
        blocks = [block for block in inspect.cleandoc(text).split("\n\n") if block.strip()]
        return "\n".join(self.block(block) if block.startswith("  ") else f"<p>{self.line(block)}</p>"
                         for block in blocks)

    def line(self, text: str) -> str:
        """Running text as HTML."""
        text, html, end = " ".join(text.split()), [], 0
        for match in self.pattern.finditer(text):
            html += [escape(text[end : match.start()]), self.linked_match(match)]
            end = match.end()
        return "".join(html) + escape(text[end:])

    def linked_match(self, match: re.Match) -> str:
        found, text = match.groupdict(), match[0]
        if found["code"]:
            return f"<code>{escape(found['code'])}</code>"
        if found["lesson"]:
            page = self.pages.get(int(found["lesson"]))
            return f'<a href="{page}">{escape(text)}</a>' if page else escape(text)
        if found["steps"]:
            return re.sub(r"(?:[Ss]tep )?(\d+)", lambda number: self.step(number[0], int(number[1])), text)
        term = self.terms[text.lower()]
        later = self.lesson is not None and term.lesson > self.lesson
        elsewhere = later or (term.only_there and term.lesson != self.lesson)
        if term in self.linked or elsewhere:
            return escape(text)
        self.linked.add(term)
        return f'<a class="term" href="glossary.html#{slug_of(term.name)}">{escape(text)}</a>'

    def step(self, text: str, number: int) -> str:
        return f'<a href="#{self.steps[number]}">{text}</a>' if number in self.steps else text

    def block(self, text: str) -> str:
        """An indented block: as formulas if each of its lines is one, otherwise unchanged."""
        lines = [line.strip() for line in text.splitlines()]
        alone = [" ".join(line.split()) for line in lines]  # otherwise a line has several parts
        parts = [[whole] if whole in formulas() else re.split(r"\s{4,}", line)
                 for whole, line in zip(alone, lines, strict=True)]
        if all(line[0] in formulas() for line in parts):
            return "\n".join(f'<div class="formula scroll"{SCROLLS.format("formula")}>'
                             + "".join(formulas().get(part) or f'<span class="beside">{escape(part)}</span>'
                                       for part in line) + "</div>" for line in parts)
        pairs = [re.fullmatch(r"(\w.*?)\s{2,}(\w.*)", line)
                 for line in inspect.cleandoc("\n" + text).splitlines()]
        if all(pairs) and not any("=" in pair[1] for pair in filter(None, pairs)):
            return "<dl>" + "".join(f"<dt>{escape(pair[1])}</dt><dd>{self.line(pair[2])}</dd>"
                                    for pair in filter(None, pairs)) + "</dl>"
        kept = inspect.cleandoc("\n" + text)
        columns = max(map(len, kept.splitlines()))
        return (f'<pre class="plain drawing scroll" style="--columns: {columns}"{SCROLLS.format("drawing")}>'
                f"{escape(kept)}</pre>")


SCROLLS = ' tabindex="0" role="group" aria-label="{}"'  # a box that may scroll can be focused


# ------------------------------------------------------------------ code


@cache
def code_style() -> str:
    """The colours of the code, for the light scheme and the dark."""
    light, dark = (get_style_by_name(name) for name in ("xcode", "github-dark"))
    night = "@media screen and (prefers-color-scheme: dark) {"
    return "\n".join([*rules(light), night, *rules(dark), "}"])


def rules(style: Any) -> Iterable[str]:
    ground = style.style_for_token(Token)["color"] or "000000"
    yield f":root {{ --code-paper: {style.background_color}; --code-ink: #{ground}; }}"
    yield ".code { color: var(--code-ink); }"
    for kind, look in style:
        name = STANDARD_TYPES.get(kind)
        rule = f"color: #{look['color']};" if look["color"] else ""
        rule += " font-weight: 600;" * look["bold"] + " font-style: italic;" * look["italic"]
        if name and rule:
            yield f".code .{name} {{ {rule.strip()} }}"


def highlighted(code: str, built: dict[str, str]) -> str:
    """Coloured code; a name in `built` links to the address where that part is built."""
    html, before = [], ""
    for kind, text in PythonLexer().get_tokens(code):
        shown = escape(text)
        name = STANDARD_TYPES.get(kind) or STANDARD_TYPES.get(kind.parent, "")
        if kind in Token.Name and text in built and before != ".":
            shown = f'<a href="{built[text]}">{shown}</a>'
        html.append(f'<span class="{name}">{shown}</span>' if name and text.strip() else shown)
        before = text.strip() or before
    return "".join(html).rstrip("\n")


def code_box(code: str, label: str, built: dict[str, str]) -> str:
    return (f'<div class="code scroll"{SCROLLS.format(escape(label))}><pre><code>'
            f"{highlighted(code, built)}</code></pre></div>")


# ------------------------------------------------------------------ what a step returned


def shown(thing: Any, folder: Path, label: str) -> str:
    """Text, a table, a picture, or several of them; picture files are already in the folder."""
    if isinstance(thing, Picture):
        return picture(thing, folder)
    if isinstance(thing, Grid):
        return table(thing, label)
    if isinstance(thing, Leads):
        said = escape(thing.good_for[:1].upper() + thing.good_for[1:])
        return f'<p class="leads"><a href="{address(thing.file)}">{said}</a></p>'
    if isinstance(thing, str):
        return f'<pre class="plain scroll"{SCROLLS.format(label)}>{escape(thing)}</pre>' if thing else ""
    parts = thing if isinstance(thing, Sequence) else ()
    several = [f"{label}, part {number}" if len(parts) > 1 else label for number in range(1, len(parts) + 1)]
    return "\n".join(shown(part, folder, name) for part, name in zip(parts, several, strict=True))


def table(grid: Grid, label: str) -> str:
    """The table in a box that scrolls where it is wider than the page."""
    head = "".join(f'<th scope="col"{NUMBER if right else ""}>{escape(name)}</th>' if name else "<td></td>"
                   for name, right in zip(grid.header, grid.numeric, strict=True))
    rows = [[cell(text, right) for text, right in zip(row, grid.numeric, strict=True)] for row in grid.texts]
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    caption = f"<caption>{escape(grid.named)}</caption>" if grid.named else ""
    return (f'<div class="scroll"{SCROLLS.format(escape(label))}><table>{caption}'
            f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>")


NUMBER = ' class="number-cell"'
SHORT = 20  # characters; a cell with at most this many stays on one line, and the box scrolls


def cell(text: str, right: bool) -> str:
    whole = ' class="short"' if len(text) <= SHORT else ""
    kind = NUMBER if right else ' class="kept"' if "  " in text or "\n" in text else whole
    return f"<td{kind}>{escape(text)}</td>"


def size_of(png: Path) -> tuple[int, int]:
    """Width and height in pixels, from a PNG's header; ValueError if the file isn't a PNG."""
    with png.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{png} is not a PNG")
    return struct.unpack(">II", head[16:24])


def image(file: str, folder: Path, finding: str) -> str:
    width, height = size_of(folder / file)
    return (f'<img src="{address(file)}" width="{width}" height="{height}" '
            f'alt="{escape(finding)}" loading="lazy">')


def picture(shown: Picture, folder: Path) -> str:
    """The figure with its finding; the interactive parts are embedded as data, which page.js unpacks."""
    axes = [panel for panel in shown.figure.axes if panel.get_visible()]
    maps = [(panel.touchable, panel) for panel in axes if hasattr(panel, "touchable")]
    found = [packed(each, panel) for each, panel in maps if isinstance(each, Map)]
    sliders = [packed_slider(each) for each, _ in maps if isinstance(each, Slider)]
    whole = "yes" if len(found) == len(axes) else "no"
    data = "".join(f'<script type="application/json" class="{kind}" data-whole="{whole}">{as_data(content)}'
                   "</script>" for kind, content in (("maps", found), ("sliders", sliders)) if content)
    return (f'<figure class="picture">{image(shown.file, folder, shown.finding)}'
            f"<figcaption>{escape(shown.finding)}</figcaption>{data}</figure>")


def as_data(content: Any) -> str:
    """JSON that is safe inside a <script>."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def packed(shown: Map, panel: Any) -> dict[str, Any]:
    """A heatmap for the page: one byte per weight, 0 to 254 for 0 to `top`."""
    weights = np.asarray(shown.weights, dtype=float)
    steps = np.clip(np.nan_to_num(weights / (shown.top or 1.0)), 0, 1) * (BLANK - 1)
    codes = np.where(np.isnan(weights), BLANK, np.round(steps)).astype(np.uint8)
    columns = list(shown.columns) or list(map(str, range(weights.shape[1])))
    return {"title": shown.title, "rows": list(shown.rows), "columns": columns,
            "top": round(float(shown.top), 4), "asks": shown.asks or panel.get_ylabel() or "query",
            "answers": shown.answers or panel.get_xlabel() or "key",
            "cells": base64.b64encode(codes.tobytes()).decode()}


def packed_slider(shown: Slider) -> dict[str, Any]:
    scores = np.asarray(shown.scores, dtype=float).round(2).tolist()
    return {"d_k": shown.d_k, "scores": scores}


# ------------------------------------------------------------------ checks


def checks(tested: Sequence[Tested]) -> str:
    """All checks of a step under their count; open and in red if one failed."""
    results = [(statement, finding) for part in tested for statement, finding in part.results]
    if not results:
        return ""
    failed = sum(not finding.holds for _, finding in results)
    count = f"{len(results) - failed} of {len(results)} checks hold" if failed else (
        f"✓ {len(results)} checks hold" if len(results) > 1 else "✓ 1 check holds")
    parts = "\n".join(
        (f'<p class="part">{escape(part.part)}</p>' if part.part else "")
        + "<ul>" + "\n".join(map(check, part.results)) + "</ul>" for part in tested)
    state = ' class="checks failed" open' if failed else ' class="checks"'
    return f"<details{state}><summary>{count}</summary>\n{parts}</details>"


def check(result: tuple[str, Finding]) -> str:
    statement, finding = result
    figure = f' <span class="figure-of">({escape(finding.figure)})</span>' if finding.figure else ""
    said = escape(statement.rstrip("."))
    if finding.holds:
        return f'<li class="fine">{said}{figure}</li>'
    more = f'<p class="diagnosis">{escape(finding.diagnosis)}</p>' if finding.diagnosis else ""
    return f'<li class="wrong"><strong class="failure">FAILED: {said}</strong>{figure}{more}</li>'


# ------------------------------------------------------------------ the frame of all pages


def filled(title: str, main: str, nav: str = "", footer: str = "", links: str = "") -> str:
    """The page's frame with everything filled in; style and script are inline, so it needs no other file."""
    style, script, frame = ((PARTS / name).read_text(encoding="utf-8")
                            for name in ("style.css", "page.js", "page.html"))
    if nav:
        frame = frame.replace('<div class="page">', '<div class="page with-contents">')
    return Template(frame).substitute(
        title=escape(title), style=style + code_style(), main=main, contents=nav, footer=footer, links=links,
        script=f"<script>\n{script}</script>")
