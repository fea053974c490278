import json
import math
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from browsing import Keys
from conftest import run_lesson

from common import lesson
from course.pages import live
from course.training.engine import finish

five = lesson("05_mini_transformer")
six = lesson("06_decoding")
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="there is no node to run the page's JavaScript")
SPECIAL = {"bos": six.BOS, "eos": six.EOS}


def in_node(folder, driver, **values):
    """What the expression `driver` gives in JavaScript that knows model.js, decoding.js and the values."""
    (folder / "values.json").write_text(json.dumps(values | {"special": SPECIAL}))
    scripts = [(live.PARTS / f"{name}.js").read_text(encoding="utf-8") for name in (
        "weights", "model", "decoding")]
    names = ", ".join([*values, "special"])
    known = f"const {{ {names} }} = JSON.parse(require('fs').readFileSync('values.json'));"
    script = "\n".join([*scripts, known, f"console.log(JSON.stringify({driver}));"])
    done = subprocess.run([NODE, "-"], input=script, cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def data_of(model, task="reverse", count=3, own=()):
    batch = five.draw_batch(task, count, "test", (0,))
    tokens = five.tokenizer.token_of
    return live.data_of(model, task, vars(model.config), tokens, batch.src, batch.tgt_in, [*own])


def rounded(model):
    """The model itself, with the weights that the page gets."""
    model.load_state_dict(live.rounded(model))
    return model.eval()


def model_of(seed=0, **changes):
    """A model in which no gain is 1 and no bias 0, with rounded weights."""
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_len": 40} | changes
    model = five.Transformer(five.TransformerConfig(**sizes))
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    return rounded(model)


@pytest.fixture(scope="module")
def trained():
    """A model that reverses, but isn't sure of it yet: beams and samples differ."""
    torch.manual_seed(0)
    run = finish(five.make_run(five.TransformerConfig(), five.TrainingConfig(steps=175), five.CPU))
    return rounded(run.model)


def digits_of(count, lengths=(4, 16)):
    drawn = six.draw_sequences(count, "test", (9,), lengths)
    return [[five.ZERO + digit for digit in digits] for digits in drawn]


# the model in JavaScript


@needs_node
@pytest.mark.parametrize("sizes", [
    {},
    {"norm": "post", "positions": "learned", "activation": "relu", "n_heads": 4},
    {"positions": "rotary", "n_layers": 3, "d_ff": 24},
    {"norm": "post", "positions": "rotary", "n_heads": 1},
    {"positions": "none", "n_layers": 1, "d_model": 15, "n_heads": 3, "activation": "relu"},
    {"norm": "post", "d_model": 64, "n_heads": 8},
], ids=lambda sizes: "-".join(map(str, sizes.values())) or "default")
def test_logits_are_those_of_pytorch(sizes, tmp_path):
    model = model_of(**sizes)
    data = data_of(model)
    found = in_node(tmp_path, """data.reference.map(({ source, input }) => {
        const model = new Transformer(data.config, readWeights(data.weights, data.shapes));
        return model.decode(input, model.encode(source)).map((row) => [...row]); })""", data=data)
    for pair, logits in zip(data["reference"], found, strict=True):
        with torch.no_grad():
            wanted = model(torch.tensor([pair["source"]]), torch.tensor([pair["input"]]))[0]
        assert (torch.tensor(logits) - wanted).abs().max() < 1e-4
        assert (torch.tensor(pair["logits"]) - wanted).abs().max() < 1e-4  # what the page compares with


@needs_node
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_maps_are_the_weights_that_pytorch_records(positions, tmp_path):
    model = model_of(positions=positions)
    source, answer = digits_of(1)[0], [six.BOS, 5, 6, 7]
    maps = in_node(tmp_path, """(() => {
        const model = new Transformer(data.config, readWeights(data.weights, data.shapes));
        const state = model.encode(source);
        answer.forEach((token) => model.decode([token], state));
        return ["encoder", "self", "cross"].map((kind) => state[kind].map((cache) => cache.maps)); })()""",
        data=data_of(model), source=source, answer=answer)
    with torch.no_grad(), five.record_attention(model) as recorded:
        model(torch.tensor([source]), torch.tensor([answer]))
    names = [f"{name}_attention" for name in (
        "encoder.blocks.{}.self", "decoder.blocks.{}.self", "decoder.blocks.{}.cross")]
    for name, blocks in zip(names, maps, strict=True):
        for block, heads in enumerate(blocks):
            width = len(heads[0][-1])
            filled = [[row + [0.0] * (width - len(row)) for row in head] for head in heads]  # the future
            wanted = recorded[name.format(block)][0]
            assert torch.allclose(torch.tensor(filled), wanted, atol=1e-5)


@needs_node
def test_numbers_survive_base64_and_float16(tmp_path):
    values = [0.0, -1.0, 1.5, 65504.0, -(2.0**-14), 2.0**-24, 3 * 2.0**-20, 0.1, math.pi]
    weight = torch.nn.Parameter(torch.tensor(values))
    model = torch.nn.Module()
    model.weight = weight
    half = live.rounded(model)["weight"]
    raw = live.base64.b64encode(half.numpy().astype("<f2").tobytes()).decode()
    found = in_node(tmp_path, "[...readWeights(raw, shapes).weight.numbers]", raw=raw, shapes={"weight": [9]})
    assert found == half.tolist()
    assert found[:7] == values[:7]


# its decoders


MODEL = "new Transformer(data.config, readWeights(data.weights, data.shapes))"


@pytest.mark.exhaustive
@needs_node
def test_answers_are_those_of_greedy_decode(trained, tmp_path):
    sources = digits_of(120)
    found = in_node(tmp_path, f"""(() => {{ const model = {MODEL};
        return [greedy, greedyWithoutCache].map((decode, kind) => sources.slice(0, kind ? 10 : 120)
          .map((source) => decode(model, source, 20, special).tokens)); }})()""",
        data=data_of(trained), sources=sources)
    wanted = [tokens_of(six.greedy_decode(six.CachedDecoding(trained, torch.tensor([source])), 20)[0])
              for source in sources]
    assert found == [wanted, wanted[:10]]
    assert len({len(answer) for answer in wanted}) > 5


def tokens_of(row):
    tokens = row.tolist()
    return tokens[: tokens.index(six.EOS) + 1] if six.EOS in tokens else tokens


@needs_node
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 3, 6])
def test_beams_are_those_of_lesson_six(trained, width, penalty, tmp_path):
    sources, search = digits_of(6, (4, 12)), f"beamSearch({MODEL}, source, 14, special, {width}, {penalty})"
    found = in_node(tmp_path, f"sources.map((source) => {search})", data=data_of(trained), sources=sources)
    for source, ours in zip(sources, found, strict=True):
        trace = []
        decoding = six.CachedDecoding(trained, torch.tensor([source]))
        (wanted,) = six.beam_search(decoding, width, 14, penalty, trace)
        assert [tuple(one["tokens"]) for one in ours["found"]] == [one.tokens for one in wanted]
        assert [one["finished"] for one in ours["found"]] == [one.finished for one in wanted]
        scores = [one["score"] for one in ours["found"]]
        assert scores == pytest.approx([one.score for one in wanted], abs=1e-4)
        fates = [(tuple(one["tokens"]), one["fate"]) for step in ours["steps"] for one in step]
        assert fates == [(one.tokens, fate) for one, fate in trace]


