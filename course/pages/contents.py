"""The pages about all lessons: the index, and the glossary."""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from course.console.files import write_text
from course.pages.markup import address, filled, image, slug_of
from course.study import progress
from course.study.lessons import Lesson, all_terms, lessons

LIVE = {5: "type digits, and the trained model answers",  # pages on which a model answers
        8: "type a sentence, and the trained model translates it"}
# The same as in lesson 1's comment on sizes; a test checks that they agree.
LETTERS = ("B batch, T target (query) length, S source (key) length, L either, H heads, D d_model, "
           "K d_k = D / H, V vocabulary")


def live_name(number: int) -> str:
    """The beginning of the file name of a lesson's live page."""
    return f"{number:02}_live"


def write_contents(folder: Path, noted: Mapping[str, dict]) -> None:
    """Rewrite index and glossary."""
    write_text(folder / "glossary.html", glossary_page(folder))
    write_text(folder / "index.html", index_page(folder, noted))


def legend() -> str:
    return f'<p class="legend"><strong>Letters in shape comments:</strong> {escape(LETTERS)}.</p>'


def page_of(folder: Path, stem: str) -> str:
    """The address of a lesson's page, or of its entry in the index if there is no page yet."""
    file = f"{stem}.html"
    return address(file) if (folder / file).is_file() else f"index.html#lesson-{stem[:2]}"


def index_page(folder: Path, noted: Mapping[str, dict]) -> str:
    """The lessons in order: question, picture, checks, date, progress."""
    items = "\n".join(lesson_item(lesson, noted.get(lesson.stem, {}), folder)
                      for lesson in lessons())
    main = ("<h1>Understand the Transformer by building it</h1>"
            '<p class="intro">Each lesson is a script; running it writes its page.</p>'
            f'<ol class="lessons">{items}</ol>'
            f'<p class="next">{escape(progress.next_step(noted))}</p>')
    return filled("Understand the Transformer by building it", main)


def lesson_item(lesson: Lesson, entry: dict, folder: Path) -> str:
    run, page = entry.get("run"), f"{lesson.stem}.html"
    there = (folder / page).is_file()
    title = f"{lesson.number}. {escape(lesson.question)}"
    heading = f'<h2><a href="{address(page)}">{title}</a></h2>' if there else f"<h2>{title}</h2>"
    lines = [f"Run on {escape(run['when'])}: {run['held']} of {run['checks']} checks held." if run else
             f"Not run yet: <code>python {escape(lesson.stem)}.py</code>"]
    written, parts = progress.parts_done(lesson.number, entry)
    right, answered, asked = progress.answers_right(lesson.number, entry)
    lines.append(f"Your own parts: {written} of {parts} hold. "
                 f"Questions: {answered} of {asked} answered, {right} right.")
    others = sorted(path.name for path in folder.glob(f"{lesson.stem[:2]}_*.html") if path.name != page)
    live = f"{live_name(lesson.number)}.html"
    if live in others:
        others.remove(live)
        lines.append(f'<a class="live" href="{live}">Live: {LIVE[lesson.number]}</a>')
    links = [f'<a href="{address(other)}">{escape(other)}</a>' for other in others]
    lines += [f"Also: {', '.join(links)}"] if links else []
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    picture = small_picture(run, folder)
    return f'<li id="lesson-{lesson.stem[:2]}"><div>{heading}{paragraphs}</div>{picture}</li>'


def small_picture(run: dict | None, folder: Path) -> str:
    """The thumbnail recorded for the run, if it is a picture in this folder."""
    file, finding = (run or {}).get("picture") or ("", "")
    if not re.fullmatch(r"[\w=,.-]+\.png", file) or not (folder / file).is_file():
        return ""
    try:
        return f'<div class="thumbnail">{image(file, folder, finding)}</div>'
    except (OSError, ValueError):
        return ""


def glossary_page(folder: Path) -> str:
    """Each term with the words of the lesson that explains it, in alphabetical order."""
    stems = {lesson.number: lesson.stem for lesson in lessons()}
    items = []
    for term in sorted(all_terms(), key=lambda term: term.name.lower()):
        page = page_of(folder, stems[term.lesson])
        place = f"{page}#{term.step}" if term.step and "#" not in page else page
        explained = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(term.explained.split())))
        items.append(f'<dt id="{slug_of(term.name)}">{escape(term.name)}</dt>'
                     f'<dd>“{explained}” <a href="{place}">Lesson {term.lesson}</a></dd>')
    main = ('<h1>Glossary</h1>'
            '<p class="intro">Each term in the words of the lesson that first explains it.</p>'
            f'{legend()}<dl class="terms">{"".join(items)}</dl>')
    return filled("Glossary", main)
