"""The pages that walkthroughs leave, without a browser: sound, escaped, and saying what the lessons say."""

import ast
import base64
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
import torch
from conftest import LESSONS, ROOT
from hypothesis import given
from hypothesis import strategies as st
from pygments.styles import get_style_by_name
from pygments.token import Token
from reading import Page, assert_sound
from walks import EVIL, evil_walk, written

import common
from course.console.narrator import Narrator
from course.console.records import Finding, Record, Tested
from course.grading.checking import statement_of
from course.pages import contents, markup
from course.pages import lesson_page as pages
from course.study import progress
from course.study.lessons import all_terms, study_of
from course.study.quiz import Quiz
from course.study.saying import Answer, Question

ATTENTION = "01_attention_mechanism"
every_lesson = pytest.mark.parametrize("name", LESSONS)


def number_of(name: str) -> int:
    return int(name[:2])


def steps_of(module: ModuleType) -> dict[str, object]:
    """Name as in the address → step."""
    return {name.removeprefix("step_").replace("_", "-"): step for name, step in vars(module).items()
            if name.startswith("step_")}


# ------------------------------------------------------------------ the page


def test_a_page_is_sound_and_holds_what_the_steps_left(tmp_path):
    path = written(evil_walk(), tmp_path)
    page = assert_sound(path)
    for other in ("index.html", "glossary.html"):
        assert_sound(tmp_path / other)
    assert len(page.all("li", class_="fine")) == 2
    assert len(page.all("li", class_="wrong")) == 1
    assert len(page.all("details", class_="failed")) == 1
    assert "open" in page.all("details", class_="failed")[0]
    assert "1 check fails" in page.text
    assert page.text.index("1 check fails") < page.text.index("Prose with")
    assert len(page.all("img")) == 1


def test_what_comes_from_outside_stays_text(tmp_path):
    """In prose, statements, figures, diagnoses, tables, texts, findings, and labels of a heatmap."""
    page = Page(written(evil_walk(), tmp_path))
    assert [each.get("class") for each in page.all("script")] == ["maps", None]
    assert page.text.count(EVIL) >= 8
    assert not page.all("b")
    data = re.search(r'class="maps"[^>]*>(.*?)</script>', page.path.read_text(encoding="utf-8"))[1]
    assert EVIL in str(json.loads(data))


def test_weights_come_through_as_bytes():
    """Largest and smallest, blank cells, and a scale that ends below 1."""
    _, axes = common.canvas()
    common.heatmap(axes, torch.tensor([[0.0, 0.25], [0.5, float("nan")]]), "ab", "cd", "t", top=0.5)
    packed = markup.packed(axes.touchable, axes)
    codes = list(base64.b64decode(packed["cells"]))
    assert codes == [0, 127, 254, 255]
    assert (packed["rows"], packed["columns"], packed["top"]) == (["a", "b"], ["c", "d"], 0.5)


@pytest.mark.skipif(not shutil.which("node"), reason="there is no node to run the page's JavaScript")
def test_the_page_reads_the_bytes_as_they_were_written():
    """Every share that a byte can say, each row at its place, and a cell without a weight."""
    shares = torch.arange(255.0).view(15, 17) / 254
    shares[3, 4] = math.nan
    _, axes = common.canvas()
    common.heatmap(axes, shares / 2, range(15), range(17), top=0.5)
    packed = json.dumps(markup.packed(axes.touchable, axes))
    script = (ROOT / "course" / "pages" / "parts" / "page.js").read_text(encoding="utf-8")
    functions = script.partition("function paint(")[0]
    done = subprocess.run(["node", "-"], input=f"{functions}console.log(JSON.stringify(unpacked({packed})))",
                          capture_output=True, encoding="utf-8", check=True)
    found = torch.tensor([[math.nan if share is None else share for share in row]
                          for row in json.loads(done.stdout)])
    assert torch.allclose(found, shares, rtol=0, atol=1e-6, equal_nan=True)


