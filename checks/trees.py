"""Oracles for lesson 6's decoders: what greedy takes from a table, and every answer that a table allows."""

from torch import Tensor

from common import lesson
from course.console.records import Finding

BOS, EOS = lesson("03_positional_encoding", "BOS", "EOS")
pad = lesson("05_mini_transformer").pad

DECODING = (  # what a learner's own parts are given, and give
    "`decoding` has rows = N, device, and step(tokens (N,)) → logits (N, V). Call step() first "
    "with BOS = 1 for each row, then with the newest tokens. ")


def greedy_by_hand(levels: list[Tensor], stop: bool = True) -> Tensor:
    """The likeliest token after the tokens before it, source by source."""
    answers = []
    for source in range(len(levels[0])):
        tokens, place = [], 0
        for level in levels:
            tokens.append(int(level[source, place].argmax()))
            place = place * level.shape[-1] + tokens[-1]
            if stop and tokens[-1] == EOS:
                break
        answers.append(tokens)
    return pad(answers)


def enumerated(levels: list[Tensor], source: int, max_length: int) -> dict[tuple[int, ...], float]:
    """Every answer up to max_length and its log-probability, one by one."""
    found, vocabulary = {}, levels[0].shape[-1]
    beginnings = [((), 0, 0.0)]
    for length in range(max_length):
        log_probs = levels[length][source].log_softmax(-1).tolist()
        grown = []
        for tokens, place, total in beginnings:
            for token, log_prob in enumerate(log_probs[place]):
                answer = (*tokens, token), place * vocabulary + token, total + log_prob
                if token == EOS or length + 1 == max_length:
                    found[answer[0]] = answer[2]
                else:
                    grown.append(answer)
        beginnings = grown
    return found


def no_answer(found, answers: list[dict]) -> Finding | None:
    """A finding in words if some hypothesis isn't one of its source's possible answers."""
    for source, beams in enumerate(found):
        for hypothesis in beams:
            tokens = [int(token) for token in hypothesis[0]]
            if tuple(tokens) not in answers[source]:
                what = ("it begins with BOS" if tokens[:1] == [BOS] and tuple(tokens[1:]) in answers[source]
                        else "tokens follow EOS" if EOS in tokens[:-1]
                        else "it neither ends in EOS nor has max_length tokens")
                return Finding(False, f"{tokens} is not an answer: {what}",
                               f"tokens without BOS, up to and including EOS, which is {EOS}")
    return None
