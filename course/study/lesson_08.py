"""What is said about lesson 8: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_translation.py"  # a learner's own, of --template

QUESTIONS = (
    Question("what-is-held-out", "the-corpus", "You want to know whether a model combines learned "
             "rules, or has memorised sentences. Which sentences belong in the test?", (
        Answer("Any tenth of all lines, drawn at random.",
               "Then most combinations of a test sentence already occurred in training."),
        Answer("Sentences of words that never occurred in training.",
               "No rule translates a word that the model never met."),
        Answer("Known words in combinations that never occurred in training.",
               "The model has met each word, so the test asks only for their combination.")), 2,
             "has a combination that no training sentence has"),
    Question("alike-in-length", "batches", "The sentences of a batch are chosen so that they have about "
             "the same length. What is gained?", (
        Answer("Less computation is wasted: a batch is as wide as its longest sentence.",
               "The rest of each row is PAD. If the lengths are similar, there is less PAD."),
        Answer("Padding no longer needs a mask.",
               "A little padding stays, and the mask has to hide it as before."),
        Answer("The model learns from short sentences first.",
               "The order of the batches is random; only within a batch are the lengths similar.")), 0,
             "batches by length have less than 10"),
    Question("which-word-counts", "bleu", "One translator writes la for every l’. Another always "
             "writes Julie, whoever is meant. BLEU counts runs of words that agree with the reference. Which "
             "one gets the higher score on the sentences that its slip changes?", (
        Answer("The first: a reader still understands each sentence.",
               "BLEU doesn't measure understanding. This slip also breaks the runs of words apart."),
        Answer("The second.",
               "One wrong word replaces one right word, and all others still agree. BLEU ignores what "
               "a word means."),
        Answer("Both get the same score: a slip is a slip.",
               "It depends on how many runs of words a slip breaks apart.")), 1,
             "naming somebody else costs less BLEU than writing la for l"),
    Question("place-or-partner", "alignment", "In French the adjective comes after its noun. While "
             "the model writes it, where does its best head look?", (
        Answer("At the source word in the same place: both sentences run from left to right.",
               "That rule is right for many words, but not for the adjective, and the head does better."),
        Answer("At the first word, which stands for the whole sentence.",
               "The rule of the first word finds few partners."),
        Answer("At the English adjective, more often than at the word in the same place.",
               "Nobody tells the head which word that is, but the model needs it to choose the French "
               "adjective.")), 2,
             "finds a partner for far more content words than the “same place” rule"),
)

TERMS = (
    Term("BLEU", "bleu",
         "BLEU counts how many runs of 1, 2, 3 and 4 words from the answer also occur in the reference."),
    Term("brevity penalty", "bleu",
         "The brevity penalty punishes leaving out the hard parts.", ("brevity",)),
)

EXERCISES = {
    "BatchesByLength": Exercise(2, 25,
        guide={"__init__": ["store the arguments"],
               "__len__": ["the number of batches per epoch, the smaller last one included"],
               "__call__": ["the epoch and the number of the batch in it: divmod(step, len(self))",
                            "a generator from seed and epoch", "shuffle the pairs, sort them by length, cut them",
                            "shuffle the batches, choose one, make_batch() of its sources and targets"]},
        hints={
            "has_every_pair_once": (
                "An epoch is an order of all pairs, cut into batches.",
                "each number 0 … n − 1 once",
                "random.permutation(___)"),
            "keeps_the_last_batch": (
                "203 pairs make 12 batches of 16 and one of 11.",
                "⌈n / size⌉ batches",
                "-(-len(self.sources) // ___)"),
            "keeps_pairs_together": (
                "Sources and targets have to be in the same order.",
                "row i of src belongs to row i of tgt_in and tgt_out",
                "[self.sources[row] for row in rows], [self.targets[___] for row in rows]"),
            "depends_on_step_and_seed_alone": (
                "A run that was interrupted asks for step 30 first. It has to get the same batch as an uninterrupted run.",
                "batch = f(step, seed)",
                "np.random.default_rng((self.seed, ___))"),
            "pads_little": (
                "Rows of the same length need no PAD. So put sentences of about the same length together.",
                "padding = ids that are PAD / all ids",
                "sort the pairs by ___, then cut them"),
            "differs_by_epoch_and_seed": (
                "If the order is always the same, the model also learns the order.",
                "order = f(seed, epoch)",
                "np.random.default_rng((___, ___)).permutation(…)"),
            "mixes_the_lengths": (
                "If short sentences always come first, the model forgets them while it sees the long ones.",
                "no correlation of length and step",
                "shuffle the ___ after cutting"),
            "mixes_the_pairs": (
                "In each epoch a pair should meet other pairs of its length.",
                "shuffle, sort by length (equal lengths stay shuffled), cut, shuffle the batches",
                "rows = random.permutation(___), before sorting"),
        }),
    "corpus_bleu": Exercise(2, 40,
        guide={"": ["ValueError for lists of different length", "cut each answer and its reference into words",
                    "for n = 1 … 4 add up the answers' n-grams, and the smaller count of each that both have",
                    "smooth orders without a match, unless none matches at all",
                    "the geometric mean of the four fractions, times the brevity penalty"]},
        hints={
            "is_100_for_equal_texts": (
                "All four precisions are 1, and the answers are as long as the references.",
                "BLEU = 100 · brevity · (p₁ · p₂ · p₃ · p₄)^¼",
                "precisions: 100 · matches / ___"),
            "equals_the_formula": (
                "Count the runs of n words, n from 1 to 4, and take the geometric mean of the fractions.",
                "exp(¼ · Σ_n log p_n)",
                "math.exp(sum(map(math.log, ___)) / 4)"),
            "clips_its_counts": (
                "The answer says “the” seven times, the reference twice: two of them count.",
                "min(count in the answer, count in the reference)",
                "matches += min(said[words], ___)"),
            "compares_the_lengths_of_the_corpora": (
                "A sentence may be short if another is long: only the sums are compared.",
                "exp(1 − r / c) if c < r, else 1; c and r: words of all answers, of all references",
                "min(1.0, math.exp(1 - ___ / ___))"),
            "sums_over_the_corpus": (
                "One fraction for the whole corpus: long sentences then weigh more.",
                "p_n = Σ matches / Σ n-grams",
                "for answer, reference in zip(answers, references): matches[n] += ___; totals[n] += ___"),
            "smooths_orders_without_a_match": (
                "If no four words in a row match, the mean would be 0: such an order gets half a match instead.",
                "exp: ½ match, then ¼, …; none: 0",
                "halved /= 2, for each order without a match"),
            "is_0_without_any_match": (
                "If not one word is right, nothing is smoothed.",
                "no match at all: 0",
                "if not any(___)"),
            "takes_empty_answers": (
                "A sentence of three words has no four in a row and adds nothing to p₄. An empty one adds nothing at all.",
                "Σ over the other sentences; its words are missing from c",
                "range(len(answer) - n + 1) may be empty"),
            "minds_the_case": (
                "“Paris” and “paris” are two different words.",
                "case: mixed",
                "no .lower() on ___"),
            "cuts_at_marks": (
                "Each mark is a word, except . and , between digits.",
                "“Non, merci.” has 4 words, “1,000.5” has one",
                "tokenize(___)"),
            "takes_another_tokenizer": (
                "The caller may cut words in another way.",
                "tokenize: text → words",
                "tokenize(answer), tokenize(___)"),
            "refuses_lists_of_different_length": (
                "Raise a ValueError that names both lengths.",
                "len(answers) ≠ len(references) → ValueError",
                'raise ValueError(f"{len(answers)} answers, {___} references")'),
        }),
}