@given(st.floats(0, 1))
def test_digits_in_a_heatmap_have_contrast(weight):
    """At least 4.5 : 1, as the formula of the accessibility guidelines has it."""
    _, axes = common.canvas()
    shown = axes.imshow([[0.0, 1.0]], vmin=0, vmax=1, cmap="Blues")
    ink = {"black": (0, 0, 0), "white": (1, 1, 1)}[common.readable(shown, weight)]
    assert contrast(ink, shown.to_rgba(weight)[:3]) >= 4.5


def contrast(one, other):
    lights = sorted(0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) for r, g, b in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def linear(part):
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def rgb(text):
    text = text.lstrip("#")
    return tuple(int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))


@pytest.mark.parametrize("name", ["xcode", "github-dark"])
def test_code_has_contrast_in_both_schemes(name):
    style = get_style_by_name(name)
    kinds = {kind for kind, _ in markup.PythonLexer().get_tokens("".join(
        (ROOT / f"{lesson}.py").read_text(encoding="utf-8") for lesson in LESSONS))}
    for kind in (kinds | {Token}) - {Token.Text.Whitespace}:
        colour = style.style_for_token(kind)["color"]
        assert not colour or contrast(rgb(colour), rgb(style.background_color)) >= 4.5, (kind, colour)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_of_the_page_have_contrast(dark):
    style = (markup.PARTS / "style.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", schemes[dark]))
    for ground in ("paper", "panel"):
        for ink in ("ink", "soft", "link", "good", "bad"):
            assert contrast(rgb(colours[ink]), rgb(colours[ground])) >= 4.5, (ink, ground)
    assert contrast(rgb(colours["bad"]), rgb(colours["bad-paper"])) >= 4.5
    assert contrast(rgb(colours["ink"]), rgb(colours["mark"])) >= 4.5


def test_steps_lessons_and_terms_are_linked_once():
    prose = markup.Prose({3: "third", 4: "fourth"}, {2: "02_x.html"}, lesson=3)
    text = "As step 3, steps 3 and\n    4, step 9 and lesson 2, step 7 say: a token, tokens, <i> and `a < b`."
    assert prose.line(text) == (
        'As <a href="#third">step 3</a>, steps <a href="#third">3</a> and <a href="#fourth">4</a>, step 9 '
        'and <a href="02_x.html">lesson 2, step 7</a> say: a <a class="term" '
        'href="glossary.html#token">token</a>, '
        "tokens, &lt;i&gt; and <code>a &lt; b</code>.")


RIGHT = {  # how the right answer of each question begins, so that `right` can't slip
    0: "It trains|Their sum|Nothing: two|No: only|Not necessarily",
    1: "No: a product|The output of|They stay|Nearly all",
    2: "No: it takes|It stays|Only in some",
    3: "The same output both|Only on the distance|It stays|Less often",
    4: "It shrinks|BatchNorm's|Yes: it works|Pre-norm",
    5: "About ln V|No: exactly|No: with teacher",
    6: "Because no later|Not always|No: the wide|Top-p",
    7: "More than one in 50|The counts of the pairs|No: the sum|Nothing|More than four",
    8: "Known words|Less computation|The second|At the English",
    9: "About as far|The last|Not yet|Most answers|The probe doesn't|The causal mask|The layer is dead|"
       "Weight decay",
    13: "0.5: from|It skips the|They stand|7,000: 14|No: tokens|Memory",
}


@pytest.mark.parametrize("number", RIGHT)
def test_the_right_answers_are_right(number):
    said = [question.answers[question.right].text for question in study_of(number).questions]
    assert all(map(str.startswith, said, RIGHT[number].split("|")))
    assert len(said) == RIGHT[number].count("|") + 1


@pytest.mark.parametrize("number", range(8))
def test_terms_are_linked_from_the_lesson_that_explains_them_on(number):
    for term in all_terms():
        linked = 'class="term"' in markup.Prose({}, {}, number).line(term.name)
        assert linked == (term.lesson == number or (term.lesson < number and not term.only_there)), term.name


