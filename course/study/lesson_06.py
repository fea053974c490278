"""What is said about lesson 6: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_decoding.py"  # a learner's own, of --template

QUESTIONS = (
    Question("why-keep", "cache", "The decoder writes its 20th token. Why may keys and values of the "
             "first 19 be kept?", (
        Answer("Because they hardly change any more.",
               "They don't change at all."),
        Answer("Because no later token can change them: the causal mask never let them see one.",
               "Each token looks back only. So what was computed for it stays as it is, and a step runs "
               "one token through the decoder."),
        Answer("Because the last token alone counts.",
               "It looks at all earlier ones; that is what their keys and values are kept for.")), 1,
             "n tokens take n positions"),
    Question("likeliest", "greedy-can-be-wrong", "At every place greedy takes the likeliest token. Is "
             "the sentence that comes out the likeliest?", (
        Answer("Yes: a product of the largest factors is the largest product.",
               "The later factors depend on the earlier choice; after the likeliest word they may all "
               "be small."),
        Answer("Not always: after the likeliest first word each way on may be unlikely.",
               "Half of the sentences begin with “the”, but five words share what follows. The "
               "likeliest sentence begins with the rarer word."),
        Answer("No, never.",
               "If the model is sure at each place, it is.")), 1,
             "greedy misses the likeliest sentence"),
    Question("wider", "wider-beams", "An unsure model, no correction for the length. The beam gets "
             "wider, 1, 4, 16. Are the answers right more often?", (
        Answer("No: the wide beam finds what the model believes in most, and that is to say nothing.",
               "An unsure model pays at every token of a long answer. The empty one costs once. A "
               "narrow beam loses it on its way."),
        Answer("Yes: the wider beam finds answers with a higher probability.",
               "It does. But the model believes most in the empty answer, and the wide beam finds it."),
        Answer("It makes no difference.",
               "At width 16 most answers are empty; at width 1 none is.")), 0,
             "α = 0: none is empty at width 1"),
    Question("top-k-or-p", "sampling", "A distribution is sure, another unsure. Which rule keeps many "
             "tokens of the unsure one and few of the sure one?", (
        Answer("Top-k.",
               "It keeps k tokens of each, however sure it is."),
        Answer("Temperature.",
               "It changes all probabilities, and keeps every token."),
        Answer("Top-p.",
               "It takes the likeliest until they reach p together: one of them is enough where the "
               "model is sure.")), 2,
             "top-k keeps three of both"),
)

TERMS = (
    Term("greedy", "greedy",
         "Encode the source, begin with BOS, take the token with the largest logit, feed it back."),
    Term("cache", "",
         "All tokens before the new one were computed already; a cache of their keys and values saves "
         "doing it again."),
    Term("beam search", "beam-search",
         "Keep the `width` likeliest beginnings. All their continuations compete."),
    Term("sampling", "greedy-can-be-wrong",
         "Sampling, which draws each token with its probability, says each sentence as often as the "
         "model believes in it."),
    Term("temperature", "sampling",
         "Temperature below 1 sharpens it, above 1 flattens it."),
    Term("top-k", "sampling",
         "Top-k keeps the k likeliest tokens."),
    Term("top-p", "sampling",
         "Top-p keeps as many as it takes to reach the probability p: few when the model is sure, many "
         "when it isn't."),
)

EXERCISES = {
    "greedy_decode": Exercise(2, 25),
    "adjust_logits": Exercise(2, 30),
    "sample": Exercise(1, 15),
    "beam_search": Exercise(3, 60),
    "CachedDecoding": Exercise(3, 60),
}
