"""What the tests know of a page: it is parsed as a reader's program would, without a browser."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from course.pages.markup import size_of

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """The elements of a page, and its text; AssertionError where tags don't match."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.path, self.elements, self.open, self.texts = path, [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"{path.name}: not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"{self.path.name}: </{tag}> closes nothing"
        assert self.open.pop() == tag, f"{self.path.name}: </{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not {"script", "style"} & {*self.open}:
            self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join("".join(data for _, data in self.texts).split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """The attributes of all such elements; class_="wrong" asks for one of several classes."""
        found = [attributes for name, attributes in self.elements if name == tag]
        kind = wanted.pop("class_", "")
        return [each for each in found if (not kind or kind in (each.get("class") or "").split())
                and all(each.get(name) == value for name, value in wanted.items())]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def assert_sound(path: Path) -> Page:
    """The page is whole, needs nothing but the pictures beside it, and every link leads somewhere."""
    page, others = Page(path), {}
    assert len(page.ids) == len({*page.ids}), f"ids stand twice in {path.name}"
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    for image in page.all("img"):
        png = path.parent / unquote(image["src"])
        assert "/" not in image["src"]
        assert size_of(png) == (int(image["width"]), int(image["height"]))
        assert image["alt"].strip()
    for link in page.all("a"):
        file, _, anchor = link["href"].partition("#")
        target = path.parent / unquote(file) if file else path
        assert "/" not in file, link
        assert target.is_file(), f"{path.name} links to {file}"
        if target not in others:
            others[target] = Page(target).ids
        assert not anchor or anchor in others[target], f"{path.name} links to {link['href']}"
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object"), f"<{tag}> in {path.name}"
        assert tag == "img" or "src" not in attributes, f"<{tag} src> in {path.name}"
        assert not any(name.startswith("on") for name in attributes), f"<{tag}> with an event in {path.name}"
        if attributes.get("class") and "scroll" in attributes["class"].split():
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source_without_prose(path))
    return page


def source_without_prose(path: Path) -> str:
    """Styles, scripts and all attributes: where something could be loaded from."""
    text = path.read_text(encoding="utf-8")
    inside = re.findall(r"<(?:style|script)[^>]*>(.*?)</(?:style|script)>", text, re.DOTALL)
    inside = [re.sub(r"//[^\n]*|/\*.*?\*/", "", part, flags=re.DOTALL) for part in inside
              if not part.lstrip().startswith(("[", "{"))]
    return "\n".join([*inside, *re.findall(r'(?:src|href|action|srcset)="[^"]*"', text)])
