"""What is said about lesson 7: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_subwords.py"  # a learner's own, of --template

QUESTIONS = (
    Question("why-not-words", "why-pieces", "You list all words of five lessons as tokens, and then read lesson "
             "6. How many of its words have no id?", (
        Answer("None: after five lessons all words have been used.",
               "Every text has new words, however much was read before."),
        Answer("More than one in 50.",
               "There are always new words. A model would get the same “unknown” for each of them."),
        Answer("Nearly all.",
               "Most words of a text are frequent words, and they are in the list.")), 1,
             "more than one in 50 of lesson 6's words has no id"),
    Question("count-again", "learning-fast", "After a merge, which counts of pairs have changed?", (
        Answer("The counts of the pairs next to the merged pair.",
               "All other pairs are where they were. So their counts can be kept."),
        Answer("All: every text has become shorter.",
               "A pair in a word without the merged pair occurs as often as before."),
        Answer("Only the count of the merged pair.",
               "Its neighbours now have a new piece next to them: their pairs have changed as well.")), 0,
             "both methods learn the same list of merges"),
    Question("how-many-pieces", "vocabulary-size", "More merges make every text shorter. Is a list with as many "
             "pieces as possible the cheapest?", (
        Answer("Yes: the fewer tokens, the less there is to compute.",
               "Each token then costs more: it has one logit for every piece in the list."),
        Answer("No: a short list is always cheaper.",
               "With characters the sequence is over three times as long as with words, and attention's cost "
               "grows with the square of the length."),
        Answer("No: the sum of both costs is smallest somewhere in between.",
               "Few tokens with many logits are expensive, and so are many tokens with few logits.")), 2,
             "the cheapest vocabulary is neither the smallest nor the largest"),
    Question("backwards", "what-a-model-sees", "“ attention” is one piece. What does a model see of its letters?", (
        Answer("All nine, in a row.",
               "It sees one number, the id of the piece."),
        Answer("Nothing: it sees one id. The spelling has to be learned from other texts.",
               "So counting letters, or writing a word backwards, is hard for it."),
        Answer("The first letter and the length.",
               "Neither is in the id.")), 1,
             "“ attention” is one piece, and the word written backwards doesn't contain this piece"),
    Question("which-language", "other-languages", "The pieces were learned from English. How many pieces does "
             "the same article have in Greek?", (
        Answer("About as many as in English: the texts have about as many letters.",
               "No Greek word, and hardly any Greek letter, occurred while the pieces were learned."),
        Answer("It can't be cut at all.",
               "Every character has its bytes, so every text can be cut."),
        Answer("More than four times as many as in English.",
               "Nearly every letter becomes two bytes, and bytes are never joined.")), 2,
             "Greek needs more than four times as many pieces as English"),
)

TERMS = (
    Term("pieces", "why-pieces",
         "Pieces lie in between: frequent words are one piece, rare words are several, and a character that "
         "was never seen becomes its bytes", ("piece",), only_there=True),
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
                            "for each merge append its two pieces joined, unless that piece is there already",
                            "keep each pair's rank and the id of its piece; keep self.merges"],
               "__len__": ["how many pieces there are"],
               "learn": ["count the words of all texts", "cut each into the ids of its characters",
                         "for each merge: count the pairs, join the most frequent pair in every word",
                         "return cls(alphabet, merges)"],
               "encode": ["cut the text into words",
                          "for each word the ids of its characters, or of their bytes",
                          "as long as a pair has a rank: join the pair with the smallest rank"],
               "decode": ["join the bytes of the pieces, and decode them as UTF-8"]},
        hints={
            "comes_back_unchanged": (
                "The pieces of a word are its text, cut up; a character without its own id becomes its bytes.",
                "decode(encode(text)) = text",
                "b\"\".join(self.pieces[___] for id in ids).decode(errors=\"replace\")"),
            "falls_back_to_bytes": (
                "UTF-8 writes every character in one to four bytes, and every byte has an id.",
                "id of a byte = 3 + byte",
                "[3 + byte for byte in character.___()]"),
            "numbers_its_pieces": (
                "First come the ids that always exist, then the characters of the texts, then the merged pieces.",
                "PAD, BOS, EOS; 256 bytes; sorted characters; pieces in the order of the merges",
                "self.pieces = [b\"\"] * 3 + [bytes([byte]) for byte in range(256)] + [___ for character in alphabet]"),
            "joins_the_most_frequent": (
                "After a merge its neighbours have a new piece next to them, so their pairs have changed.",
                "merge = argmax over pairs of Σ_words times · occurrences, counted after all earlier merges",
                "for word, times in counts.items(): for pair in zip(word, ___): count[pair] += ___"),
            "settles_ties": (
                "Two pairs may be equally frequent. Any rule would do, as long as it is always the same.",
                "of equal counts the smallest (left id, right id)",
                "min(pairs, key=lambda pair: (-count[pair], ___))"),
            "counts_words_as_often_as_they_occur": (
                "A frequent word should become one piece early, so each of its occurrences counts.",
                "count of a pair = Σ over words of (how often the word occurs) · (how often it contains the pair)",
                "Counter(word for text in texts for word in ___)"),
            "joins_from_the_left": (
                "Each merge takes two neighbours, and neither can be taken again.",
                "a a a a a → aa aa a",
                "position += 2 if the pair is there, else ___"),
            "replays_the_merges": (
                "Encoding repeats what learning did, in the same order. Longer pieces don't come first.",
                "join the pair with the smallest rank, until no pair of neighbours has a rank",
                "while pair := min(zip(ids, ids[1:]), key=___, default=None)"),
            "stays_inside_words": (
                "Cut the text into words first; a space belongs to the word after it.",
                "“to be” = “to” + “ be”",
                "for word in split_words(___)"),
            "cuts_as_learning_does": (
                "Learning never joined two words. Encoding must cut at the same places.",
                "encode(text) = encode(word 1) + encode(word 2) + …",
                "[id for word in split_words(___) for id in …]"),
            "leaves_special_tokens_alone": (
                "A text may talk about “<eos>”. Then these are five characters, and the sentence goes on.",
                "every id of a text is ≥ 3",
                "3 + byte, or the id of a character or piece: nothing else comes from ___"),
            "decodes_what_is_cut": (
                "A model may end an answer in the middle of a character. What is left is not valid UTF-8.",
                "bytes of all pieces in a row → text",
                "b\"\".join(…).decode(errors=___)"),
            "ends_when_nothing_is_left": (
                "When every word is one piece, there are no neighbours left.",
                "merges learned ≤ merges asked for",
                "while len(merges) < wanted and ___"),
        }),
}