@needs_node
def test_cuts_are_those_of_adjust_logits(tmp_path):
    torch.manual_seed(0)
    logits = [*torch.randn(20, 13).mul(3), torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0]), torch.zeros(10),
              torch.tensor([0.5, 0.25, 0.125, 0.125]).log()]
    options = [*product((0.0, 0.3, 1.0, 5.0), (0, 1, 2, 3, 13, 20), (0.0, 0.5, 0.75, 0.8, 1.0))]
    found = in_node(tmp_path, "logits.map((row) => options.map((option) => softmax(adjust(row, ...option))))",
                    logits=[row.tolist() for row in logits], options=options)
    cut = 0  # (eight tenths, added up, are a little less than 0.8)
    for row, every in zip(logits, found, strict=True):
        for option, ours in zip(options, every, strict=True):
            wanted = six.adjust_logits(row, *option).softmax(-1)
            assert torch.allclose(torch.tensor(ours, dtype=wanted.dtype), wanted, atol=1e-6), option
            assert [p > 0 for p in ours] == (wanted > 0).tolist(), option
            cut += 1 < (wanted > 0).sum() < len(row)
    assert cut > 100


@needs_node
def test_draws_follow_the_probabilities(tmp_path):
    probabilities = [0.0, 0.5, 0.0, 0.125, 0.375, 0.0]
    drawn = in_node(tmp_path, "Array.from({ length: 1000 }, (_, i) => draw(p, i / 1000))", p=probabilities)
    assert [drawn.count(token) / 1000 for token in range(6)] == probabilities


