"""Questions about an idea, each asked before the step that answers it.

The right answer is bound to a check of that step: `check` is a part of its statement.
"""

from typing import NamedTuple


class Answer(NamedTuple):
    """An answer, and why it is right or wrong."""

    text: str
    reason: str


class Question(NamedTuple):
    """A question asked before the step; `right` is the place of the right answer, from 0 on."""

    name: str
    step: str
    asked: str
    answers: tuple[Answer, ...]
    right: int
    check: str


QUESTIONS: dict[int, tuple[Question, ...]] = {
    0: (
        Question("n-by-n", "broadcasting", "A network's predictions have the shape (N,), the wanted values "
                 "(N, 1). You subtract them, and train on the mean of the squares. What happens?", (
            Answer("An error: the shapes differ.",
                   "Aligned right, (N,) counts as (1, N), and a size of 1 is stretched. No shape is wrong."),
            Answer("The same as with two shapes (N,).",
                   "That would be N differences. These are N × N."),
            Answer("It trains without a word, and learns next to nothing of x.",
                   "Every prediction is compared with every value, so the best that each can do is the mean "
                   "of all values, whatever its x.")), 2,
                 "with (N,) − (N, 1) it isn't, and nothing is raised"),
        Question("used-twice", "chain-rule", "A value is used in two places of a computation. Two gradients "
                 "come back to it. Which one is its own?", (
            Answer("The later one: it replaces the other.",
                   "Then half of what moves the loss were forgotten."),
            Answer("Their sum.",
                   "If it moves, the loss moves by both ways at once, and for small moves these add up."),
            Answer("Their mean.",
                   "Two ways don't share one effect; each has its own.")), 1,
                 "both ways added"),
        Question("two-without-tanh", "two-layers", "You stack two linear layers with nothing between them. "
                 "What can they do that one can't?", (
            Answer("Nothing: two matrices one behind the other are one matrix.",
                   "(x·A)·B = x·(A·B). Only a function that bends the numbers between them makes more of two "
                   "layers than of one."),
            Answer("Part points that no straight line parts.",
                   "Straight after straight stays straight: a bend is missing."),
            Answer("The same as with a tanh between them, only it takes longer to learn.",
                   "No training helps: whatever the two matrices are, their product is one.")), 0,
                 "without tanh two layers are one"),
        Question("neighbours-gone", "embeddings", "Vectors of words are learned by guessing each word's "
                 "neighbours. You shuffle all words of the text. Do words of one class still get like "
                 "vectors?", (
            Answer("Yes: every word stands in the text as often as before.",
                   "How often says little of the class; with whom it stands does."),
            Answer("No: their neighbours were all that they had in common.",
                   "In random order all words have the same neighbours, so nothing tells the classes apart."),
            Answer("Yes, if it is trained for longer.",
                   "What isn't in the text any more, no training finds.")), 1,
                 "from shuffled words less than"),
        Question("it-learns", "broken-on-purpose", "A network trains. The loss falls, and new points get the "
                 "right class. Is the gradient right?", (
            Answer("Yes: a wrong gradient wouldn't lead downhill.",
                   "One that points roughly downhill is enough for that."),
            Answer("Yes, if the points are new.",
                   "New points say that the network is of use. They say nothing about how it was found."),
            Answer("That doesn't follow: many wrong gradients learn as well.",
                   "Most of the mistakes below still get nearly all points right. So compare gradients with "
                   "numbers that are known to be right.")), 2,
                 "mistakes still get 95 % of new points right"),
    ),
    1: (
        Question("two-vectors", "it-is-the-cat", "“it” seeks something living and finds the cat. Could the "
                 "cat have one vector, with which it both seeks and is found?", (
            Answer("No: a product of two vectors is the same both ways, so the cat would look at “it” just "
                   "as much.",
                   "With one vector for both, q·k is symmetric. Query and key are two maps so that seeking "
                   "isn't being found."),
            Answer("Yes: query and key are learned to be nearly alike anyway.",
                   "Here the cat seeks nothing at all, and is found as living: its two vectors could hardly "
                   "differ more."),
            Answer("Yes, if the value is another vector.",
                   "The value decides what is handed over, not who looks at whom.")), 0,
                 "… and “cat” doesn't look back"),
        Question("value-of-the-cat", "it-is-the-cat", "You change the value of “cat”, and nothing else. "
                 "What changes?", (
            Answer("The weights that “it” gives to each word.",
                   "Weights come from queries and keys alone; the value isn't asked."),
            Answer("What “it” gets, and no weight.",
                   "The weights say how much of each value is taken in. They are the same as before; what "
                   "they fetch is another."),
            Answer("Both.",
                   "For the weights to change a query or a key would have to change.")), 1,
                 "the cat with another value"),
        Question("future", "masks-hide", "Under a causal mask the words after position 2 are replaced by "
                 "others. What happens to the outputs 0 to 2?", (
            Answer("They move a little: a masked score is very small, but it isn't nothing.",
                   "It is −∞, and e^−∞ is exactly 0."),
            Answer("They move, for the sum in the softmax runs over all words.",
                   "The hidden words add exactly 0 to that sum."),
            Answer("They stay the same, to the last bit.",
                   "A hidden key has a weight of exactly 0, so nothing of it gets into any sum.")), 2,
                 "another future: outputs 0 to 2"),
        Question("why-divide", "why-the-root", "The scores of a wide head are not divided by √d_k. What "
                 "goes wrong?", (
            Answer("exp() overflows.",
                   "The softmax subtracts the largest score first; nothing overflows."),
            Answer("Nearly all weight lies on one key, and for most queries hardly any gradient comes back.",
                   "q·k adds up d_k products, so its spread grows like √d_k. The softmax of scores that far "
                   "apart is flat around them."),
            Answer("The weights no longer sum to 1.",
                   "They do, whatever the scores are: the softmax divides by their sum."),
            Answer("The scores get a mean far from 0.",
                   "Their mean stays 0; it is the spread that grows. And a mean the softmax would take "
                   "away.")), 1,
                 "… and more than half of the queries starve"),
    ),
    2: (
        Question("one-head", "one-average", "A token has to fetch the contents of two items. One head is 32 "
                 "numbers wide, each content 8. Can the one head do it?", (
            Answer("Yes: 16 of its 32 numbers are enough.",
                   "A weight multiplies the whole value, so it can't take these numbers of one item and "
                   "those of the other."),
            Answer("No: it takes one mean of the items, and what is mixed can't be told apart.",
                   "The more it lets in of one, the less of the other: the error stays near 0.5, where two "
                   "heads pass far below."),
            Answer("Yes, but it takes longer to learn.",
                   "What one mean can't hold, no training brings; the last step suggests to try ten times "
                   "as many.")), 1,
                 "one head stays near 0.5"),
        Question("more-heads", "parameters-do-not-depend-on-heads", "d_model stays 64. You take 16 heads "
                 "instead of 4. What becomes of the number of parameters?", (
            Answer("Four times as many: each head has matrices of its own.",
                   "It has, but they are a quarter as wide."),
            Answer("As many as before.",
                   "More heads are narrower heads: together their matrices are D × D, for any H."),
            Answer("Fewer, for narrow matrices are smaller.",
                   "Each is smaller, and there are as many times more of them.")), 1,
                 "formula and count agree for every H"),
        Question("each-a-head", "what-heads-learn", "Four heads learn to fetch four words for every word. "
                 "Does each head take one of the four?", (
            Answer("Always: that is the simplest way.",
                   "In other trainings a head divides its weight between two relations, and the task is "
                   "solved all the same."),
            Answer("Never: all heads do a bit of everything.",
                   "In some trainings there is a head for each relation."),
            Answer("In some trainings: that depends on the seed.",
                   "All of them solve the task. Nothing asks for a clean division of work, so it comes "
                   "about only sometimes.")), 2,
                 "some of them have a head for each relation"),
        Question("weight-and-effect", "where-not-why", "A head puts much weight on a word. Does that word "
                 "have an effect on the answer?", (
            Answer("That doesn't stand in the weight: another head may take it out again.",
                   "Replace the word, and the answer hardly moves, though the head alone would move it. The "
                   "weight says where a head looked, not what came of it."),
            Answer("Yes: what is looked at comes into the answer.",
                   "What one head brings in, another can take out again."),
            Answer("No: weights are only for pictures.",
                   "They are what the output is computed with.")), 0,
                 "some layers have such looks"),
    ),
    3: (
        Question("without-positions", "no-order", "One attention layer without positions and without a mask "
                 "reads “dog bites man”, then “man bites dog”. What does “bites” get?", (
            Answer("The same both times.",
                   "Attention adds up what all words hand over, and a sum has no order."),
            Answer("Something else: the words stand in other places.",
                   "Nothing in their vectors says where they stand."),
            Answer("The same, but only if all words are equal.",
                   "Any words do: they are the same set, in whatever order.")), 0,
                 "shuffled in, shuffled out"),
        Question("offset", "relative-position", "PE(p) · PE(p + k), the product of the vectors of two "
                 "positions: what does it depend on?", (
            Answer("On both positions.",
                   "sin a · sin b + cos a · cos b = cos(a − b): each pair of waves knows only the "
                   "difference."),
            Answer("On the distance k alone, to either side.",
                   "Each pair gives the cosine of its frequency times k. So the product is the same for k "
                   "words before and behind."),
            Answer("On k, and it says whether the other word stands before or behind.",
                   "A cosine is the same for k and −k.")), 1,
                 "PE(p) · PE(p + k) depends on k alone"),
        Question("rotated", "rotary", "Rotary positions turn query and key by angles that grow with their "
                 "positions. Two equal pairs of vectors stand elsewhere, as far apart. What becomes of the "
                 "score?", (
            Answer("It is the same.",
                   "Turning both by the same angle changes no product. What counts is by how much one is "
                   "turned more: the offset."),
            Answer("It changes, for both are turned further.",
                   "Both are turned further by the same angle, and a product doesn't notice that."),
            Answer("It is the same only for neighbours.",
                   "Any offset will do; neighbours are those with offset 1.")), 0,
                 "rotary: offset 2 gives one score everywhere"),
        Question("beyond", "longer-than-seen", "A layer learned on sequences of 16. Sinusoidal positions "
                 "are defined for every length. Does it find the token two places back at position 30?", (
            Answer("Yes: the same rotation leads two places back everywhere.",
                   "That matrix exists, but training hasn't found it."),
            Answer("Less often than with rotary positions, which show it only offsets.",
                   "The layer never met the sums of token and wave beyond 16. With rotary positions the "
                   "score knows the offset alone, and that one was trained."),
            Answer("As well as with rotary positions.",
                   "Rotary positions are ahead there, in every seed.")), 1,
                 "at 17 to 32 rotary is best"),
    ),
    4: (
        Question("bare", "residual-paths", "Eight bare layers with the usual first weights, without paths "
                 "and without norms. What becomes of the gradient on its way back?", (
            Answer("It gets through: each layer is trained for that.",
                   "These are new layers; each multiplies the gradient, and here by less than 1."),
            Answer("It shrinks or grows block after block: to nothing, or by thousands.",
                   "Each layer multiplies it, by less than 1 or by more, as the first weights happen to be. "
                   "A path adds 1 to the derivative, so that something always gets past."),
            Answer("It always shrinks.",
                   "With doubled weights it explodes.")), 1,
                 "without path and norm the gradient dies"),
        Question("batch-or-layer", "layer-norm", "A sentence stands in a batch with another, and PADs are "
                 "added. Whose output for a real token changes: that of LayerNorm, or of BatchNorm in "
                 "training?", (
            Answer("Both: each divides by a measured spread.",
                   "LayerNorm measures it over the numbers of the token itself."),
            Answer("That of LayerNorm.",
                   "It uses nothing but the token's own numbers."),
            Answer("That of BatchNorm.",
                   "It takes mean and variance over all tokens of the batch, neighbours and padding "
                   "included.")), 2,
                 "BatchNorm: both do"),
        Question("thinking-apart", "feed-forward", "The feed-forward network is given all positions of a "
                 "sentence at once, then one after the other. Are the outputs the same?", (
            Answer("No: at once it can compare the tokens.",
                   "Nothing in it mixes positions; that is what attention is for."),
            Answer("Yes: it works on each token by itself.",
                   "It is one function, used at each position alone. Only attention moves information "
                   "between tokens."),
            Answer("Only for sentences of one length.",
                   "The length never enters: each position is computed alone.")), 1,
                 "all positions at once = one by one"),
        Question("warm-up", "pre-or-post", "Two blocks are trained at a high rate, 0.02, without a warm-up. "
                 "Which of the two learns: pre-norm or post-norm?", (
            Answer("Pre-norm.",
                   "It leaves the path free, and learns with and without a warm-up. Post-norm needs smaller "
                   "first steps here. (Why, the next step can't settle.)"),
            Answer("Both: the norms keep everything in bounds.",
                   "With post-norm the path itself passes through every norm, and at this rate that "
                   "training fails."),
            Answer("Post-norm, the paper's.",
                   "It learns at low rates; at this one it needs a warm-up at least.")), 0,
                 "… pre-norm learns either way"),
    ),
    5: (
        Question("start-of-loss", "loss", "A model that has learned nothing chooses among V tokens. How "
                 "large is its loss, −log of the probability of the right one?", (
            Answer("About ln V.",
                   "Spread evenly, each token has a probability of 1/V, and −log(1/V) = ln V. A first loss "
                   "far above says that something is wrong."),
            Answer("About 1.",
                   "Then the right token would have a probability of e^−1 = 0.37, which isn't guessing."),
            Answer("Any number: it depends on the first weights.",
                   "Ours are chosen so that the first guesses are nearly even.")), 0,
                 "the untrained loss is near ln V"),
        Question("count-of-wholes", "two-accuracies", "Of all tokens 99 % are right with teacher forcing, "
                 "each after a perfect beginning. The trained model then answers by itself. Where is a "
                 "whole answer right?", (
            Answer("In more places: it can correct itself.",
                   "It can't take anything back, and one wrong token makes the answer wrong."),
            Answer("Exactly where all of its tokens are right with teacher forcing.",
                   "Up to the first wrong token it reads the same tokens in both. So a whole answer is "
                   "right for both or for none; 99 % of the tokens are far fewer answers."),
            Answer("In fewer places: its mistakes add up.",
                   "After the first mistake the answer is wrong already; later ones don't count.")), 1,
                 "an answer is right exactly where"),
        Question("what-is-needed", "attention-patterns", "Sequences of 10 digits, to be reversed. Each of "
                 "the decoder's attentions is replaced by what it gives on average at each place. Which one "
                 "can't be spared?", (
            Answer("All of them.",
                   "All but one can: what they bring depends on the place alone, and a mean for each place "
                   "has that."),
            Answer("The last cross-attention: there the digits come in.",
                   "Which digit stands there differs from sequence to sequence; no mean can know it."),
            Answer("The self-attentions of the decoder, which know what is written.",
                   "To reverse 10 digits it is enough to know the place.")), 1,
                 "a mean a place, 10 digits"),
        Question("cheating", "broken-on-purpose", "A model without the causal mask has a better loss and "
                 "more right tokens than the right model. Is it better?", (
            Answer("Yes: it sees more and so learns more.",
                   "It sees the very tokens that it has to guess."),
            Answer("That can't be told before it is tested on new sequences.",
                   "New sequences don't help while they are measured with teacher forcing: the answer still "
                   "stands in the input."),
            Answer("No: with teacher forcing it copies what it should guess, and alone it has nothing to "
                   "copy.",
                   "In training the answer stands in its input. When it has to answer, only what it wrote "
                   "itself is there.")), 2,
                 ": better than right with teacher forcing"),
    ),
    6: (
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
    ),
    7: (
        Question("what-is-held-out", "the-corpus", "You want to know whether a model puts learned rules "
                 "together, or knows sentences by heart. Which sentences belong in the test?", (
            Answer("Any tenth of all lines, drawn at random.",
                   "Then most of what a test sentence consists of has been seen together already."),
            Answer("Sentences of words that training never had.",
                   "A word that it never met it can't translate by any rule."),
            Answer("Known words in combinations that training never had.",
                   "Each word has been met, so only putting them together is asked for.")), 2,
                 "has a combination that training hasn't"),
        Question("alike-in-length", "batches", "The sentences of a batch are chosen so that they have about "
                 "the same length. What is gained?", (
            Answer("Less is computed for nothing: a batch is as wide as its longest sentence.",
                   "The rest of each row is PAD. The more alike the lengths, the less of it there is."),
            Answer("Padding needs no mask any more.",
                   "A little padding stays, and it has to be hidden as before."),
            Answer("The model learns from short sentences first.",
                   "The order of the batches is random; only within a batch lengths are alike.")), 0,
                 "by length: less than"),
        Question("which-word-counts", "bleu", "One translator writes la for every l’. Another always "
                 "says Julie, whoever it was. BLEU counts words in a row that agree with the reference. Who "
                 "gets the higher score, on the sentences that he spoils?", (
            Answer("The first: each of his sentences is understood.",
                   "BLEU doesn't know what is understood. His slip breaks the rows of words apart, too."),
            Answer("The second.",
                   "One wrong word in place of one right one: all others still agree. What it means isn't "
                   "counted."),
            Answer("Both the same: a slip is a slip.",
                   "It depends on how many rows of words a slip breaks apart.")), 1,
                 "naming somebody else costs less BLEU than la for l"),
        Question("place-or-partner", "alignment", "In French the adjective stands behind its noun. While "
                 "the model writes it, where does its surest head look?", (
            Answer("At the source word in the same place: both sentences are read from left to right.",
                   "For many words that rule is right, but not for the adjective; and the head does better."),
            Answer("At the first word, which stands for the whole sentence.",
                   "That rule finds few partners."),
            Answer("More often at the English word that it comes from.",
                   "Nobody tells it which word that is. To write the right word it has to find it.")), 2,
                 "finds a partner more often than the same place does"),
    ),
}
