"""What is said about lesson 6: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_decoding.py"  # a learner's own, of --template

QUESTIONS = (
    Question("why-keep", "cache", "The decoder writes its 20th token. Why may the keys and values of the "
             "first 19 be kept?", (
        Answer("Because they hardly change any more.",
               "They don't change at all."),
        Answer("Because no later token can change them: the causal mask hides later tokens.",
               "Each token only looks back. So what was computed for it stays as it is, and a step runs "
               "one token through the decoder."),
        Answer("Because only the last token counts.",
               "It looks at all earlier tokens; that is what their keys and values are kept for.")), 1,
             "for n tokens, n positions"),
    Question("likeliest", "greedy-can-be-wrong", "At every place greedy takes the likeliest token. Is "
             "the result the likeliest sentence?", (
        Answer("Yes: a product of the largest factors is the largest product.",
               "The later factors depend on the earlier choice; after the likeliest word they may all "
               "be small."),
        Answer("Not always: after the likeliest first word every continuation may be unlikely.",
               "“The” has probability ½, but five words may follow it. The likeliest sentence begins "
               "with a rarer word."),
        Answer("No, never.",
               "If the model is sure at each place, greedy finds the likeliest sentence.")), 1,
             "greedy misses the likeliest sentence"),
    Question("wider", "wider-beams", "An unsure model answers, and nothing corrects for the length. The beam "
             "gets wider: 1, 4, 16. Are more answers right?", (
        Answer("No: the wide beam finds the likeliest answer, and that is the empty one.",
               "An unsure model pays for every token of a long answer. The empty answer pays only for "
               "EOS. A narrow beam drops it."),
        Answer("Yes: the wider beam finds answers with a higher probability.",
               "It does. But the likeliest answer of all is the empty one, and the wide beam finds it."),
        Answer("It makes no difference.",
               "At width 16 most answers are empty; at width 1 none is.")), 0,
             "with α = 0 no answer is empty at width 1"),
    Question("top-k-or-p", "sampling", "The model is sure of one token and unsure of another. Which rule "
             "keeps few candidates for the first and many for the second?", (
        Answer("Top-k.",
               "It keeps k tokens, however sure the model is."),
        Answer("Temperature.",
               "It changes all probabilities and cuts off no token."),
        Answer("Top-p.",
               "It takes the likeliest tokens until together they reach p. Where the model is sure, one "
               "token is enough.")), 2,
             "top-k keeps three tokens of each"),
)

TERMS = (
    Term("greedy", "greedy",
         "Encode the source, begin with BOS, take the token with the largest logit, feed it back, "
         "and repeat."),
    Term("cache", "",
         "A cache keeps the keys and values of all earlier tokens, so that they are computed only once."),
    Term("beam search", "beam-search",
         "Keep the `width` likeliest beginnings. All their continuations compete."),
    Term("sampling", "greedy-can-be-wrong",
         "Sampling draws each token with its probability, and so each sentence with the probability that "
         "the model gives it."),
    Term("temperature", "sampling",
         "A temperature divides the logits: below 1 it sharpens the distribution; above 1 it flattens it."),
    Term("top-k", "sampling",
         "Top-k keeps the k likeliest tokens."),
    Term("top-p", "sampling",
         "Top-p keeps the likeliest tokens that together reach the probability p: few when the model is "
         "sure, many when it isn't."),
)

EXERCISES = {
    "greedy_decode": Exercise(2, 25,
        guide={"": ["BOS for each row", "decoding.step() gives the logits of the next tokens, (N, V)",
                    "the likeliest token of each row; PAD where the answer has already ended",
                    "note which answers have ended; stop when all have, or at max_length",
                    "join the tokens, (N, T), without BOS"]},
        hints={
            "takes_the_likeliest": (
                "Each token that you choose is the input of the next step. An answer that has ended gets PAD.",
                "y_t = argmax P(y | y_1 … y_{t−1}, source), and PAD after EOS",
                "tokens = decoding.step(tokens).argmax(___).masked_fill(___, PAD)"),
            "respects_max_length": (
                "An answer may never end by itself, so the loop has a fixed number of steps.",
                "T ≤ max_length; BOS doesn't count, EOS does",
                "for _ in range(___):"),
            "stops_early": (
                "When each row has had its EOS, nothing more can change.",
                "ended = ended or token = EOS, for each row; stop if all have ended",
                "ended = ended | (tokens == ___), then if ended.___(): break"),
        }),
    "adjust_logits": Exercise(2, 30,
        guide={"": ["ValueError, with the value, for a temperature, top_k or top_p out of range",
                    "temperature 0: only the first of the likeliest tokens stays",
                    "subtract the largest logit, divide by the temperature",
                    "top_k: −∞ for logits below the k-th largest",
                    "top_p: sort the probabilities; cut a token if those before it have reached p",
                    "put the cuts back into the order of the tokens; −∞ there"]},
        hints={
            "divides_by_temperature": (
                "A low temperature makes differences between logits larger, and the distribution sharper.",
                "softmax(logits / temperature): temperature 0.5 squares the probabilities",
                "logits = logits / ___"),
            "zero_is_greedy": (
                "You can't divide by 0, but the limit is clear: probability 1 for the largest logit.",
                "logit 0 for the likeliest token, −∞ for all others",
                "torch.full_like(logits, -math.inf).scatter(-1, ___, 0.0)"),
            "keeps_k": (
                "Find the k-th largest logit and cut everything smaller. Equal logits stay.",
                "logit = −∞ where logit < k-th largest",
                "logits.masked_fill(logits < logits.topk(___).values[..., ___], -math.inf)"),
            "keeps_p": (
                "Go down from the likeliest token, and stop when the probabilities so far reach p.",
                "cut token i if Σ of the probabilities before it, in sorted order, ≥ p",
                "ranked.cumsum(-1) - ___ >= top_p"),
            "keeps_the_fewest": (
                "Sums in float32 are rounded: 0.35 + 0.25 + 0.15 + 0.10 may fall just short of 0.85.",
                "compare with p minus a small margin, 10⁻⁶",
                "cut = likelier >= top_p - ___"),
            "temperature_comes_first": (
                "top_p needs the probabilities after the temperature, because tokens are drawn from those.",
                "temperature, then top_k, then the softmax, then top_p",
                "probabilities = logits.softmax(-1), where logits are already divided by ___"),
            "always_keeps_one": (
                "p = 0 is reached without any token, but one token must be left to draw.",
                "the likeliest token is never cut",
                "cut[..., ___] = False, in sorted order"),
            "can_change_nothing": (
                "k ≥ V and p = 1 cut nothing; topk() fails if k is larger than V.",
                "cut only if 0 < k < V, and only if p < 1",
                "if 0 < top_k < logits.shape[___]:"),
            "takes_any_shape": (
                "Work along the last axis only; all axes before it stay as they are.",
                "(V,), (N, V) and (B, N, V): each row by itself",
                "dim=-1 in sort, cumsum, softmax and ___"),
            "refuses_nonsense": (
                "Check the three numbers first. Comparisons with NaN are False, so test for the valid range.",
                "0 ≤ temperature < ∞, 0 ≤ k, 0 ≤ p ≤ 1",
                'if not 0 <= top_p <= 1: raise ValueError(f"top_p is {___}")'),
        }),
    "sample": Exercise(1, 15,
        guide={"": ["the loop of greedy_decode", "adjust_logits, then the softmax",
                    "torch.multinomial draws one token per row, with the generator"]},
        hints={
            "sample_zero_is_greedy": (
                "The loop is greedy's; only the choice of the token is different.",
                "at temperature 0 one token has probability 1",
                "adjust_logits(logits, ___, top_k, top_p).softmax(-1)"),
            "draws_in_proportion": (
                "Each token is drawn as often as its probability says.",
                "P(token) = softmax(adjusted logits)",
                "torch.multinomial(___, 1, generator=generator)[:, 0]"),
            "cuts_the_tail": (
                "A token with the logit −∞ has the probability 0 and is never drawn.",
                "softmax(−∞) = 0",
                "adjust_logits(logits, temperature, ___, ___)"),
            "repeats": (
                "All random numbers must come from the generator that is passed in.",
                "same state, same draws",
                "torch.multinomial(probabilities, 1, generator=___)"),
            "pads_after_eos": (
                "As in greedy decoding: an answer that has ended gets PAD, whatever was drawn for it.",
                "token = PAD where the answer has ended",
                "drawn.masked_fill(___, PAD)"),
        }),
    "beam_search": Exercise(3, 60,
        guide={"": ["for each source: one hypothesis alive, without tokens, log P = 0; none finished",
                    "step() gives a row of logits for each hypothesis alive, of all sources; log_softmax",
                    "for each source: add the log P so far, rank the 2 · width likeliest continuations",
                    "those that end and are among the first `width` are finished; keep the best `width`",
                    "the best `width` of the rest are alive",
                    "drop all alive once none could overtake any of the `width` finished",
                    "reorder() with the rows of those alive; their newest tokens are the next input",
                    "at the end rank finished and alive together by log P / length^α"]},
        hints={
            "finds_the_best": (
                "A hypothesis is ranked by the sum of its log-probabilities, whether it ended or was cut off.",
                "log P(y) = Σ log P(y_t | y_1 … y_{t−1}); the logits need a log_softmax first",
                "sums[:, None] + logits.log_softmax(___), then sort over (W · V)"),
            "penalises_length": (
                "A long answer multiplies many probabilities. Its score makes up for the length.",
                "score = log P / length^α, where EOS counts and BOS doesn't",
                "log_prob / len(tokens) ** ___"),
            "width_one_is_greedy": (
                "With one hypothesis alive and α = 0, the first answer to end is the result.",
                "tokens without BOS, up to and including EOS",
                "Hypothesis(tokens, log_prob, score, token == ___)"),
            "reports_true_scores": (
                "Row i of the next step must hold the answer that hypothesis i continues.",
                "rows = for each hypothesis alive, the row that it came from",
                "decoding.reorder(torch.tensor(___)) before the next step()"),
            "keeps_the_beam_full": (
                "Up to `width` of the best candidates may end, and `width` others must be left to go on.",
                "rank 2 · width; an end counts among the first `width`; the best `width` others go on",
                "for rank, candidate in enumerate(ranked[: ___]): if it ends and rank < ___"),
            "stops_when_decided": (
                "With α > 0 a longer answer may have a better score than all finished answers.",
                "best reachable score = max over length + 1 and max_length of log P / length^α",
                "max(log_prob / n**alpha for n in (___, max_length)) <= finished[-1].score"),
            "batches": (
                "Each source has its own hypotheses, alive and finished; only step() is shared.",
                "rows of source b begin after those of the sources before it",
                "start = the number alive in all sources before; rows += [start + ___]"),
        }),
    "CachedDecoding": Exercise(3, 60,
        guide={"__init__": ["ValueError if the model is in training mode", "encode the source, and its mask",
                            "a KeyValueCache for each self_attention and each cross_attention",
                            "rows, device, and length 0"],
               "step": ["under torch.inference_mode()", "put the caches in place of the attentions' attend()",
                        "decode the newest token at the position `length`",
                        "one more token; the source's keys and values are kept from now on"],
               "reorder": ["the number of rows", "each cache of self-attention follows the rows",
                           "memory, mask and the caches of cross-attention follow as well"]},
        hints={
            "same_logits_sinusoidal": (
                "The newest token needs its own position, and the keys and values of all before it.",
                "logits_t = decode(y_t at position t, with the keys and values of y_1 … y_t)",
                "self.model.decode(tokens[:, None], self.memory, self.src_mask, ___)"),
            "same_logits_learned": (
                "Look up the position of the newest token, not position 0.",
                "start = the number of tokens that the answer has so far",
                "self.length += ___ after each step"),
            "same_logits_rotary": (
                "Rotary attention rotates the keys inside attend(), so cache them before the rotation.",
                "KeyValueCache.attend gets projected keys (B, H, 1, K), and passes on (B, H, t, K)",
                "torch.cat([self.keys, keys], dim=___)"),
            "runs_each_token_once": (
                "Only the newest token goes through the decoder.",
                "for n tokens n positions, not n·(n + 1) / 2",
                "decode(tokens[:, ___], …)"),
            "follows_its_rows": (
                "After reorder(rows), row i holds what row rows[i] held: keys, values and source.",
                "keys = keys[rows], values = values[rows], for self- and cross-attention",
                "for cache in ___: cache.reorder(rows)"),
            "refuses_training_mode": (
                "Dropout would make each answer different. Whoever owns the model sets its mode.",
                "model.training → ValueError",
                'if model.training: raise ValueError("the model is in training ___")'),
            "keeps_no_gradients": (
                "Nobody calls backward() on an answer, so no gradients are needed.",
                "logits.requires_grad is False",
                "@torch.___() above step"),
        }),
}