# a model that the page doesn't know


@needs_node
def test_parts_that_behave_otherwise_are_noticed(tmp_path):
    model = model_of()
    pairs = data_of(model)["reference"]
    agreement = f"agreementWith(data.reference, {MODEL})"
    known = in_node(tmp_path, agreement, data=data_of(model))
    assert known["holds"]
    assert known["compared"] == sum(len(row) for one in pairs for row in one["logits"])
    model.decoder.blocks[1].feed_forward.gelu = torch.tanh
    other = in_node(tmp_path, agreement, data=data_of(model))
    assert not other["holds"]
    assert other["gap"] > 0.01


@needs_node
@pytest.mark.parametrize(("change", "message"), [
    ({"activation": "swish"}, "activation swish"),
    ({"n_layers": 3}, "there is no encoder.blocks.2"),
    ({"d_ff": 32}, "expand.weight is 64 × 16, not 32 × 16"),
    ({"positions": "learned"}, "there is no positions.table"),
])
def test_a_model_of_other_parts_is_an_error_that_names_them(change, message, tmp_path):
    data = data_of(model_of())
    data["config"] |= change
    said = in_node(tmp_path, f"(() => {{ try {{ {MODEL}.decode([1], {MODEL}.encode([5])); return ''; }} "
                   "catch (error) { return error.message; } })()", data=data)
    assert message in said


def test_what_a_page_cannot_carry_is_said(monkeypatch):
    model = model_of()
    model.embedding.weight.data[3, 4] = 1e5
    assert data_of(model)["problem"] == "embedding.weight holds a number that is too large for float16"
    monkeypatch.setattr(live, "LARGEST", 1000)
    data = data_of(model)
    assert data["problem"] == f"it has {data['parameters']:,} weights; a page can carry 1,000"
    assert "weights" not in data


def test_the_model_stays_as_it_was():
    torch.manual_seed(0)
    model = five.Transformer(five.TransformerConfig(d_model=16, n_heads=2, dropout=0.5)).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first, second = data_of(model), data_of(model)
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert first == second  # no dropout in what it compares with


# the page