@pytest.mark.parametrize("holds", [True, False])
def test_a_question_says_yes_to_the_right_answer_and_what_the_run_found(holds):
    question = Question("q", "step", "Asked <?", (
        Answer("one <", "reason <"), Answer("two", "because"), Answer("three", "no")), 1, "it holds")
    tested = [Tested("", [("Another", Finding(True)), ("So it holds <", Finding(holds, "0 <"))])]
    html = pages.question_box(question, Record(1, "step", "", "", "", None, tested))
    answers = html.split("</details>")[:3]
    assert [re.search('class="answer (.*?)"', answer)[1] for answer in answers] == ["wrong", "right", "wrong"]
    assert [re.search('verdict">(.*?)<', answer)[1] for answer in answers] == ["No.", "Yes.", "No."]
    assert "Asked &lt;?" in answers[0]
    assert "one &lt;" in answers[0]
    assert "reason &lt;" in answers[0]
    assert f"This run's check: {'✓' if holds else '✗'} So it holds &lt; (0 &lt;)." in answers[1]
    assert "check" not in answers[0] + answers[2]


def test_every_page_has_the_style_of_its_code_and_an_escaped_title():
    page = markup.filled("<title>", "main")
    assert markup.code_style() in page
    assert "<title>&lt;title&gt;" in page


def test_code_links_to_where_a_part_is_built():
    html = markup.highlighted("x = softmax(scores) + torch.softmax(a)  # <b>", {"softmax": "#stable"})
    assert html.count('<a href="#stable">softmax</a>') == 1
    assert "&lt;b&gt;" in html
    assert re.sub("<.*?>", "", html) == "x = softmax(scores) + torch.softmax(a)  # &lt;b&gt;"


# ------------------------------------------------------------------ formulas


def read_back(node: ET.Element) -> str:
    """MathML as the Unicode that the lessons write."""
    parts = [read_back(child) for child in node]
    braced = [f"{{{part}}}" if child.tag == "mrow" and "(" not in part else part
              for child, part in zip(node, parts)]
    if node.tag == "msup":
        return parts[0] + ("ᵀ" if parts[1] == "⊤" else f"^{braced[1]}")
    if node.tag == "msub":
        return f"{parts[0]}_{braced[1]}"
    if node.tag == "msubsup":
        return f"{parts[0]}_{braced[1]}^{braced[2]}"
    if node.tag == "mfrac":
        return f"{parts[0]}/{parts[1]}"
    if node.tag == "msqrt":
        return f"√{''.join(parts)}"
    return "".join(parts) or (node.text or "")


def test_formulas_on_a_line_keep_apart_and_are_no_definitions():
    """Those that aren't known as MathML stay a block as it stands."""
    prose = markup.Prose({}, {})
    *_, together = prose.paragraphs("Words\n\nWords\n\n    dV = Aᵀ·dO        dA = dO·Vᵀ").splitlines()
    assert together.count("<math") == 2
    for text in ("    P = 1 · x        q = min(1, r)", "    BLEU = 100 · brevity        brevity = 1"):
        html = prose.paragraphs(f"Words\n\nWords\n\n{text}")
        assert "<dl>" not in html
        assert f'class="plain drawing scroll" style="--columns: {len(text) - 4}"' in html
    pairs = "    weights  what is looked at\n    values   what is taken"
    assert "<dl>" in prose.paragraphs(f"Words\n\nWords\n\n{pairs}")


def test_words_in_a_formula_keep_their_space():
    for line, formula in markup.formulas().items():
        assert not re.search(r"</mi>\s*<mi>(log|P|mean)</mi>", formula), line


def test_each_question_has_a_name_of_its_own_for_its_answers():
    """An answer folds the other answers of its question, and no others."""
    record = evil_walk().records[0]
    boxes = [pages.question_box(question, record) for question in study_of(1).questions]
    names = [{*re.findall(r'<details class="answer \w+" name="([^"]+)"', box)} for box in boxes]
    assert all(len(each) == 1 for each in names)
    assert len(set.union(*names)) == len(boxes)


def test_the_longest_term_is_linked():
    """“layer norm” is not a norm of a layer."""
    prose = markup.Prose({}, {})
    longer = [(a, b) for a in prose.terms for b in prose.terms if a != b and b.startswith(a + " ")]
    for short, long in longer:
        if prose.terms[short] != prose.terms[long] and not prose.terms[long].only_there:
            assert f">{long}</a>" in markup.Prose({}, {}).line(f"x {long} x")


