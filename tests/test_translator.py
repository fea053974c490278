"""Lesson 8's live page: pieces, sentences and answers in JavaScript are Python's; the page in a browser."""

import json
import math
import re
import unicodedata
from itertools import pairwise
from random import Random
from types import SimpleNamespace

import pytest
import torch
from browsing import Keys, webdriver
from small_pairs import CPU, SENTENCES, m, run_of, training_on, written
from test_live import HOSTILE, Page, opened, until, write

from common import lesson
from course.data.alignment import word_weights
from course.pages import live, translator
from course.training.engine import finish
from course.training.on_texts import certainties
from course.training.replies import SHORT, USUAL, Replies, repaired, sentences_in

five, six, seven, twelve = (lesson(name) for name in (
    "05_mini_transformer", "06_decoding", "07_subwords", "12_finetuning"))
LIMIT = 0.8  # below it an answer is unsure
SIZES = m.TranslationModel(d_model=32, n_heads=4, n_layers=1)


def experiment_of(run, texts, outputs=None):
    """What a page is made of, without a command line."""
    model = run.model.eval()

    def pairs(count=None):
        return texts.splits["test"][:count]

    return SimpleNamespace(
        run=run, model=model, encoding=texts.encoding, texts=texts, own=five.NOTHING, pairs=pairs,
        answers=m.translate(model, texts.encoding, [pair.source for pair in pairs()]),
        training=texts.training,
        replies=Replies(str, lambda *_: 1.0, seven.split_words, texts.encoding.encode, texts.met, LIMIT),
        options=SimpleNamespace(outputs=outputs, page=True), file=lambda stem, ending: f"{stem}.{ending}")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Those of 400 short pairs; some words of the test are cut into letters."""
    file = written(tmp_path_factory.mktemp("pairs") / "pairs.tsv", SENTENCES)
    return m.Texts(m.TranslationTraining(pairs=str(file), steps=150, batch_size=16, warmup=10, vocab=60,
                                         validate_every=150, lr=0.01))


@pytest.fixture(scope="module")
def experiment(texts):
    """A model that translates some of the sentences, and isn't sure."""
    return experiment_of(finish(m.make_run(SIZES, texts.training, CPU, texts)), texts)


@pytest.fixture(scope="module")
def data(experiment):
    return translator.translator_data(experiment, m.translate)


