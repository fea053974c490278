"""The pages in a real browser, those of the lessons' own runs, too, where there are any in outputs/."""

import json

import pytest
from browsing import UNFOLD, Keys, squeezed, webdriver
from conftest import ROOT
from walks import evil_walk, maps, slider, written

WIDTHS = 1440, 768, 390


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    return written(evil_walk(slider(), maps()), tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def every_page(page):
    """The page made here, index, glossary, and the lessons' own where they were run."""
    return [page, page.with_name("index.html"), page.with_name("glossary.html"),
            *sorted((ROOT / "outputs").glob("0?_*.html"))]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_and_nothing_complains(browser, every_page, width):
    for path in every_page:
        browser.open(path, width)
        browser.run(UNFOLD)
        browser.run("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
        assert browser.run("return document.documentElement.scrollWidth") <= width, path.name
        loaded = browser.driver.execute_async_script(
            "const done = arguments[0]; Promise.all([...document.images].map(i => i.decode()))"
            ".then(() => done('all'), error => done(String(error)))")
        assert loaded == "all", path.name
        assert not browser.complaints(), path.name


def test_prose_and_code_stand_side_by_side_only_where_there_is_room(browser, page):
    for width, beside in ((1440, True), (768, False), (390, False)):
        browser.open(page, width)
        words, code = (browser.one(f".two > .{name}").rect for name in ("words", "code"))
        assert (code["x"] > words["x"] + words["width"]) == beside
        assert (code["y"] > words["y"] + words["height"] / 2) == (not beside)


def test_the_scheme_follows_the_system(browser, page):
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        grounds.append(browser.one("body").value_of_css_property("background-color"))
    assert grounds == ["rgba(255, 255, 255, 1)", "rgba(13, 17, 23, 1)"]


def test_a_fold_opens_with_the_keyboard(browser, page):
    browser.open(page)
    fold = browser.one("details.checks:not([open])")
    fold.find_element("css selector", "summary").send_keys(Keys.ENTER)
    assert fold.get_attribute("open") is not None


NARROW = """Its title.

Words that stand at the margin.

    the cat loves the mat                  <begin> le chat aime
              │                                      │
          [encoder] ───────── memory ──────────→ [decoder] ───→ le

    Attention(Q, K, V) = softmax(Q·Kᵀ / √d_k) · V

    Q = K = (1, 0), (0, 1), (1, 1)        V = (10, 0), (0, 10), (5, 5)
"""


@pytest.fixture(scope="module")
def narrow_page(tmp_path_factory):
    """A beginning with a drawing and formulas, code of the longest lines, and a question."""
    walk = evil_walk()
    code = "def f(x):\n    " + " + ".join(["x"] * 26)
    walk = walk._replace(doc=NARROW, records=[walk.records[0]._replace(code=code), *walk.records[1:]])
    path = written(walk, tmp_path_factory.mktemp("narrow"))
    question = ('<div class="question"><p class="asked">Asked</p><details class="answer right" name="q">'
                '<summary>An answer</summary><p>A reason</p></details></div>')
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</h1>", f"</h1>{question}"), encoding="utf-8")
    return path


def test_on_a_phone_formulas_and_drawings_are_whole_and_the_title_comes_soon(browser, narrow_page):
    browser.open(narrow_page, 390)
    boxes = browser.run("return [...document.querySelectorAll('.formula, .drawing')].slice(0, 3).map(box => "
                        "[box.scrollWidth, box.clientWidth, box.textContent])")
    assert len(boxes) == 3
    assert not [text for inside, width, text in boxes if inside > width]
    assert browser.one("h1").rect["y"] < 150
    assert browser.one(".contents summary").is_displayed()
    browser.open(narrow_page, 1440)
    assert browser.one(".contents a").is_displayed()


def test_formulas_on_a_line_do_not_overlap(browser, narrow_page):
    for width in WIDTHS:
        browser.open(narrow_page, width)
        first, second = (formula.rect for formula in browser.all(".formula ~ .formula math"))
        beside = second["x"] >= first["x"] + first["width"] + 10
        below = second["y"] >= first["y"] + first["height"] + 5
        assert beside or below, width


@pytest.mark.parametrize("scripts", [True, False])
def test_printed_a_question_keeps_its_answers_and_no_line_of_code_is_broken(browser, narrow_page, scripts):
    browser.open(narrow_page, 718, media="print", scripts=scripts)  # A4 between margins of a centimetre
    if scripts:
        browser.run("dispatchEvent(new Event('beforeprint'))")
    reason = browser.one(".answer > p")
    assert not browser.run("return arguments[0].checkVisibility({contentVisibilityAuto: true})", reason)
    assert browser.one(".answer > summary").is_displayed()
    code = browser.one(".code pre")
    height = float(code.value_of_css_property("line-height").removesuffix("px"))
    assert code.rect["height"] < 2.5 * height  # of two lines
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)


def test_after_printing_every_fold_is_as_it_was(browser, narrow_page):
    browser.open(narrow_page)
    browser.run("document.querySelectorAll('details:not(.answer)').forEach((f, i) => { f.open = i % 2; })")
    browser.run("document.querySelectorAll('.question').forEach((q, i) => {"
                " q.querySelectorAll('.answer')[i % 2].open = true; })")
    states = "return [...document.querySelectorAll('details')].map((fold) => fold.open)"
    before = browser.run(states)
    assert {*before} == {True, False}
    assert browser.run("return document.querySelectorAll('.answer[open]').length") > 0
    for _ in range(2):
        browser.run("dispatchEvent(new Event('beforeprint'))")
        assert browser.run(states) != before
        browser.run("dispatchEvent(new Event('afterprint'))")
        assert browser.run(states) == before


def test_a_weight_is_a_share_of_its_panels_top(browser, page, tmp_path):
    """A scale that ends at 0.5 halves what the bytes say; where all can be touched the picture folds."""
    path = written(evil_walk(maps(top=0.5)), tmp_path)
    browser.open(path)
    last = browser.all(".touch:has(fieldset)")[-1]
    assert last.find_elements("css selector", "td[tabindex]")[1].text == "0.50"  # 1.0, cut at the top
    fold = browser.all("details.as-picture")[-1]
    assert not fold.find_element("css selector", "img").is_displayed()
    fold.find_element("css selector", "summary").click()
    assert fold.find_element("css selector", "img").is_displayed()
    assert fold.find_element("css selector", "img").get_attribute("alt").startswith("Finding")


def test_an_answer_unfolds_its_reason_and_folds_the_others(browser, page, tmp_path):
    text = page.read_text(encoding="utf-8")
    answers = "".join(f'<details class="answer" name="q"><summary>{n}</summary><p>why</p></details>'
                      for n in "ab")
    path, main = tmp_path / "quiz.html", '<main id="main">'
    path.write_text(text.replace(main, f'{main}<div class="question">{answers}</div>'), encoding="utf-8")
    browser.open(path)
    first, second = browser.all(".answer")
    for answer in (first, second):
        answer.find_element("css selector", "summary").click()
        assert answer.find_element("css selector", "p").is_displayed()
    assert not first.find_element("css selector", "p").is_displayed()


def test_a_heatmap_says_what_is_pointed_at_and_what_is_focused(browser, page):
    browser.open(page, 390)
    panel = browser.one(".touch:has(fieldset)")
    said = panel.find_element("css selector", "[role=status]")
    cells = panel.find_elements("css selector", "td[tabindex]")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", cells[0])
    webdriver.ActionChains(browser.driver).move_to_element(cells[1]).perform()
    assert said.text == "query it, key cat: 1.00"
    cells[0].click()
    assert said.text == "query it, key the: 0.00"
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert said.text.endswith("key the: 0.25")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert said.text.endswith("hidden")
    assert len(panel.find_elements("css selector", "tr.lit")) == 1
    assert len(panel.find_elements("css selector", "td[tabindex='0']")) == 1


def test_another_heatmap_is_chosen_with_the_keyboard(browser, page):
    browser.open(page)
    first, second = browser.all(".touch:has(fieldset)")[0].find_elements("css selector", "input")[:2]
    browser.run("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    assert second.is_selected()
    assert browser.all(".touch:has(fieldset) td[tabindex]")[1].text == "0.50"


def test_the_slider_evens_the_weights(browser, page):
    browser.open(page)
    panel = browser.one(".touch:has([type=range])")
    slide, said = (panel.find_element("css selector", name) for name in ("[type=range]", ".said"))
    begun = said.text
    slide.send_keys(Keys.END)
    assert "divided by 1.00" in begun
    assert "divided by 8.00" in said.text
    assert evenness(said.text) > evenness(begun)


def evenness(text: str) -> float:
    return float(text.partition("evenness ")[2].partition(",")[0])


def test_without_scripts_the_pictures_and_all_checks_are_there(browser, page):
    browser.open(page, scripts=False)
    pictures = browser.all("figure img")
    assert pictures
    assert all(picture.is_displayed() for picture in pictures)
    summary = browser.one("details.checks:not([open]) > summary")
    summary.click()
    assert browser.one("details.checks li").is_displayed()
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("scripts", [True, False])
def test_printed_every_check_and_every_picture_is_there_on_white(browser, page, scripts):
    browser.open(page, scheme="dark", media="print", scripts=scripts)
    if scripts:
        browser.run("dispatchEvent(new Event('beforeprint'))")
    checks = browser.all(".checks li")
    assert len(checks) == 3
    for check in checks:  # (is_displayed() takes all in a closed fold for hidden)
        assert browser.run("return arguments[0].checkVisibility({contentVisibilityAuto: true})", check)
        assert check.size["height"] > 10
    assert all(picture.is_displayed() for picture in browser.all("figure img"))
    assert browser.one("body").value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)


def test_the_pdf_of_each_page_has_every_check(browser, every_page):
    for path in every_page:
        browser.open(path)
        printed = browser.printed()
        checks = browser.run("return [...document.querySelectorAll('.checks li')].map(li => li.textContent)")
        assert checks or path.stem in ("index", "glossary") or "_live" in path.stem
        assert not [check for check in checks if squeezed(check) not in printed], path.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, every_page, scheme):
    for path in every_page:
        browser.open(path, scheme=scheme)
        browser.run(UNFOLD)
        found = browser.violations()
        assert not found, f"{path.name}: {json.dumps(found)}"
