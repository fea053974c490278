"""Four hundred short pairs, files of them, and a small model for them."""

import torch

from common import lesson

m, five = lesson("08_translation"), lesson("05_mini_transformer")
BytePairEncoding = lesson("07_subwords").BytePairEncoding
CPU = torch.device("cpu")
SMALL = m.TranslationModel(d_model=16, n_heads=2, n_layers=1, dropout=0.1)
NOUNS = {"cat": "chat", "dog": "chien", "book": "livre", "tree": "pommier", "king": "roi", "wall": "mur",
         "boat": "bateau", "train": "train"}
VERBS = {"sleeps": "dort", "falls": "tombe", "waits": "attend", "dreams": "rêve", "smiles": "sourit"}
HOWS = {"here": "ici", "now": "maintenant", "often": "souvent", "there": "là", "today": "aujourd'hui",
        "late": "tard", "early": "tôt", "well": "bien", "alone": "seul", "again": "encore"}
SENTENCES = [(f"The {noun} {verb} {how}.", f"Le {NOUNS[noun]} {VERBS[verb]} {HOWS[how]}.")
             for noun in NOUNS for verb in VERBS for how in HOWS]


def written(path, pairs, more="", ending="\n"):
    """The file, with a pair a line."""
    path.write_bytes("".join(f"{source}\t{target}{more}{ending}" for source, target in pairs).encode())
    return path


def training_on(file):
    """Twenty steps, validated twice."""
    return m.TranslationTraining(pairs=str(file), steps=20, batch_size=8, warmup=5, vocab=60,
                                 validate_every=10, lr=0.01)


def run_of(training, config=SMALL):
    return m.make_run(config, training, CPU, m.Texts(training))


def weights(run):
    return torch.cat([tensor.flatten() for tensor in run.model.state_dict().values()])