class Page(HTMLParser):
    """Every tag with its attributes, and the text of every script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.open, self.unclosed = [], [], False, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = tag == "script"
        if self.open:
            self.scripts.append("")
        if tag not in ("meta", "link", "input"):
            self.unclosed.append(tag)

    def handle_endtag(self, tag):
        self.open = False
        while tag in ("html", "body", "tr") and self.unclosed[-1] in ("option",):
            self.unclosed.pop()
        assert self.unclosed.pop() == tag

    def handle_data(self, text):
        if self.open:
            self.scripts[-1] += text

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def page(trained):
    return live.live_page(data_of(trained))


def test_the_page_is_whole_and_needs_nothing_else(page):
    parsed = Page(page)
    assert not parsed.unclosed
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in parsed.all("html", "script", "img", "link", "a", "iframe", "input", "style"):
        assert attributes.get("href", "#")[:1] == "#" or attributes["href"] in ("data:,", "index.html")
        assert "src" not in attributes
    code = page.replace(parsed.scripts[0], "")
    outside = r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(|innerHTML|type=.module"
    assert not re.search(outside, code)
    assert len(page.encode()) < 1_000_000
    assert "@@" not in code


def test_every_control_has_a_label_and_headings_are_in_order(page):
    parsed = Page(page)
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    labelled = {attributes["for"] for attributes in parsed.all("label")}
    assert {attributes["id"] for attributes in parsed.all("input", "select")} == labelled
    for _, attributes in parsed.tags:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert set(attributes.get(reference, "").split()) <= ids
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_scripts_name_only_what_the_page_has(page):
    ids = {attributes.get("id") for attributes in dict(enumerate(a for _, a in Page(page).tags)).values()}
    assert set(re.findall(r'get\("([\w-]+)"\)', page)) <= ids
    assert len((live.PARTS / "model.js").read_text(encoding="utf-8").splitlines()) <= 250


HOSTILE = "</script><script>alert(1)</script>&lt;@@DATA@@<!--"


def test_text_from_outside_stays_text():
    data = data_of(model_of(), own=[HOSTILE]) | {"task": HOSTILE}
    parsed = Page(live.live_page(data))
    assert len(parsed.scripts) == 2
    assert json.loads(parsed.scripts[0]) == data
    assert not {*"<>&"} & {*parsed.scripts[0]}  # browsers end a script at "</script " already
    assert not parsed.unclosed


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    experiment = SimpleNamespace(
        run=SimpleNamespace(model=model_of()), training=five.TrainingConfig(), config=model_of().config,
        own=five.NOTHING, options=SimpleNamespace(outputs=tmp_path, page=True),
        file=lambda stem, ending: f"{stem}.{ending}")
    batch = five.draw_batch("reverse", 2, "test", (0,))

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", no_space)
        with pytest.raises(OSError, match="No space"):
            live.write_live(experiment, five.tokenizer.token_of, batch)
    assert not list(tmp_path.iterdir())
    left = live.write_live(experiment, five.tokenizer.token_of, batch)
    assert {path.name for path in tmp_path.iterdir()} == {"05_live.html", "index.html", "glossary.html"}
    assert left.file == "05_live.html"
    assert 'href="05_live.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    experiment.options.page = False
    (tmp_path / "05_live.html").unlink()
    assert live.write_live(experiment, five.tokenizer.token_of, batch) is None
    assert not (tmp_path / "05_live.html").exists()


@pytest.mark.exhaustive
def test_a_training_leaves_the_page_of_its_model(tmp_path):
    sizes = "--d-model", "16", "--heads", "2", "--layers", "1", "--positions", "rotary", "--norm", "post"
    process = run_lesson("05_mini_transformer", "--step", "training", "--steps", "3", "--task", "sum", *sizes,
                         "--batch-size", "4", "--outputs", str(tmp_path))
    (path,) = tmp_path.glob("05_live*.html")
    assert path.name in process.stdout.replace("\n", "")
    data = json.loads(Page(path.read_text(encoding="utf-8")).scripts[0])
    saved = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)
    assert (data["task"], data["config"]) == ("sum", saved["about"]["config"])
    assert data["parameters"] == sum(math.prod(shape) for shape in data["shapes"].values())


# in a browser


def opened(browser, path, width=1440, motion="reduce", scheme="light"):
    """The page in a window of this width → what finds an element by its id."""
    browser.open(path, width, scheme, motion=motion)
    return lambda id: browser.driver.find_element("id", id)


def write(field, text):
    """Type this in place of what stands there."""
    field.send_keys(Keys.CONTROL + "a" + Keys.NULL + Keys.BACKSPACE + text)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "that never came"
        time.sleep(0.05)


@pytest.fixture
def live_file(page, tmp_path):
    path = tmp_path / "05_live.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_the_page_fits_and_complains_of_nothing(width, browser, live_file):
    get = opened(browser, live_file, width)
    until(lambda: get("best").text)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    write(get("digits"), "012345678901234567890123")
    until(lambda: "0 1 2 3 4 5 6 7 8 9 0 1" in get("answer").get_attribute("textContent"))
    count = len(browser.all("[name=token]"))
    until(lambda: f"the same {count} tokens" in get("checks").text)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints() == []
    assert "fails" not in get("checks").get_attribute("innerHTML")
    assert not get("problem").is_displayed()


def test_typing_writes_token_by_token(browser, live_file, trained):
    get = opened(browser, live_file, motion="no-preference")
    write(get("digits"), "")
    assert "Type 1 to 24 digits" in get("complaint").text
    get("digits").send_keys("271828")
    seen = set()

    def written():
        seen.add(len(browser.all("[name=token]")))
        return get("answer").get_attribute("textContent")

    until(written)
    assert len(seen) > 2  # not all at once
    source = torch.tensor([five.tokenizer.encode("271828")])
    answer = tokens_of(six.greedy_decode(six.CachedDecoding(trained, source), 28)[0])
    text = " ".join(five.tokenizer.token_of[token] for token in answer)
    assert get("answer").get_attribute("textContent").startswith(f"2 7 1 8 2 8 becomes {text}")


def test_it_says_whether_the_answer_is_right(browser, page, tmp_path):
    for task, solve in five.TASKS.items():
        path = tmp_path / f"{task}.html"
        path.write_text(page.replace('"task":"reverse"', f'"task":"{task}"'), encoding="utf-8")
        get = opened(browser, path)
        write(get("digits"), "3, 1, 4 1;5")
        right = " ".join([*map(str, solve([3, 1, 4, 1, 5])), "EOS"])
        given = get("answer").text.removeprefix("3 1 4 1 5 becomes ")
        assert given == f"{right}: right." or given.endswith(f": wrong. The right answer is {right}.")
        assert get("complaint").text == ""


def test_it_says_what_lengths_it_never_saw(browser, live_file):
    get = opened(browser, live_file)
    for digits, said in (("12", "fewer than 4"), ("1" * 17, "more than 16"), ("1234", "")):
        write(get("digits"), digits)
        assert get("complaint").text.endswith(f"the model never saw {said}." if said else "")


@pytest.mark.parametrize(("digits", "complaint"), [
    ("12a4", "“a” is unknown to the model"),
    ("<b>", "“<” is unknown"),
    ("1" * 25, "25 digits are too many: 24 at most"),
    ("   ", "Type 1 to 24 digits"),
])
def test_what_it_cannot_read_is_one_line(digits, complaint, browser, live_file):
    get = opened(browser, live_file)
    before = get("answer").get_attribute("textContent")
    browser.run("const field = document.getElementById('digits'); field.value = arguments[0];"
                           "field.dispatchEvent(new Event('input'));", digits)
    assert complaint in get("complaint").text
    assert get("digits").get_attribute("aria-invalid") == "true"
    assert get("answer").get_attribute("textContent") == before


def test_heads_cells_and_sliders_are_used_by_keyboard(browser, live_file):
    get = opened(browser, live_file)
    get("token-0").send_keys(Keys.ARROW_RIGHT)
    assert "Token 1, after BOS" in get("place").text
    get("head-0").send_keys(Keys.ARROW_RIGHT)
    assert get("chosen-head").text == "Encoder, block 0, head 1"
    cell = browser.one("#map td[tabindex='0']")
    row, column = (int(cell.get_attribute(f"data-{name}")) for name in ("row", "column"))
    cell.send_keys(Keys.ARROW_DOWN)
    cell = browser.driver.switch_to.active_element
    assert (cell.get_attribute("data-row"), cell.get_attribute("data-column")) == (str(row + 1), str(column))
    weight = cell.get_attribute("aria-label")
    assert re.fullmatch(rf"Encoder, block 0, head 1: digit {row + 1} \(“\d”\) looks at digit {column} "
                        rf"\(“\d”\), weight {weight}\.", get("cell").text)
    get("top-k").send_keys(Keys.ARROW_RIGHT)
    assert get("top-k-value").text == "1"
    assert get("distribution").text.count("cut off") == len(five.tokenizer) - 1
    get("draw").click()
    assert "as greedy" in get("drawn").text
    get("width").send_keys("1")
    get("penalty").send_keys("0")
    until(lambda: "the same as greedy" in get("best").text)


def test_the_page_says_that_parts_are_unknown_to_it(browser, tmp_path):
    model = model_of()
    model.decoder.blocks[1].feed_forward.gelu = torch.tanh
    path = tmp_path / "05_live.html"
    path.write_text(live.live_page(data_of(model, own=["gelu"])), encoding="utf-8")
    get = opened(browser, path)
    assert "this model has parts of your own that the page does not know" in get("problem").text
    assert "gelu" in get("problem").text
    assert not get("works").is_displayed()


def test_nothing_is_longer_than_the_model_has_places_for(browser, tmp_path):
    model = model_of(max_len=18)
    model.embedding.weight.data[six.EOS] = 0.0  # so it is never the likeliest: no answer ends
    path = tmp_path / "05_live.html"
    path.write_text(live.live_page(data_of(rounded(model))), encoding="utf-8")
    get = opened(browser, path)
    write(get("digits"), "3" * 19)
    assert "18 at most" in get("complaint").text
    write(get("digits"), "3" * 18)
    assert "(no EOS within 18 tokens)" in get("answer").text
    until(lambda: get("best").text)
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, browser, live_file):
    get = opened(browser, live_file, scheme=scheme)
    until(lambda: get("best").text)
    assert browser.violations() == []
    write(get("digits"), "12a4")
    assert browser.violations() == []