@pytest.mark.parametrize("line", markup.formulas())
def test_a_formula_says_the_same_as_its_line(line):
    assert re.sub(r"\s", "", read_back(ET.fromstring(markup.formulas()[line]))) == re.sub(r"\s", "", line)


def test_every_formula_line_is_used_and_each_lesson_begins_with_one_or_with_arrows():
    prose = " ".join(" ".join((ROOT / f"{name}.py").read_text(encoding="utf-8") for name in LESSONS).split())
    assert len(markup.formulas()) > 15
    assert not [line for line in markup.formulas() if line not in prose]
    for name in LESSONS:
        beginning = markup.Prose({}, {}).paragraphs(common.lesson(name).__doc__)
        assert "<math" in beginning or "→" in beginning


# ------------------------------------------------------------------ what stands beside the lessons


@pytest.mark.parametrize("term", all_terms(), ids=lambda term: term.name)
def test_the_glossary_says_what_the_lesson_says(term):
    module = common.lesson(next(name for name in LESSONS if number_of(name) == term.lesson))
    said = inspect.getdoc(steps_of(module)[term.step]) if term.step else module.__doc__
    assert " ".join(term.explained.split()) in " ".join(said.split())


def test_every_term_stands_once():
    words = [word.lower() for term in all_terms() for word in (term.name, *term.also)]
    assert len(words) == len({*words})


@every_lesson
def test_questions_are_about_steps_and_rest_on_their_checks(name):
    module, questions = common.lesson(name), study_of(number_of(name)).questions
    assert len(questions) >= 3
    assert len({question.name for question in questions}) == len(questions)
    for question in questions:
        assert 2 <= len(question.answers) <= 4
        assert 0 <= question.right < len(question.answers)
        assert all(answer.text and answer.reason for answer in question.answers)
        statements = statements_in(steps_of(module)[question.step])
        assert any(question.check in statement for statement in statements), question.name
    places = [question.right for question in questions]
    assert len({*places}) > 1, "the right answer always stands in the same place"