@pytest.fixture(scope="module")
def small(experiment):
    """The model with the weights that its page has."""
    return translator.with_weights(experiment.model, live.in_8_bits(experiment.model).weights)


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "08_live.html"
    path.write_text(translator.translator_page(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def script(browser, file):
    """Runs JavaScript in which `model` and `pieces` are the page's."""
    browser.open(file)

    def run(code, *values):
        browser.open(file)
        return browser.run("const data = JSON.parse(get('data').textContent);"
                           "const pieces = new Pieces(data.encoding),"
                           "special = { bos: 1, eos: 2 }, model = new Transformer(data.config,"
                           f"readWeights(data.weights, data.shapes, data.bits)); {code}", *values)

    return run


# weights and what else the page gets


def untrained(**sizes):
    torch.manual_seed(0)
    return five.Transformer(five.TransformerConfig(**{"d_model": 24, "n_heads": 2, "vocab_size": 40} | sizes))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_matrices_are_lesson_twelves_with_a_scale_per_row(positions):
    model = untrained(positions=positions)
    model.embedding.weight.data[3] = 0.0
    bits, weights, raw = live.in_8_bits(model)
    assert (bits, len(raw)) == (8, sum(2 * weight.shape[0] + weight.numel() if weight.dim() == 2
                                       else 2 * weight.numel() for weight in weights.values()))
    for name, weight in model.named_parameters():
        wanted = (twelve.rounded(weight.detach(), 8, weight.shape[1]) if weight.dim() == 2
                  else weight.detach().half().float())
        assert torch.equal(weights[name], wanted), name
        assert (weights[name] - weight).abs().max() <= 0.6 / 127 * weight.abs().max() + 1e-6
    assert list(weights) == [name for name, _ in model.named_parameters()]
    copy = translator.with_weights(model, weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in copy.named_parameters())
    assert not torch.equal(model.embedding.weight, copy.embedding.weight)  # the model stays as it was


def test_what_differs_is_counted():
    assert translator.compared(["a", "b", "c"], ["a", "x", "y"], ["a", "b", "y"]) == {
        "sentences": 3, "differ": 2, "exact": [2 / 3, 2 / 3]}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """An untrained model's run and texts."""
    file = written(tmp_path_factory.mktemp("quick") / "pairs.tsv", SENTENCES[::2])
    texts = m.Texts(training_on(file))
    return run_of(texts.training), texts


def test_the_page_is_whole_and_needs_nothing_else(quick):
    data = translator.translator_data(experiment_of(*quick), m.translate)
    page = translator.translator_page(data)
    parsed = Page(page)
    assert not parsed.unclosed
    assert json.loads(parsed.scripts[0]) == json.loads(json.dumps(data))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "src" not in {name for _, attributes in parsed.tags for name in attributes}
    code = page.replace(parsed.scripts[0], "")
    outside = r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(|innerHTML|type=.module|@@"
    assert not re.search(outside, code)
    assert {*re.findall(r'get\("([\w-]+)"\)', code)} <= {*ids}
    assert data["compared"]["sentences"] == len(data["examples"]) == len(quick[1].splits["test"])
    assert [one["answer"] for one in data["examples"]] == m.translate(translator.with_weights(
        quick[0].model, live.in_8_bits(quick[0].model).weights), quick[1].encoding,
        [one["source"] for one in data["examples"]])


def test_text_from_outside_stays_text(quick):
    data = translator.translator_data(experiment_of(*quick), m.translate) | {"titles": [HOSTILE]}
    parsed = Page(translator.translator_page(data))
    assert len(parsed.scripts) == 2
    assert json.loads(parsed.scripts[0])["titles"] == [HOSTILE]
    assert not {*"<>&"} & {*parsed.scripts[0]}


def test_what_a_page_cannot_carry_is_said(quick, monkeypatch):
    data = translator.translator_data(experiment_of(*quick), m.translate)
    size = len(translator.translator_page(data).encode())
    monkeypatch.setattr(translator, "MOST_BYTES", size - 1)
    page = translator.translator_page(data)
    small = json.loads(Page(page).scripts[0])
    assert small["problem"] == f"its page would have {size:,} bytes, and {size - 1:,} is the limit"
    assert "weights" not in small
    assert len(page.encode()) < 100_000


def test_a_page_is_left_and_the_index_leads_to_it(quick, tmp_path):
    experiment = experiment_of(*quick, tmp_path)
    left = translator.write_translator(experiment, m.translate)
    assert left.file == "08_live.html"
    assert re.search(r"; weights in 8 bits change \d+ of \d+ test answers$", left.good_for)
    assert {path.name for path in tmp_path.iterdir()} == {"08_live.html", "index.html", "glossary.html"}
    assert 'href="08_live.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    experiment.options.page = False
    assert translator.write_translator(experiment, m.translate) is None


def test_a_model_that_the_page_cannot_run_leaves_a_page_that_says_so(quick, tmp_path):
    run, texts = quick
    experiment = experiment_of(run, texts, tmp_path)
    kept = run.model.embedding.weight.data[3, 4].item()
    run.model.embedding.weight.data[3, 4] = 1e9
    try:
        left = translator.write_translator(experiment, m.translate)
    finally:
        run.model.embedding.weight.data[3, 4] = kept
    assert "change" not in left.good_for
    assert "too large for float16" in (tmp_path / left.file).read_text(encoding="utf-8")


# the same in JavaScript as in Python


def kind_of(character):
    for kind, rule in (("d", r"\d"), ("s", r"\s"), ("l", r"[^\W_]")):
        if re.match(rule, character):
            return kind
    return "o"


def test_letters_digits_and_spaces_are_pythons(script):
    found = script("""return Array.from({ length: 0x20000 }, (_, code) => {
        const sign = String.fromCodePoint(code);
        return /\\p{Cn}|\\p{Cs}/u.test(sign) ? "-" : new RegExp(`[${SPACE}]`, "u").test(sign) ? "s"
          : new RegExp(`[${DIGIT}]`, "u").test(sign) ? "d"
          : new RegExp(`[${LETTER}]`, "u").test(sign) ? "l" : "o"; }).join("");""")
    wrong = [code for code, kind in enumerate(found) if kind != "-"
             and unicodedata.category(chr(code)) not in ("Cn", "Cs") and kind != kind_of(chr(code))]
    assert not wrong
    assert {*found} == {*"-sdlo"}


ODD = ("'", "’", "_", "é", "ñ", "œ", "ß", "3", "½", "٣", "中", "🙂", "́", "\t", "\n", "\x1c", "\x85", "\xa0",
       "\u2003", "\ufeff", "\u200d", "-", "…", "!", "<", "&", "ﬁ", "İ", "x", "the", "Le ", "  ", " ", "chat")


def odd_texts(seed, count):
    random = Random(seed)
    return ["".join(random.choice(ODD) for _ in range(random.randrange(12))) for _ in range(count)]


def test_words_are_cut_as_lesson_seven_cuts_them(script):
    texts = odd_texts(0, 1500)
    assert script("return arguments[0].map(splitWords)", texts) == [seven.split_words(text) for text in texts]


@pytest.mark.parametrize("seed", range(3))
def test_pieces_are_lesson_sevens(seed, script):
    learned = seven.BytePairEncoding.learn(
        [*odd_texts(seed, 200), *(text for pair in SENTENCES for text in pair)], 150, 30)
    random = Random(seed)
    texts = [*odd_texts(seed + 10, 300), *(source for source, _ in SENTENCES[::20]), "chat" * 40]
    ids = [[random.randrange(len(learned)) for _ in range(random.randrange(9))] for _ in range(300)]
    found = script("""const own = new Pieces(arguments[0]);
        return [arguments[1].map((text) => own.encode(text)),
                arguments[1].map((text) => own.decode(own.encode(text))),
                arguments[2].map((ids) => own.decode(ids))];""", learned.state(), texts, ids)
    assert found == [[learned.encode(text) for text in texts], texts, [learned.decode(row) for row in ids]]


def test_words_of_ids_are_the_words_of_their_text(script, experiment):
    encoding = experiment.encoding
    texts = ["The cat sleeps.", "L'arbre n'est pas là…", "🙂 x", *(target for _, target in SENTENCES[:9])]
    found = script("return arguments[0].map((text) => pieces.encode(text))"
                   ".map((ids) => [ids, pieces.words(ids)])", texts)
    for text, (ids, words) in zip(texts, found, strict=True):
        assert [word["text"] for word in words] == seven.split_words(text)
        assert [place for word in words for place in word["pieces"]] == [*range(len(ids))]
        assert [encoding.decode(ids[place] for place in word["pieces"]) for word in words] == [
            word["text"] for word in words]


def test_weights_between_words_are_those_of_the_lesson(script, experiment):
    pair, random = m.Pair("The old cat.", "Le vieux chat.", (), frozenset(), frozenset()), Random(0)
    source, target = (experiment.encoding.encode(text) for text in pair[:2])
    weights = torch.tensor([[random.random() for _ in source] for _ in [*target, "EOS"]])
    wanted = word_weights(weights, pair, *map(experiment.encoding.texts_of, (source, target)))
    found = script("return wordWeights(arguments[0], pieces.words(arguments[1]), pieces.words(arguments[2]))",
                   weights.tolist(), target, source)
    assert torch.allclose(torch.tensor(found), wanted, atol=1e-5)


def test_positions_are_lesson_threes(script):
    three = lesson("03_positional_encoding")
    torch.manual_seed(0)
    for width, heads in ((16, 2), (48, 3), (128, 8)):
        vectors, start = torch.randn(20, width), 37
        rotary = three.RotaryPositionalEncoding(width // heads)
        rows = vectors.view(20, heads, -1).transpose(0, 1)[None]  # (1, H, 20, K)
        wanted = rotary(rows, start)[0].transpose(0, 1).reshape(20, width)
        found = script("const [rows, start, size] = arguments;"
                       "return rows.map((row, t) => [...rotate(Float32Array.from(row), start + t, size)]);",
                       vectors.tolist(), start, width // heads)
        assert torch.allclose(torch.tensor(found), wanted, atol=1e-5)
        waves = script("return Array.from({ length: 60 }, (_, t) => [...waves(t, arguments[0])])", width)
        sinusoids = three.SinusoidalPositionalEncoding(width, 60)
        wanted = sinusoids(torch.zeros(1, 60, width))[0]
        assert torch.allclose(torch.tensor(waves), wanted, atol=1e-5)


def test_weights_are_read_as_they_were_written(script, experiment):
    weights = live.in_8_bits(experiment.model).weights
    found = script("return Object.fromEntries(Object.entries(model.weights).map(([name, { numbers }]) =>"
                   " [name, [...numbers]]))")
    assert {*found} == {*weights}
    for name, weight in weights.items():
        assert torch.equal(torch.tensor(found[name]), weight.flatten()), name


MET = {"words": "cat sleeps the", "rare": "sleeps", "untrained": [5], "capital": 1.0, "mark": 1.0,
       "ends": ".?!…"}


def test_sentences_are_cut_and_repaired_as_on_the_console(script):
    random = Random(1)
    parts = ("Mr.", "Dr.", "St", "the cat", "The cat", "sleeps", ".", "?", "! ", "…", " ", "3.5", "élan",
             "M.", "st.", "。", "！」", '."', "“mr.", "(The cat.)", "  ", "”", "e\u0301", "\u202f", "\u3000")
    lines = [" ".join(random.choice(parts) for _ in range(random.randrange(1, 9))) for _ in range(800)]
    lines += ["".join(random.choice(parts) for _ in range(random.randrange(1, 9))) for _ in range(800)]
    found = script("return arguments[0].map((line) => sentencesIn(line, arguments[1]))", lines, SHORT)
    assert found == [sentences_in(line) for line in lines]
    sentences = [sentence for row in found for sentence in row]
    for met in (MET, MET | {"capital": 0.5}, MET | {"mark": 0.2, "capital": 0.95}):
        found = script("return arguments[0].map((text) => repaired(text, arguments[1], arguments[2]))",
                       sentences, met, USUAL)
        assert found == [repaired(sentence, met) for sentence in sentences]
    assert script("return sentencesIn('One\\n\\nTwo. Three', ['Mr'])") == ["One", "Two.", "Three"]


def test_doubtful_words_are_those_of_the_console(script, experiment):
    encoding, random = experiment.encoding, Random(2)
    met = experiment.run.about["met"] | {"rare": "sleeps cat", "untrained": [*range(3, 120, 2)]}
    replies = Replies(str, lambda *_: 1.0, seven.split_words, encoding.encode, met, LIMIT)
    texts = [" ".join(random.choice(("The", "cat", "sleeps", "wug", "3", "?", "é", "dog", "Zut"))
                      for _ in range(6)) for _ in range(40)]
    found = script("""const of = (words) => new Set(words.split(" ").filter(Boolean)), met = arguments[1];
        const trained = { known: of(met.words), rare: of(met.rare), untrained: new Set(met.untrained) };
        return arguments[0].map((text) => { const ids = pieces.encode(text);
            return pieces.words(ids).map((word) => [doubtOf(word, ids, trained), word.text.trim()]); });""",
                   texts, met)
    for text, words in zip(texts, found, strict=True):
        kinds = {}
        for kind, word in words:
            if kind and word not in kinds.setdefault(kind, []):
                kinds[kind].append(word)
        assert replies.about_words(text) == [
            f"{kind}: " + ", ".join(f"“{word}”" for word in named) for kind, named in kinds.items()]
    assert {kind for words in found for kind, _ in words} == {
        "", "rare in training", "never met in training", "with pieces that no training sentence has"}


def test_case_counts_as_little_as_on_the_console(script):
    words = [text for text in odd_texts(3, 400) if text.strip()] + ["Straße", "ÉTÉ", " Σίσυφος", "ŒUF"]
    found = script("return arguments[0].map(folded)", words)
    kept = [word for word in words if "İ" not in word and "\ufeff" not in word and "\x1c" not in word
            and "\x85" not in word]
    assert [one for word, one in zip(words, found) if word in kept] == [
        word.strip().casefold() for word in kept]


def test_answers_may_be_as_long_as_in_the_lesson(script, experiment):
    lengths = [*range(1, 130)]
    found = script("return arguments[0].map((count) => answerLimit(count, arguments[1]))", lengths, 256)
    assert found == [m.answer_limit(experiment.model, [5] * length) for length in lengths]


def test_answers_are_lesson_eights_with_the_same_weights(script, experiment, small):
    sentences = [source for source, _ in SENTENCES[::9]] + ["The old wug sleeps.", "Zut! 3", "a"]
    found = script("""return arguments[0].map((sentence) => {
        const ids = pieces.encode(sentence), limit = answerLimit(ids.length, data.config.max_len);
        return [pieces.decode(greedy(model, ids, limit, special).tokens),
                pieces.decode(beamSearch(model, ids, limit, special, 4, 1).found[0].tokens)]; })""",
                   sentences)
    wanted = [m.translate(small, experiment.encoding, sentences, width) for width in (1, 4)]
    assert found == [list(row) for row in zip(*wanted)]
    assert len({one for one, _ in found}) > 20
    assert any(one != other for one, other in found)  # a beam finds other answers


def test_a_given_answer_has_the_logits_and_weights_of_a_written_one(script):
    gap = script("""const ids = pieces.encode("The cat sleeps."), one = greedy(model, ids, 30, special);
        const other = follow(model, ids, one.tokens, special);
        const cross = (state) => state.cross.flatMap(({ maps }) => maps.flat(2));
        return [one.logits.flatMap((row) => [...row]), other.logits.flatMap((row) => [...row]),
                cross(one.state), cross(other.state)];""")
    for one, other in zip(gap[::2], gap[1::2]):
        assert torch.allclose(torch.tensor(one), torch.tensor(other), atol=1e-5)


# the page


def text_of(get, id):
    return get(id).get_attribute("textContent")


@pytest.fixture
def page(browser, file):
    """Opens it → what finds an element by its id."""
    def at(width=1200, **surroundings):
        get = opened(browser, file, width, **surroundings)
        until(lambda: get("best").text)
        return get

    return at


def ask(browser, get, text, answer=True):
    """Type it in place of what stands there, and wait until it is answered."""
    browser.run("for (const [id, text] of [['sentence', arguments[0]], ['answer', '']])"
                " get(id)[id === 'answer' ? 'textContent' : 'value'] = text;"
                "get('sentence').dispatchEvent(new Event('input'))", text)
    if answer:
        until(lambda: text_of(get, "answer"))


@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits_and_every_check_holds(width, browser, page, experiment, small):
    get = page(width)
    until(lambda: "5 of 5" in get("checks").text)
    assert "✗" not in get("checks").text
    assert f"of {len(experiment.pairs())} test sentences" in get("checks").text
    ask(browser, get, " ".join(source for source, _ in SENTENCES[:4]) + " " + "antidisestablishment" * 8)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    ask(browser, get, "The dog falls now. the king waits")
    wanted = m.translate(small, experiment.encoding, ["The dog falls now.", "The king waits."])
    assert text_of(get, "answer") == " ".join(wanted)
    assert "read as “The king waits.”" in get("sentences").text


def test_it_is_written_piece_by_piece(browser, file):
    get = opened(browser, file, motion="no-preference")
    until(lambda: text_of(get, "answer"))
    browser.run("window.seen = []; const said = () => [...document.querySelectorAll('.said')]"
                ".map((word) => word.textContent).join(' '); new MutationObserver(() => seen.push(said()))"
                ".observe(get('sentences'), { childList: true, subtree: true, characterData: true });"
                "get('answer').textContent = ''")
    write(get("sentence"), "The king sleeps now.")
    until(lambda: text_of(get, "answer"))
    seen = [*filter(None, browser.run("return seen"))]
    assert len(seen) > 4
    assert all(len(one) < len(other) for one, other in pairwise(seen))
    assert seen[-1].endswith("EOS")


def test_a_word_tells_what_it_was_made_from(browser, page, data, experiment, small):
    get = page()
    ask(browser, get, "The boat falls often.")
    source, answer = "The boat falls often.", text_of(get, "answer")
    encoding = experiment.encoding
    batch = m.make_batch([encoding.encode(source)], [encoding.encode(answer)])
    with torch.no_grad(), five.record_attention(small) as recorded:
        logits = small(batch.src, batch.tgt_in)[0]
    block, head = map(int, re.search(r"Cross-attention, block (\d+), head (\d+)", get("made").text).groups())
    words = [word.strip() for word in seven.split_words(answer)]
    pair = m.Pair(source, answer, (), frozenset(), frozenset())
    weights = word_weights(recorded[f"decoder.blocks.{block}.cross_attention"][0, head], pair,
                           *(encoding.texts_of(encoding.encode(text)) for text in (source, answer)))
    boxes = browser.all(".tokens .choice")
    assert [box.find_element("css selector", ".said").text for box in boxes] == [*words, "EOS"]
    webdriver.ActionChains(browser.driver).move_to_element(boxes[1]).perform()
    assert get("chosen-word").text == f"“{words[1]}”"
    sources = ["The", "boat", "falls", "often", "."]
    largest = int(weights[1].argmax())
    assert f"looked most at “{sources[largest]}” ({weights[1].max():.2f})" in get("made").text
    assert boxes[1].find_element("css selector", ".seen").text.endswith(sources[largest])
    shown = browser.run("return [...document.querySelectorAll('.word')].map((chip) =>"
                        " Number(chip.style.getPropertyValue('--weight')))")
    assert shown == pytest.approx(weights[1].tolist(), abs=1e-4)
    heads = [item.text for item in browser.all("#by-head li")]
    for head, said in enumerate(heads):
        weights = word_weights(recorded["decoder.blocks.0.cross_attention"][0, head], pair,
                               *(encoding.texts_of(encoding.encode(text)) for text in pair[:2]))[1]
        assert said == f"block 0, head {head}: {sources[int(weights.argmax())]} {weights.max():.2f}"
    assert len(heads) == 4
    first = next(place for place in range(len(batch.tgt_out[0]))  # where word 1 begins
                 if encoding.decode(batch.tgt_out[0][: place + 1].tolist()).startswith(f"{words[0]} "))
    top = logits[first].softmax(-1).topk(5)
    rows = browser.one("#runners table").find_elements("css selector", "tbody tr")
    names = [data["tokens"][id].replace(" ", "␣") for id in top.indices.tolist()]
    assert [row.find_element("css selector", "th").text for row in rows[:5]] == names
    found = [row.find_element("css selector", "td").text for row in rows[:5]]
    assert found == [f"{100 * p:.1f} %" for p in top.values.tolist()]


def named(data, ids):
    """Pieces as the page writes them."""
    return [data["tokens"][id].replace(" ", "␣") for id in ids]


def share(text):
    return 0.0 if text.startswith("<") else float(text.removesuffix(" %")) / 100


def test_every_word_names_its_pieces_and_what_else_was_likely(browser, page, data, experiment, small):
    get = page()
    ask(browser, get, "The boat falls often.")
    encoding, answer = experiment.encoding, text_of(get, "answer")
    batch = m.make_batch([encoding.encode("The boat falls often.")], [encoding.encode(answer)])
    ids = batch.tgt_out[0].tolist()
    with torch.no_grad():
        probabilities = small(batch.src, batch.tgt_in)[0].softmax(-1)
    names, sure, place = named(data, ids), probabilities.gather(-1, batch.tgt_out[0][:, None])[:, 0], 0
    surest = []
    for box in browser.all(".tokens .choice"):
        browser.run("arguments[0].querySelector('input').click()", box)
        found = re.findall(r"(?:: |, )(\S+) \((< 0.1 %|[\d.]+ %)\)", get("made").text)
        pieces = range(place, place := place + len(found))
        assert [name for name, _ in found] == names[pieces.start : place]
        assert [share(p) for _, p in found] == pytest.approx(sure[pieces].tolist(), abs=1e-3)
        tables = browser.all("#runners table")
        assert [table.find_element("css selector", "caption").text for table in tables] == [
            f"Likeliest after “{encoding.decode(ids[:piece])}”" if piece else "Likeliest after BOS"
            for piece in pieces]
        for piece, table in zip(pieces, tables, strict=True):
            rows = table.find_elements("css selector", "tbody tr")
            top = probabilities[piece].topk(5)
            assert [row.text.split(" ", 1)[0] for row in rows[:5]] == named(data, top.indices.tolist())
            assert [share(row.text.split(" ", 1)[1]) for row in rows[:5]] == pytest.approx(
                top.values.tolist(), abs=1e-3)
        surest.append(sure[pieces].min().item())
        assert ("unsure" in box.get_attribute("class")) == (surest[-1] < LIMIT)
    assert place == len(ids)
    assert {one < LIMIT for one in surest} == {True, False}
    get("again").click()
    until(lambda: text_of(get, "answer"))
    assert browser.one("[name=word]:checked").get_attribute("value") == str(surest.index(min(surest)))


def test_maps_of_heads_are_the_models(browser, page, data, experiment, small):
    get = page()
    ask(browser, get, "The boat falls often.")
    encoding = experiment.encoding
    source, answer = (encoding.encode(text) for text in ("The boat falls often.", text_of(get, "answer")))
    batch = m.make_batch([source], [answer])
    with torch.no_grad(), five.record_attention(small) as recorded:
        small(batch.src, batch.tgt_in)
    source, written, read = (named(data, row) for row in (source, batch.tgt_out[0], batch.tgt_in[0]))
    for number, name, rows, columns in ((1, "encoder.blocks.0.self", source, source),
                                        (6, "decoder.blocks.0.self", written, read),
                                        (11, "decoder.blocks.0.cross", written, source)):
        wanted = recorded[f"{name}_attention"][0, number % 4]
        found = browser.run("""get(arguments[0]).click();
            const [[, ...columns], ...rows] = [...get("map").rows].map((row) => [...row.cells]);
            const [pen, size] = [get(arguments[0]).parentElement.querySelector("canvas"), rows.length];
            const seen = pen.getContext("2d").getImageData(0, 0, pen.width, pen.height).data;
            return [columns.map((cell) => cell.textContent), rows.map(([cell]) => cell.textContent),
              rows.map(([, ...cells]) => cells.map(({ style }) => +style.getPropertyValue("--weight"))),
              rows.map(([, ...cells], t) => cells.map((_, s) => seen[4 * (t * pen.width + s) + 3] / 255))];
            """, f"head-{number}")
        assert found[:2] == [columns, rows]
        assert torch.allclose(torch.tensor(found[2]), wanted, atol=1e-4)
        assert torch.allclose(torch.tensor(found[3]), wanted, atol=0.01)
        row, column = len(rows) - 1, 2
        browser.run("get('map').rows[arguments[0] + 1].cells[arguments[1] + 1].focus()", row, column)
        assert get("cell").text.endswith(
            f"looks at {'token 1' if 'decoder' in name and 'self' in name else 'source piece 2'} "
            f"(“{columns[2]}”), weight {wanted[row, column]:.2f}.")


def test_the_head_under_the_words_covers_the_source(page, data, small):
    covered = torch.zeros(4)
    for one in data["reference"]:
        with torch.no_grad(), five.record_attention(small) as recorded:
            small(torch.tensor([one["source"]]), torch.tensor([one["input"]]))
        covered += recorded["decoder.blocks.0.cross_attention"][0].amax(1).sum(-1)  # (H)
    assert page()("looking").text == f"Cross-attention, block 0, head {covered.argmax()}."


def test_words_heads_and_cells_are_used_by_keyboard(browser, page):
    get = page()
    ask(browser, get, "The cat falls here. The dog waits.")
    get("word-0-0").send_keys(Keys.ARROW_RIGHT)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "word-0-1"
    assert get("chosen-word").text == "“" + browser.one("#word-0-1 + label .said").text + "”"
    under = [seen.text for seen in browser.all(".seen")]
    get("head-0").send_keys(Keys.ARROW_LEFT)  # the last: of the cross-attention
    assert get("chosen-head").text == "Cross-attention, block 0, head 3"
    assert "block 0, head 3 looked most at" in get("made").text
    get("head-11").send_keys(Keys.ARROW_LEFT)
    assert under != [seen.text for seen in browser.all(".seen")]
    cell = browser.one("#map td[tabindex='0']")
    cell.send_keys(Keys.ARROW_UP)
    assert re.search(r"looks at source piece \d+ \(“.+”\), weight \d\.\d\d\.$", get("cell").text)
    get("word-1-0").send_keys(Keys.SPACE)  # of the other sentence
    assert "waits" in "".join(cell.text for cell in browser.all("#map thead th")).replace("␣", "")


def test_beams_answer_where_they_are_asked_for(browser, page, experiment, small):
    get = page()
    sources = [source for source, _ in SENTENCES]
    wanted = {width: m.translate(small, experiment.encoding, sources, width) for width in (1, 2, 6)}
    place = next(place for place in range(len(sources)) if wanted[2][place] != wanted[6][place])
    ask(browser, get, sources[place])
    assert text_of(get, "answer").split(" (")[0] == wanted[1][place]
    browser.run("get('by-beam').click()")
    for width in (2, 6):
        browser.run("get('width').value = arguments[0]; get('width').dispatchEvent(new Event('change'))",
                    str(width))
        until(lambda width=width: text_of(get, "answer").split(" (")[0] == wanted[width][place])
    until(lambda: "The search ends here" in get("best").text)
    assert ("the same as greedy" in get("best").text) == (wanted[6][place] == wanted[1][place])
    ids = experiment.encoding.encode(sources[place])
    for penalty in ("1", "0"):
        trace = []
        browser.run("get('penalty').value = arguments[0]; get('penalty').dispatchEvent(new Event('change'))",
                    penalty)
        (beams,) = six.beam_search(six.CachedDecoding(small, torch.tensor([ids])), 6,
                                   m.answer_limit(small, ids), float(penalty), trace)
        found = [float(item.rsplit("= ", 1)[1].split(" ")[0].replace("−", "-"))
                 for item in browser.run("return [...get('found').children].map(item => item.textContent)")]
        assert found == pytest.approx([one.score for one in beams], abs=2e-3)
    last = [[one.log_prob, fate] for one, fate in trace if len(one.tokens) == len(trace[-1][0].tokens)]
    rows = browser.run("return [...get('candidates').tBodies[0].rows].map("
                       "row => [...row.cells].slice(-2).map(cell => cell.textContent))")
    assert [fate for _, fate in rows] == [fate for _, fate in last]
    assert [float(p) for p, _ in rows] == pytest.approx([math.exp(one) for one, _ in last], rel=0.5, abs=5e-4)


def test_what_is_doubtful_is_named(browser, page, experiment, small):
    get = page()
    ask(browser, get, "The wug sleeps here. Zut")
    notes = [note.text for note in browser.all(".notes li")]
    assert "“wug”: with pieces that no training sentence has" in notes
    assert "“Zut”: with pieces that no training sentence has" in notes
    assert "read as “Zut.”" in notes
    ids = [experiment.encoding.encode(text) for text in ("Zut.", text_of(get, "answer").partition(". ")[2])]
    [sure] = certainties(small, m.make_batch(*[[row] for row in ids]))
    assert sure < LIMIT
    assert (f"unsure: {100 * sure:.0f} % per piece on average; nine in ten validation answers have more than "
            "80 %") in notes
    assert not any("“sleeps”" in note or "“The”" in note for note in notes)
    assert [word.text for word in browser.all(".word.doubted")] == ["wug", "Zut"]
    ask(browser, get, "", answer=False)
    until(lambda: get("complaint").text == "Type a sentence. Below is the translation of the last one.")
    ask(browser, get, "The wug sees the wug.")
    assert [note.text for note in browser.all(".notes li")].count(
        "“wug”: with pieces that no training sentence has") == 1  # however often it is there
    assert get("complaint").text == ""
    assert get("map").is_displayed()
    ask(browser, get, "x" * 2000, answer=False)
    until(lambda: "is too long for a model with max_len 256" in get("sentences").text)
    assert get("complaint").text == "No more than 2,000 characters are read."
    for about_the_last in ("chosen-word", "map", "grow"):
        assert not get(about_the_last).is_displayed()
    assert browser.complaints() == []


USES = {
    "a head": "get('head-2').click()",
    "a head of the cross-attention": "get('head-9').click()",
    "a cell": "document.querySelector('#map td')?.focus()",
    "the beam again": "get('grow').click()",
    "its width": "get('width').value = '2'; get('width').dispatchEvent(new Event('change'))",
    "its last step": "get('step').value = get('step').max; get('step').dispatchEvent(new Event('input'))",
    "a word": "document.querySelector('[name=word]').click()",
    "the other decoder": "get('by-beam').click()",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_all_can_be_used_while_it_writes(use, browser, file, experiment, small):
    get = opened(browser, file, motion="no-preference")
    browser.run(use)  # while the first translation is written
    until(lambda: get("best").text)
    text = "The old dog sees the king now."
    ask(browser, get, text, answer=False)
    until(lambda: "The old dog sees" in get("sentences").text)
    browser.run(use)
    until(lambda: text_of(get, "answer"))
    width = int(get("width").get_attribute("value")) if "beam" in use else 1
    assert text_of(get, "answer") == m.translate(small, experiment.encoding, [text], width)[0]
    assert browser.complaints() == []


def test_it_is_read_aloud_once_and_in_its_languages(browser, data, tmp_path):
    path = tmp_path / "08_live.html"
    path.write_text(translator.translator_page(data | {"languages": translator.LANGUAGES}), encoding="utf-8")
    get = opened(browser, path, motion="no-preference")
    until(lambda: get("best").text)
    browser.run("window.told = []; for (const status of document.querySelectorAll('[role=status]'))"
                "new MutationObserver(() => told.push(status.textContent)).observe(status,"
                "{ childList: true, subtree: true, characterData: true })")
    write(get("sentence"), "The king sleeps now.")
    until(lambda: text_of(get, "answer"))
    assert len([*filter(None, browser.run("return told"))]) <= 3  # not with every piece: answer, cell, beam
    languages = {selector: browser.run("return document.querySelector(arguments[0]).closest('[lang]').lang",
                                       selector)
                 for selector in (".from", ".said", ".seen .visually-hidden", ".seen span + span",
                                  "#answer span", "#made")}
    assert [*languages.values()] == ["en", "fr", "en", "en", "fr", "en"]


def test_examples_come_with_their_reference(browser, page, data):
    get = page()
    get("another").click()
    until(lambda: text_of(get, "answer"))
    source = get("sentence").get_attribute("value")
    example = next(one for one in data["examples"] if one["source"] == source)
    same = example["answer"] == example["target"]
    assert text_of(get, "answer") == (
        f"{example['answer']} "
        f"({'the same as the reference' if same else 'the reference: ' + example['target']})")


def test_parts_that_the_page_does_not_know_are_noticed(browser, quick, tmp_path):
    run, texts = quick
    experiment = experiment_of(run, texts)
    data = translator.translator_data(experiment, m.translate)
    data["reference"][0]["logits"][1][2] += 0.5
    path = tmp_path / "08_live.html"
    path.write_text(translator.translator_page(data), encoding="utf-8")
    get = opened(browser, path)
    assert "it has parts that the page does not know: its logits are off by 5e-1" in get("problem").text
    assert not get("works").is_displayed()
    assert browser.complaints() == []


def test_answers_that_do_not_end_or_are_not_pythons_are_noticed(browser, experiment, tmp_path):
    experiment = experiment_of(experiment.run, experiment.texts)
    experiment.model = translator.deepcopy(experiment.model)
    experiment.model.embedding.weight.data[2] = 0.0  # EOS is never the likeliest
    data = translator.translator_data(experiment, m.translate)
    data["examples"][1]["answer"] += "x"
    path = tmp_path / "08_live.html"
    path.write_text(translator.translator_page(data), encoding="utf-8")
    get = opened(browser, path)
    until(lambda: "4 of 5" in get("checks").text)
    limit = m.answer_limit(experiment.model, experiment.encoding.encode(data["examples"][0]["source"]))
    assert f"cut off: no EOS within {limit} pieces" in get("sentences").text
    assert [row.text[-4:] for row in browser.all("#checks tbody tr") if "4 of 5" in row.text] == ["✗ no"]
    assert "(cut off)" in get("found").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, browser, page):
    get = page(scheme=scheme)
    ask(browser, get, "The wug sleeps here. the cat")
    assert browser.violations() == []
