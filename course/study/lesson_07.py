"""What is said about lesson 7: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_subwords.py"  # a learner's own, of --template

QUESTIONS = (
    Question("why-not-words", "why-pieces", "You list all words of five lessons as tokens, and then read the "
             "sixth. How many of its words have no id?", (
        Answer("None: after five lessons all words have been used.",
               "Every text has words that were never used before, however much was read."),
        Answer("More than one in 50.",
               "New words never end. A model would get the same “unknown” for each of them."),
        Answer("Nearly all.",
               "Most words of a text are frequent words, and they are in the list.")), 1,
             "more than one in 50 of lesson 6's words has no id"),
    Question("count-again", "learning-fast", "After a merge, which counts of pairs have changed?", (
        Answer("Those of the pairs next to the places where the merge was made.",
               "All other pairs are where they were. So the counts can be kept."),
        Answer("All: every text has become shorter.",
               "A pair in a word without the merged pair occurs as often as before."),
        Answer("Only the count of the merged pair.",
               "Its neighbours now stand next to a new piece: their pairs have changed as well.")), 0,
             "both learn the same merges in the same order"),
    Question("how-many-pieces", "vocabulary-size", "More merges make every text shorter. Is a list with as many "
             "pieces as possible the cheapest?", (
        Answer("Yes: the fewer tokens, the less there is to compute.",
               "Each token then costs more: it has one logit for every piece of the list."),
        Answer("No: a short list is always cheaper.",
               "With characters the sequence is three times as long, and attention costs the square."),
        Answer("No: somewhere in between the sum of both costs is smallest.",
               "Few tokens with many logits, many tokens with few: both are dear.")), 2,
             "the cheapest vocabulary is neither the smallest nor the largest"),
    Question("backwards", "what-a-model-sees", "“ attention” is one piece. What does a model see of its letters?", (
        Answer("All nine, in a row.",
               "It sees one number, the id of the piece."),
        Answer("Nothing: it sees one id. The spelling has to be learned from other texts.",
               "So counting letters, or writing a word backwards, is hard for it."),
        Answer("The first letter and the length.",
               "Neither is in the id.")), 1,
             "“ attention” is one piece, and backwards it has none of the same pieces"),
    Question("which-language", "other-languages", "The pieces were learned from English. The same article in "
             "Greek: how many pieces?", (
        Answer("About as many: the texts have about as many letters.",
               "No Greek word, and hardly any Greek letter, was met while the pieces were learned."),
        Answer("It can't be cut at all.",
               "Every character has its bytes, so every text can be cut."),
        Answer("More than four times as many as in English.",
               "Nearly each letter becomes two bytes, and bytes are never joined.")), 2,
             "Greek needs more than four times as many pieces as English"),
)

TERMS = (
    Term("pieces", "why-pieces",
         "Pieces lie between: frequent words are one piece, rare words are several, and a character that was "
         "never seen becomes its bytes", ("piece",), only_there=True),
    Term("byte-pair encoding", "by-hand",
         "Count how often each pair of neighbours occurs, join the most frequent pair everywhere (this is "
         "one merge), and repeat until there are enough merges."),
    Term("merge", "by-hand",
         "join the most frequent pair everywhere (this is one merge)", ("merges",),
         only_there=True),
)

EXERCISES = {
    "BytePairEncoding": Exercise(3, 60,
        guide={"__init__": ["self.pieces: three times b\"\", the 256 bytes, the characters, all as bytes",
                            "for each merge append its two pieces joined, unless they are there already",
                            "keep for each pair its rank and the id of what it makes; keep self.merges"],
               "__len__": ["how many pieces there are"],
               "learn": ["count the words of all texts", "cut each into the ids of its characters",
                         "as often as wanted: count the pairs, join the most frequent in every word",
                         "return cls(alphabet, merges)"],
               "encode": ["cut the text into words",
                          "for each word the ids of its characters, or of their bytes",
                          "as long as there is a pair with a rank: join the one of the smallest rank"],
               "decode": ["join the bytes of the pieces, and decode them as UTF-8"]},
        hints={
            "comes_back_unchanged": (
                "The pieces of a word are its text, cut; a character without a number of its own has its bytes.",
                "decode(encode(text)) = text",
                "b\"\".join(self.pieces[___] for id in ids).decode(errors=\"replace\")"),
            "falls_back_to_bytes": (
                "UTF-8 writes every character in one to four bytes, and every byte has an id.",
                "id of a byte = 3 + byte",
                "[3 + byte for byte in character.___()]"),
            "numbers_its_pieces": (
                "First what is always there, then the characters of the texts, then what the merges make.",
                "PAD, BOS, EOS; 256 bytes; sorted characters; pieces in the order of the merges",
                "self.pieces = [b\"\"] * 3 + [bytes([byte]) for byte in range(256)] + [___ for character in alphabet]"),
            "joins_the_most_frequent": (
                "After a merge its neighbours stand beside something new: their pairs are others now.",
                "merge = argmax over pairs of Σ_words times · occurrences, counted after the merges before it",
                "for word, times in counts.items(): for pair in zip(word, ___): count[pair] += ___"),
            "settles_ties": (
                "Two pairs may be equally frequent. Any rule would do, if it is always the same one.",
                "of equal counts the smallest (left id, right id)",
                "min(pairs, key=lambda pair: (-count[pair], ___))"),
            "counts_words_as_often_as_they_occur": (
                "A frequent word should become one piece soon: each of its occurrences counts.",
                "count of a pair = Σ over words of (how often the word occurs) · (how often the pair stands in it)",
                "Counter(word for text in texts for word in ___)"),
            "joins_from_the_left": (
                "Each merge takes two neighbours; what it has taken can't be taken again.",
                "a a a a a → aa aa a",
                "position += 2 if the pair stands there, else ___"),
            "replays_the_merges": (
                "Encoding repeats what learning did, in the same order. A longer piece has no right of way.",
                "join the pair of the smallest rank, as long as one of the neighbours was ever joined",
                "while pair := min(zip(ids, ids[1:]), key=___, default=None)"),
            "stays_inside_words": (
                "Cut the text into words first; the space goes with the word behind it.",
                "“to be” = “to” + “ be”",
                "for word in split_words(___)"),
            "cuts_as_learning_does": (
                "Learning never saw two words as one. Encoding has to cut at the same places.",
                "encode(text) = encode(word 1) + encode(word 2) + …",
                "[id for word in split_words(___) for id in …]"),
            "leaves_special_tokens_alone": (
                "A text may talk about “<eos>”. Then these are five characters, and the sentence goes on.",
                "ids of a text ≥ 3",
                "3 + byte, or the id of a character or piece: nothing else comes from ___"),
            "decodes_what_is_cut": (
                "A model may end an answer inside a character. What is left of the character is no UTF-8.",
                "bytes of all pieces in a row → text",
                "b\"\".join(…).decode(errors=___)"),
            "ends_when_nothing_is_left": (
                "When every word is one piece, there are no neighbours left.",
                "merges learned ≤ merges asked for",
                "while len(merges) < wanted and ___"),
        }),
}