def statements_in(step) -> list[str]:
    """The text of every check(…) in a step's source; what is computed in it is left out."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(step)))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check"]
    return ["".join(part.value for part in ast.walk(call.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)) for call in calls]


@every_lesson
def test_exercises_are_the_graded_parts(name):
    module = common.lesson(name)
    assert {*study_of(number_of(name)).exercises} == {*module.GRADED}
    if module.GRADED:
        assert f"--template {study_of(number_of(name)).file}" in inspect.getdoc(module.step_what_next)


def test_the_legend_is_lesson_1s():
    text = re.sub(r"\s*\n# ", " ", (ROOT / f"{ATTENTION}.py").read_text(encoding="utf-8"))
    assert f"Sizes in shape comments, in every lesson: {contents.LETTERS}." in text


@every_lesson
def test_parts_are_linked_to_steps_that_there_are(name):
    module = common.lesson(name)
    places = pages.built_in(module)
    assert places
    assert {*places.values()} <= {*steps_of(module)}


@every_lesson
def test_every_exercise_can_be_drawn(name, tmp_path):
    """Hints, solution and all, as a page would hold them."""
    module = common.lesson(name)
    walk = evil_walk()._replace(ours=module, graded=module.GRADED)
    for part_name, part in module.GRADED.items():
        box = pages.exercise(part_name, part, walk, {})
        assert part_name in box
        assert all(markup.escape(statement_of(claim)) in box for claim in part.claims)


# ------------------------------------------------------------------ running


@pytest.mark.exhaustive
def test_a_page_only_if_wanted_and_only_of_a_whole_run(tmp_path):
    script = tmp_path / "try_it.py"
    script.write_text('"""Try it."""\nfrom common import *\ndef step_one():\n    """One"""\n    return "1"\n'
                      "narrate(lesson_parser(__doc__).parse_args(), __doc__, [step_one])\n", encoding="utf-8")

    def run(*options):
        process = subprocess.run([sys.executable, script, *options, "--outputs", tmp_path / "out put"],
                                 capture_output=True, encoding="utf-8", env=conf_env(), timeout=600)
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()

    run("--no-page")
    run("--step", "one")
    assert not list((tmp_path / "out put").iterdir())
    page = tmp_path / "out put" / "try_it.html"
    assert run()[-1] == page.resolve().as_uri()
    assert_sound(page)
    before = page.read_bytes()
    assert any("try_it.html" in line and "was not changed" in line for line in run("--step", "one"))
    assert page.read_bytes() == before


def conf_env():
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}


def test_a_console_without_roots_does_not_spoil_the_page(tmp_path):
    table = common.table("√", rows=[("d_k → ∞",)], title="½ · Σ")
    assert (table.header, table.texts, table.named) == (("√",), [["d_k → ∞"]], "½ · Σ")


@pytest.mark.parametrize("stem", ["05_mini_transformer", "08_translation"])
def test_a_lesson_and_the_index_lead_to_its_live_page_if_there_is_one(stem, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{stem}.py"])
    live = f"{stem[:2]}_live.html"

    def links():
        path = written(evil_walk(), tmp_path)
        return [sum(link["href"] == live for link in assert_sound(page).all("a"))
                for page in (path, path.with_name("index.html"))]

    assert links() == [0, 0]
    (tmp_path / live).write_text("<!doctype html><title>live</title>", encoding="utf-8")
    assert links() == [1, 1]


def test_lesson_0_is_a_lesson(tmp_path, monkeypatch):
    """Its number is 0, and not none: it is noted, and another follows."""
    monkeypatch.setattr(sys, "argv", ["00_foundations.py"])
    walk = evil_walk()
    walk = walk._replace(records=[*walk.records[:-1], walk.records[-1]._replace(name="what-next")])
    page = assert_sound(written(walk, tmp_path))
    assert "Next lesson: 1." in page.text
    assert "Letters in shape comments" in page.text
    assert "run" in progress.read(tmp_path, print)["00_foundations"]


@pytest.mark.parametrize("seed", [0, 3])
def test_a_walk_with_another_seed_is_not_noted_as_the_lessons(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{ATTENTION}.py"])
    walk = evil_walk()._replace(seed=seed)
    walk = walk._replace(records=[*walk.records[:-1], walk.records[-1]._replace(name="what-next")])
    path = written(walk, tmp_path)
    assert path.name == (f"{ATTENTION}-seed=3.html" if seed else f"{ATTENTION}.html")
    assert ("run" in progress.read(tmp_path, print).get(ATTENTION, {})) == (not seed)


# ------------------------------------------------------------------ progress


def test_what_a_lesson_no_longer_has_does_not_count():
    """Parts and questions of an older version of the course."""
    questions = study_of(1).questions
    entry = {"graded": {"older": [2, 2]} | {name: [1, 1] for name in study_of(1).exercises},
             "answered": {"older": True} | {question.name: True for question in questions}}
    assert progress.parts_done(1, entry) == (5, 5)
    assert progress.answers_right(1, entry) == (len(questions),) * 3


def test_progress_adds_up_and_is_read_back(tmp_path):
    said = []
    progress.note(tmp_path, ATTENTION, said.append, answered={"future": True}, graded={"softmax": [4, 5]})
    news = {"answered": {"why-divide": False}, "graded": {"softmax": [5, 5]}}
    progress.note(tmp_path, ATTENTION, said.append, **news)
    noted = progress.read(tmp_path, said.append)
    assert noted[ATTENTION] == {
        "answered": {"future": True, "why-divide": False}, "graded": {"softmax": [5, 5]}}
    assert not said
    assert progress.parts_done(1, noted[ATTENTION]) == (1, 5)
    assert progress.answers_right(1, noted[ATTENTION]) == (1, 2, 4)


@pytest.mark.parametrize("name", ["answered", "graded"])
def test_what_was_noted_of_other_parts_questions_and_lessons_stays(name, tmp_path):
    values = {"answered": [True, False], "graded": [[5, 5], [1, 4]]}[name]
    run = {"when": "now", "held": 1, "checks": 1, "page": "x.html", "picture": []}
    progress.note(tmp_path, LESSONS[2], print, run=run)
    for place, value in enumerate(values):
        progress.note(tmp_path, ATTENTION, print, **{name: {f"number {place}": value}})
        progress.note(tmp_path, ATTENTION, print, run=run)
    both = {"number 0": values[0], "number 1": values[1]}
    assert progress.read(tmp_path, print) == {
        ATTENTION: {name: both, "run": run}, LESSONS[2]: {"run": run}}


@pytest.mark.parametrize("graded", [[0, 0], [0, 5], [4, 5], [5, 5]])
def test_a_part_is_written_if_all_its_checks_hold_and_there_are_some(graded):
    assert progress.parts_done(1, {"graded": {"softmax": graded}})[0] == (graded == [5, 5])


def test_a_progress_that_can_not_be_read_is_not_written_over(tmp_path, monkeypatch, capsys):
    progress.note(tmp_path, ATTENTION, print, graded={"softmax": [5, 5]})

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "read_text", refuse)
        assert progress.read(tmp_path, print) == {}
        progress.note_quietly(tmp_path, ATTENTION, Narrator(tmp_path), answered={"future": True})
    said = " ".join(capsys.readouterr().out.split())
    assert "can't be read (Permission denied): going on without it" in said
    assert "progress wasn't noted: Permission denied" in said
    assert progress.read(tmp_path, print) == {ATTENTION: {"graded": {"softmax": [5, 5]}}}


@pytest.mark.parametrize("content", [
    "{", "[]", '"text"', "null", '{"kind": "another"}', "\x00\x01", "[" * 100_000,
    json.dumps({"kind": progress.KIND, "lessons": {"01_x": {"run": 3}}}),
    json.dumps({"kind": progress.KIND, "lessons": {"01_x": {"graded": {"softmax": [1, "2"]}}}}),
    json.dumps({"kind": progress.KIND, "lessons": {"01_x": {"answered": {"q": "yes"}}}}),
    json.dumps({"kind": progress.KIND, "lessons": {"01_x": {"other": 1}}}),
    json.dumps({"kind": progress.KIND, "lessons": []}),
])
def test_a_broken_or_foreign_progress_is_set_aside_with_a_word(tmp_path, content):
    said = []
    for number in (1, 2):
        (tmp_path / progress.FILE).write_text(content, encoding="utf-8")
        assert progress.note(tmp_path, ATTENTION, said.append, answered={"future": True})
        aside = tmp_path / f"{progress.FILE}.aside-{number}"
        assert aside.read_text(encoding="utf-8") == content
        assert aside.name in said[-1]
    assert progress.read(tmp_path, said.append) == {ATTENTION: {"answered": {"future": True}}}


def test_the_contents_show_what_was_noted_and_no_picture_from_elsewhere(tmp_path):
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copy(ROOT / "outputs" / "attention_cost.png", tmp_path / "other.png")
    shutil.copy(tmp_path / "other.png", folder / "own.png")
    run = {"when": "<now>", "held": 70, "checks": 71, "page": "x.html"}
    for picture, shown in (("own.png", True), ("../other.png", False), ("none.png", False)):
        progress.note(folder, ATTENTION, print, run=run | {"picture": [picture, "A <finding>"]},
                      answered={"future": True, "why-divide": False},
                      graded={"softmax": [5, 5], "causal_mask": [0, 1]})
        html = contents.index_page(folder, progress.read(folder, print))
        assert ('class="thumbnail"' in html) == shown, picture
        assert ("A &lt;finding&gt;" in html) == shown
        assert "Run on &lt;now&gt;: 70 of 71 checks held." in html
        asked = len(study_of(1).questions)
        assert f"Your own parts: 1 of 5 hold. Questions: 2 of {asked} answered, 1 right." in html


@pytest.mark.exhaustive
def test_common_shows_what_is_done_and_what_is_next(tmp_path):
    def shown():
        process = subprocess.run([sys.executable, ROOT / "common.py", "--outputs", tmp_path],
                                 capture_output=True, encoding="utf-8", env=conf_env(), timeout=600)
        assert process.returncode == 0, process.stderr
        assert max(map(len, process.stdout.splitlines())) <= 80
        return process.stdout

    assert shown().splitlines()[-1] == f"Next: python {LESSONS[0]}.py"
    run = {"when": "2026-01-01 10:00", "held": 70, "checks": 71, "page": "x.html", "picture": []}
    progress.note(tmp_path, ATTENTION, print, run=run, graded={"softmax": [5, 5]})
    text = shown()
    assert "70 of 71" in text
    assert "1 of 5" in text
    assert text.splitlines()[-1] == f"Next: python {LESSONS[0]}.py"
    progress.note(tmp_path, LESSONS[0], print, run=run)
    assert shown().splitlines()[-1] == "Next: python 02_multi_head_attention.py"
    for name in LESSONS:
        progress.note(tmp_path, name, print, run=run)
    assert f"--template {study_of(0).file}" in shown()


def test_the_index_takes_only_pictures_that_lie_beside_it(tmp_path):
    run = {"when": EVIL, "held": 1, "checks": 1, "page": "x.html", "picture": ["../secret.png", EVIL]}
    progress.note(tmp_path, ATTENTION, print, run=run)
    path = written(evil_walk(), tmp_path).with_name("index.html")
    page = assert_sound(path)
    assert EVIL in page.text
    assert not page.all("img")


# ------------------------------------------------------------------ the quiz


def quiz(tmp_path, typed, *options):
    command = [sys.executable, ROOT / f"{ATTENTION}.py", "--quiz", "--outputs", tmp_path, *options]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", input=typed, env=conf_env(),
                             timeout=600)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout, progress.read(tmp_path, print).get(ATTENTION, {}).get("answered", {})


def test_a_choice_is_a_number_of_the_list(tmp_path, monkeypatch, capsys):
    typed = iter(["0", "4", "-1", "x", "²", "", " 3 ", "1"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    asked = Quiz(ATTENTION, tmp_path, Narrator(tmp_path))
    assert [asked.choose(3), asked.choose(3), asked.choose(3)] == [None, 2, 0]
    assert asked.open


def test_the_number_of_the_right_answer_is_said(tmp_path, monkeypatch, capsys):
    asked, question = Quiz(ATTENTION, tmp_path, Narrator(tmp_path)), study_of(1).questions[0]
    for place in range(len(question.answers)):
        monkeypatch.setattr("builtins.input", lambda prompt, place=place: str(place + 1))
        assert asked.ask(question) == (place == question.right)
        said = capsys.readouterr().out
        assert ("Yes." in said) == (place == question.right)
        assert (f"Right is {question.right + 1}." in said) == (place != question.right)


def test_a_script_that_is_no_lesson_has_no_questions(tmp_path):
    assert not Quiz("mine", tmp_path, Narrator(tmp_path)).questions


def test_a_quiz_says_why_and_is_noted(tmp_path):
    questions = study_of(1).questions
    typed = f"{questions[0].right + 1}\n7\nx\n{(questions[1].right + 1) % 3 + 1}\n\n"
    said, noted = quiz(tmp_path, typed)
    said = " ".join(said.split())
    assert noted == {questions[0].name: True, questions[1].name: False}
    for question in questions[:2]:
        assert " ".join(question.answers[question.right].reason.split()) in said
    assert "1 of 2 answers are right" in said
    assert questions[3].asked in said


def test_a_quiz_that_nobody_answers_ends(tmp_path):
    said, noted = quiz(tmp_path, "")
    assert noted == {}
    assert study_of(1).questions[1].asked not in " ".join(said.split())


def test_questions_come_before_their_step_with_pause(tmp_path):
    options = "--pause", "--step", "masks-hide", "--outputs", tmp_path
    process = subprocess.run([sys.executable, ROOT / f"{ATTENTION}.py", *options], capture_output=True,
                             encoding="utf-8", input="", env=conf_env(), timeout=600)
    asked = next(question for question in study_of(1).questions if question.step == "masks-hide")
    said = " ".join(process.stdout.split())
    assert process.returncode == 0
    assert said.index(asked.asked[:40]) < said.index("What is hidden changes nothing")


def test_a_folder_that_cannot_be_written_does_not_end_a_quiz(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("kept")
    progress.note_quietly(file, ATTENTION, Narrator(file), answered={"future": True})
    assert "progress wasn't noted" in capsys.readouterr().out
    assert file.read_text() == "kept"
