"""What all pages share: the frame, the style and the script, from page_parts/, in one file."""

from html import escape
from string import Template

from course.markup import PARTS, code_style


def filled(title: str, main: str, nav: str = "", footer: str = "", links: str = "") -> str:
    """The page's frame with everything in it; style and script stand inside, so it needs no other file."""
    style, script, frame = ((PARTS / name).read_text(encoding="utf-8")
                            for name in ("style.css", "page.js", "page.html"))
    if nav:
        frame = frame.replace('<div class="page">', '<div class="page with-contents">')
    return Template(frame).substitute(
        title=escape(title), style=style + code_style(), main=main, contents=nav, footer=footer, links=links,
        script=f"<script>\n{script}</script>")
