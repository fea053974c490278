"""What the checks themselves are worth: every claim can fail, every mistake has its name, oracles add up."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import functools
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import inspect
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import math
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import re
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import sys
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from contextlib import suppress
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import pytest
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
import torch
<<<<<<< HEAD
from conftest import LESSONS, catalogue
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from conftest import LESSONS
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
from torch import Tensor, nn
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from torch.utils._pytree import tree_leaves
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from checks.attention import expected_weights
<<<<<<< HEAD
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from checks.broken import signatures
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
from checks.trees import enumerated, greedy_by_hand
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from common import lesson
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from course.data.tables import DRAWS, chi_square, random_tree
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
from course.grading.checking import refused
<<<<<<< HEAD
from course.training.broken import signatures
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
PARTS = [(name, part) for name in LESSONS for part in lesson(name).GRADED]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.fixture(autouse=True)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def inputs_as_they_were():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """What an implementation writes into the inputs of the checks is put right after the test."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    named = [vars(module) for name, module in sys.modules.items() if name.startswith("checks.")]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    tensors = [leaf for names in named for leaf in tree_leaves([*names.values()]) if isinstance(leaf, Tensor)]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    before = [tensor.detach().clone() for tensor in tensors]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    yield
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    for tensor, kept in zip(tensors, before):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        tensor.detach().copy_(kept)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
# wrong implementations, of anything
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def spoiled(result):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Other numbers of the same shape."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if isinstance(result, Tensor):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return result.clone() if result.dtype == torch.bool else result * 3 + 1
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if isinstance(result, int | float):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return result * 3 + 1
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if isinstance(result, tuple) and hasattr(result, "_make"):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return result._make(map(spoiled, result))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if isinstance(result, tuple | list) and type(result) in (tuple, list):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return type(result)(map(spoiled, result))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return result
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def detached(result):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return result.detach() if isinstance(result, Tensor) else result
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def wrong_functions(part) -> list:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Gives other numbers; cuts the gradient; writes into its inputs; refuses nothing."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    @functools.wraps(part)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def writing(*inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        result = part(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        for tensor in inputs:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            if isinstance(tensor, Tensor) and not tensor.requires_grad:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                tensor.copy_(torch.zeros_like(tensor))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return result
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    @functools.wraps(part)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def accepting(*inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        with suppress(ValueError, TypeError):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return part(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return [functools.wraps(part)(lambda *inputs, **options: spoiled(part(*inputs, **options))),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            functools.wraps(part)(lambda *inputs, **options: detached(part(*inputs, **options))),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            writing, accepting]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def wrong_classes(part: type) -> list:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The same for modules, and one that learns one number more, and one that begins with zeros."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Spoiled(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def forward(self, *inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return spoiled(super().forward(*inputs, **options))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Mixing(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def forward(self, *inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            result = super().forward(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return result + 1e-6 * result.sum()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Learning(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def __init__(self, *inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            super().__init__(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            self.more = nn.Parameter(torch.ones(1))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Zeros(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def __init__(self, *inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            super().__init__(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            for parameter in self.parameters():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                nn.init.constant_(parameter, 1.0)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Writing(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def forward(self, x, *inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            result = super().forward(x, *inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            x.data.zero_()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return result
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def accepting(*inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        with suppress(ValueError):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return part(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return [Spoiled, Mixing, Learning, Zeros, Writing, accepting]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def wrong_tokenizers(part: type) -> list:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Other(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def encode(self, text):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return [number + 1 for number in super().encode(text)][::-1]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def decode(self, ids):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return super().decode(ids).replace(" ", "")
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Known(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def encode(self, text):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            with suppress(ValueError):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                return super().encode(text)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return [Other, Known]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def wrong_decoders(ours) -> dict[str, list]:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """By hand, for the parts of lesson 6 whose results have their own shape."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def fixed(decoding, max_length, *others, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return torch.full((decoding.rows, max_length + 1), 4)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def greedy(decoding, max_length, *others, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return ours.greedy_decode(decoding, max_length)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def reversed_batch(decoding, *options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return ours.beam_search(decoding, *options)[::-1]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def after_the_end(decoding, max_length, *others, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        answers = fixed(decoding, max_length)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        answers[:, 0] = ours.EOS
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return answers
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def unadjusted(logits, *others, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return logits
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    class Turned(ours.CachedDecoding):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def step(self, tokens):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return super().step(tokens).flip(-1)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return {"sample": [fixed, greedy, after_the_end], "adjust_logits": [unadjusted],
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            "greedy_decode": [fixed], "beam_search": [reversed_batch],
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            "CachedDecoding": [Turned]}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def wrong_ones(ours, name: str) -> list:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The mistakes of the part, then others, of any part."""
<<<<<<< HEAD
    own = getattr(ours, name)
    known = [mistake.implementation for mistake in catalogue(ours, name).values()]
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    part, own = ours.GRADED[name], getattr(ours, name)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    known = [mistake.implementation for made in (part.mistakes, part.more) for mistake in made(ours).values()]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
    known += wrong_decoders(ours).get(name, []) if hasattr(ours, "CachedDecoding") else []
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if name in ("sample", "greedy_decode", "beam_search", "CachedDecoding"):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return known
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if name == "Tokenizer":
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return known + wrong_tokenizers(own)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if name == "Adam":
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return known
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return known + (wrong_classes(own) if inspect.isclass(own) else wrong_functions(own))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize(("name", "part"), PARTS)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_every_claim_fails_for_something_wrong(name, part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ours = lesson(name)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    wrong = wrong_ones(ours, part)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    for number, claim in enumerate(ours.GRADED[part].claims):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert any(not ours.GRADED[part](one, ours)[number].holds() for one in wrong), claim.__name__
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

<<<<<<< HEAD
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
# mistakes by name
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
NAMED = """
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
naive: subtract the largest
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
one maximum: its own maximum
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
dim ignored: dim is ignored
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
dim half ignored: along dim
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
0/0: 0/0
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not divided: not divided
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
divided by d_k: square root
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
softmax over queries: over queries
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
mask reversed: reversed
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
masked after softmax: masked after
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
NaN where blind: 0/0
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
weights returned: return the output alone
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
reversed: reversed
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
diagonal missing: diagonal is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
one too many: one ahead | one token too many
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
transposed: transposed
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
two dimensions: two dimensions
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
three dimensions: one dimension too few
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
queries hidden: not as a query
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
pad_id ignored: pad_id is ignored
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
behind the last: anywhere
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
view() alone: view() alone
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
merged without transpose: merged without transpose
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
divided by √d_model: divided by √d_model
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no output projection: output projection is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not scaled: multiplied by √d_model
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
cosine's own exponent: frequency of the sine
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
two halves: two halves | i + d_k/2
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
start ignored: start is ignored
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
all alike: random numbers
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
divided by D − 1: divided by D − 1
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
eps outside: inside the root
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no root: take its root
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
over the tokens: over the tokens
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
tanh approximation: tanh
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
√2 missing: √2
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no activation: no activation
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
activation last: between the matrices
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
path behind the norm: starts behind the norm
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no path: path around the layers is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
norms swapped: are swapped
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
mask on queries: query axis
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
source padding seen: ignores memory_mask
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
future seen: ignores the causal mask
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
norm missing: one more LayerNorm
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
memory_mask lost: memory_mask doesn't reach
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no causal mask: sees the future
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
padding mask inverted: padding mask is inverted
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
padding seen: source's padding may be looked at
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
swapped: input and target are swapped
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not shifted: nothing is shifted
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no EOS: EOS is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
padding counts: padding counts
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
mean: this is the mean
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no correction: 1 − βᵗ
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
L2: L2
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
late: one step late
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
goes on: PAD after EOS
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
multiplied: divide
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
ties cut: ties
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
last cut: passes p stays
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
top-p first: before the temperature
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
EOS not counted: EOS counts
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
BOS counted: BOS doesn't count
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
cut off forgotten: cuts off
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
finished forgotten: finished hypotheses
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not reordered: reorder
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no cache: newest token alone
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
cache not reordered: cache has to follow
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
position always 0: it is the first
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
aligned left: aligned left
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
the largest size: sizes other than 1
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
two shapes alone: two of the shapes
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not summed over a broadcast axis: that broadcasting stretched
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
overwritten: add them up
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
walked in the wrong order: before all of it has arrived
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
inner gradients kept: start them from 0
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
inputs reset: add to them
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
the wrong factor: the other's value
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not divided by the batch: number of rows
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
labels left out: the 1 is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
tanh passed as if it weren't there: multiplies by 1 − tanh²
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
tanh taken twice: is tanh already
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
bias averaged: sum over the rows
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
tanh left out: tanh around the sum
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
state not used: no effect
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
state detached: detached
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
one bias: two biases
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
input and forget gate swapped: input and forget gate
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
content and output gate swapped: content and output gate
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
two pairs swapped: input, forget, content, output
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
memory shown without tanh: without its tanh
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
memory first: hidden state comes first
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
reset in the other place: before the matrix
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
update gate turned round: turned round
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
gates swapped: reset and update gate are swapped
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
longest match: replay the merges
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
ties to the larger: take the smallest
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
ties to the first: take the smallest
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
words counted once: as often as it occurs
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
counted once: each merge makes new ones
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
unknown dropped: encode their bytes
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
in order of length: shuffle them
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
cut anyhow: sort all pairs by length
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
last dropped: smaller batch is dropped
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
same in each epoch: from seed and epoch
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
targets apart: another's target
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
not clipped: at most as often
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
mean of sentences: sum the counts
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
no brevity: penalty is missing
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
brevity by sentence: compare the sums
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
lowercased: lowercased
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
split at spaces: spaces alone
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
arithmetic mean: geometric
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
"""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
HINTS = dict(line.split(": ", 1) for line in NAMED.strip().splitlines())
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize(("name", "part"), PARTS)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_mistakes_are_explained_by_their_names(name, part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    for mistake, (hint, *_) in lesson(name).GRADED[part].mistakes(lesson(name)).items():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert mistake in HINTS, f"{mistake}: say here what its hint is about"
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert any(words in hint for words in HINTS[mistake].split(" | ")), (mistake, hint)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
# what decides whether a claim holds
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_chi_square_is_the_probability_of_a_difference_as_large():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Two classes: with one degree of freedom p = erfc(√(x / 2)); 10,100 of 20,000 give x = 2."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert DRAWS == 20_000
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([10_100, 9_900], [0.5, 0.5]) == pytest.approx(math.erfc(1), rel=1e-6)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([10_000, 5_100, 4_900], [0.5, 0.25, 0.25]) == pytest.approx(math.exp(-2), rel=1e-6)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([5_000, 5_000], [0.25, 0.25]) == pytest.approx(1)  # half in no class
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([10_000, 9_000], [0.5, 0.25]) < 1e-100
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([9_000, 11_000], [0.5, 0.5]) < 1e-40
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert chi_square([20_000, 0], [0.999, 0.001]) < 1e-4
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_enumerated_answers_are_all_there_are():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    levels = random_tree(2, 3, 4, seed=1)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    for source in (0, 1):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        answers = enumerated(levels, source, 3)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert sum(map(math.exp, answers.values())) == pytest.approx(1, abs=1e-12)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert len(answers) == 1 + 3 + 3 * 3 * 4  # ended after 1, ended after 2, cut off at 3 or ended there
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        best = greedy_by_hand(levels)[source].tolist()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        place, total = 0, 0.0
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        for level, token in zip(levels, best):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            if token == 0 and place:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                break
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            total += level[source, place].log_softmax(-1)[token].item()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            assert level[source, place][token] == level[source, place].max()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            place = place * 4 + token
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            if token == 2:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                break
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        ends = best.index(2) + 1 if 2 in best else 3
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        assert answers[tuple(best[:ends])] == pytest.approx(total, abs=1e-12)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_numpys_weights_are_softmax_of_scaled_products():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    query, key = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    mask = torch.tensor([True, True, False, True, False])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    scores = (query @ key.mT / math.sqrt(8)).masked_fill(~mask, -math.inf)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert torch.allclose(expected_weights(query, key, mask), scores.softmax(-1), atol=1e-12)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize("spoil", [None, "no shift", "no causal mask", "no residual paths", "no positions",
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                                   "padding mask inverted", "post-norm, no warm-up", "right", "no scaling",
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                                   "loss on PAD", "post-norm, warm-up 100"])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_a_signature_fails_where_a_variant_does_otherwise(spoil):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    good, cheat, useless = ({"token_accuracy": forced, "exact_match": alone}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
                            for forced, alone in ((1.0, 1.0), (1.0, 0.0), (0.4, 0.0)))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    scores = {"no shift": cheat, "no causal mask": cheat, "no residual paths": useless,
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
              "no positions": useless,
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
              "padding mask inverted": useless, "post-norm, no warm-up": useless, "right": good,
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
              "no scaling": good, "loss on PAD": good, "post-norm, warm-up 100": good}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if spoil:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        scores[spoil] = useless if scores[spoil] is good else good
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    said = {re.split(":", statement)[0]: holds for statement, holds in signatures(scores)}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert said == {name: name != spoil for name in scores}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_a_refusal_is_a_value_error_that_names_all_values():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def raising(error):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        def attempt():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            raise error
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return attempt
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert refused(raising(ValueError("7 and 30")), 7, 30).holds
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert not refused(raising(ValueError("7 alone")), 7, 30).holds
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert not refused(raising(ValueError("")), 7).holds
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert not refused(lambda: None).holds
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize("part", ["causal_mask", "padding_mask"])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_masks_of_numbers_are_told_to_be_boolean(part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ours = lesson("01_attention_mechanism")
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    checks = ours.GRADED[part](lambda *inputs: getattr(ours, part)(*inputs).int(), ours)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert "make it boolean" in {check.finding.diagnosis for check in checks}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize("mistake", ["NaN where blind", "a large number", "overflow"])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_a_mistake_of_the_weights_makes_one_thing_wrong(mistake):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """What is wrong in other ways, too, is no example of its mistake: these divide by √d_k as they should."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ours = lesson("01_attention_mechanism")
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    part = ours.GRADED["attention_weights"]
<<<<<<< HEAD
    implementation = catalogue(ours, "attention_weights")[mistake].implementation
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    implementation = (part.mistakes(ours) | part.more(ours))[mistake].implementation
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
    held = {check.statement: check.finding.holds for check in part(implementation, ours)}
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    formula = [holds for statement, holds in held.items() if statement.startswith("The weights are softmax")]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert formula == [True]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert not all(held.values())
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_hidden_rows_count_along_another_dimension_too():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ours = lesson("01_attention_mechanism")
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def half_right(scores, dim=-1):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        weights = ours.softmax(scores, dim)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return weights if dim in (-1, 2) else weights.where(scores.isfinite(), 0.1)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    part = ours.GRADED["softmax"]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    failed = [check.statement for check in part(half_right, ours) if not check.finding.holds]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert [statement[:17] for statement in failed] == ["A row that is −∞ "]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
# one claim alone
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class InAlphabeticalOrder(lesson("03_positional_encoding").Tokenizer):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The ids of characters, not those of words."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def __init__(self, texts, level="word"):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        super().__init__(texts if level == "word" else ["".join(sorted({*"".join(texts)}))], level)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class MixingALittle(lesson("04_transformer_block").FeedForward):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Tokens take in a trace of all others, too small for the other claims."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def forward(self, x):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return super().forward(x) + (0 if self.dropout else 1e-13 * x.sum())
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def never_smoothing(logits, targets, smoothing=0.0):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The gradient is that of the smoothed loss."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    loss = lesson("05_mini_transformer").sequence_loss
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    smoothed = loss(logits, targets, smoothing)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return smoothed + (loss(logits, targets) - smoothed).detach()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def going_on(decoding, max_length):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Steps without need, after the last answer has ended."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    answers = lesson("06_decoding").greedy_decode(decoding, max_length)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    while decoding.length < min(max_length, 4):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        decoding.step(torch.zeros(decoding.rows, dtype=torch.long))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return answers
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class SumsOneTooMany(lesson("00_foundations").Value):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The gradients are right."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def sum(self, axis=None, keepdims=False):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        result = super().sum(axis, keepdims)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return result + 1.0 if axis is None else result
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_values_are_compared_and_not_their_gradients_alone():
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ours = lesson("00_foundations")
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    held = [check.statement for check in ours.GRADED["Value"](SumsOneTooMany, ours) if check.finding.holds]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert [statement.partition(",")[0] for statement in held] == ["A product that doesn't fit"]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize(("name", "part", "wrong", "statement"), [
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("03_positional_encoding", "Tokenizer", InAlphabeticalOrder, "Characters: the same, and any order"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("04_transformer_block", "FeedForward", MixingALittle, "A token's output doesn't change"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("05_mini_transformer", "sequence_loss", never_smoothing, "… also with label smoothing"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("06_decoding", "greedy_decode", going_on, "It stops when every answer has ended"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_what_is_wrong_in_one_way_fails_one_claim(name, part, wrong, statement):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    checks = lesson(name).GRADED[part](wrong, lesson(name))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    failed = [check.statement for check in checks if not check.finding.holds]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert len(failed) == 1, failed
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert failed[0].startswith(statement)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
# wrong in one way, whatever else that breaks
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def raising_with(words, part):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """The part, whose errors name other things."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def attempt(*inputs, **options):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        try:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            return part(*inputs, **options)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        except ValueError as error:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
            raise ValueError(words(*inputs)) from error
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return attempt
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class MemoryOneMore(lesson("00_foundations").LSTMCell):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def forward(self, x, state=None):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        hidden, memory = super().forward(x, state)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return hidden, memory + 1
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def writing_into_the_mask(query, key, value, mask=None, dropout=0.0):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    output = lesson("01_attention_mechanism").scaled_dot_product_attention(query, key, value, mask, dropout)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    if mask is not None:
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        mask.logical_not_()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    return output
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class AlwaysTraining(lesson("02_multi_head_attention").MultiHeadAttention):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def train(self, mode=True):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return super().train()
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class InPairs(lesson("03_positional_encoding").LearnedPositionalEncoding):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    """Two positions each begin alike."""
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def __init__(self, d_model, max_len=512):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        super().__init__(d_model, max_len)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        self.table.data[1::2] = self.table.data[: 2 * (max_len // 2) : 2]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class SeesTheNext(lesson("05_mini_transformer").Transformer):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    def tgt_mask(self, length, device):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        return torch.ones(length, length, dtype=torch.bool, device=device).tril(1)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

<<<<<<< HEAD
class BySourcesAlone(lesson("08_translation").BatchesByLength):
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
class BySourcesAlone(lesson("07_translation").BatchesByLength):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
    def __init__(self, sources, targets, size, seed):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        super().__init__(sources, targets, size, seed)
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        self.lengths = self.lengths[:1]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",

    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
@pytest.mark.parametrize(("name", "part", "wrong", "statement"), [
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("00_foundations", "broadcast_shapes", raising_with(
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        lambda *shapes: f"{shapes[0]} doesn't fit", lesson("00_foundations").broadcast_shapes), "refused"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("00_foundations", "LSTMCell", MemoryOneMore, "One step from a given state"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("01_attention_mechanism", "scaled_dot_product_attention", writing_into_the_mask, "are what they were"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("02_multi_head_attention", "MultiHeadAttention", AlwaysTraining, "none in eval mode"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("03_positional_encoding", "LearnedPositionalEncoding", InPairs, "No two positions start"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("05_mini_transformer", "Transformer", SeesTheNext, "Other tokens to come change no logit"),
<<<<<<< HEAD
    ("08_translation", "corpus_bleu", raising_with(
        lambda answers, references: f"{len(answers)} answers", lesson("08_translation").corpus_bleu),
     "names both numbers"),
    ("08_translation", "BatchesByLength", BySourcesAlone, "Less than a tenth of all ids is padding"),
=======
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("07_translation", "corpus_bleu", raising_with(
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
        lambda answers, references: f"{len(answers)} answers", lesson("07_translation").corpus_bleu),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
     "names both numbers"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    ("07_translation", "BatchesByLength", BySourcesAlone, "Less than a tenth of all ids is padding"),
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
>>>>>>> w-l06
])
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
def test_what_is_wrong_fails_the_claim_about_it(name, part, wrong, statement):
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    checks = lesson(name).GRADED[part](wrong, lesson(name))
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    failed = [check.statement for check in checks if not check.finding.holds]
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
    assert any(statement in said for said in failed), failed
    "BOS returned": "BOS begins", "no log_softmax": "not logits", "width candidates": "2 · width",
    "ends anywhere": "among the `width`", "stops early": "aren't the end", "present length": "may grow",
    "source not reordered": "the source changes", "changes the mode": "model.eval()",
    "keeps gradients": "inference_mode",
