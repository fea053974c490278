"""Does the suite notice? python tests/mutate.py [FILE or NUMBER …] [--list] [--quick] [--jobs N]

Applies one small mistake at a time to a copy of the repository, runs the tests of that file, and reports
which mistakes survive: exit code 1 if any does. A mistake is tried in a fork of this process, which has
PyTorch imported, but nothing of the course; tests that start scripts run last, and not at all with --quick.
Not part of the normal test run: it takes a while. (That every mutation fits is: test_mutations.py.)
"""

import argparse
import ast
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mutations_07 import MUTATIONS as OF_LESSON_7
from mutations_course import MUTATIONS as OF_THE_COURSE

ROOT = Path(__file__).parent.parent
L0, L1, L2, L3 = "00_foundations.py", "01_attention_mechanism.py", "02_multi_head_attention.py", "03_positional_encoding.py"
L4, L5, L6, L7 = "04_transformer_block.py", "05_mini_transformer.py", "06_decoding.py", "07_translation.py"
COMMON, CHECKING, CONSOLE = "common.py", "course/checking.py", "course/console.py"
GRADING, KEEPING, OPTIONS, PARTS = "course/grading.py", "course/keeping.py", "course/options.py", "course/parts.py"
LESSON_OF = {  # file in checks/ or figures/ → the lesson that it serves
    "differentiation": L0, "recurrence": L0, "foundations": L0,
    "attention": L1, "masks": L1, "softmax": L1, "heads": L2, "positions": L3, "tokens": L3, "layers": L4, "block": L4, "stack": L4, "drawing": L4,
    "training": L5, "broken": L5, "decoding": L6, "trees": L6,
    "subwords": L7, "bleu": L7, "batches": L7, "alignment": L7, "translation": L7,
}
MORE = {L1: ["faults"], L4: ["training_reference"], L5: ["evaluation", "training_reference", "options"], L6: ["options"]}  # further test files of a lesson, run first
DIFFERING, REPORT = "course/differing.py", "course/report.py"
ENGINE, PROCESSES = "course/engine.py", "course/processes.py"
TESTS = {  # of what is neither lesson nor checks nor figures; the rest of course/ is in test_course.py
    COMMON: ["small_parts", "figures", "options", "common"], CONSOLE: ["common"], CHECKING: ["oracles", "checking"], GRADING: ["grading"],
    DIFFERING: ["checking"], REPORT: ["grading"], ENGINE: ["engine", "training_reference"], PROCESSES: ["course", "training_reference", "engine"],
    "course/comparing.py": ["small_parts", "options", "05_mini_transformer"], "course/experiment.py": ["options", "05_mini_transformer"],
    "course/digits.py": ["evaluation"], "course/measuring.py": ["small_parts", "01_attention_mechanism"], "course/own.py": ["options", "05_mini_transformer"],
    OPTIONS: ["course", "options"], KEEPING: ["small_parts", "course"],
    "course/toys.py": ["small_parts", "00_foundations"], "course/stacked.py": ["small_parts", "00_foundations"], "course/ranking.py": ["small_parts"],
    "checks/alignment.py": ["small_parts"], "course/memory.py": ["small_parts", "faults"], "course/startup.py": ["faults"], "course/live.py": ["live"],
    **{f"course/{name}.py": ["small_parts"] for name in ("threads", "pairs", "chat")},
    **{f"course/{name}.py": ["pages"] for name in ("pages", "markup", "frame", "contents", "terms", "questions", "exercises")},
    "course/quiz.py": ["pages", "options"], "course/progress.py": ["pages"], "course/watching.py": ["watching", "options"],
}

# ruff: noqa: E501
SECONDS = 60  # and four times as long as without the mistake: then it is endless
SLOW = "not walkthrough and not interrupted and not two_runs"  # never run: a minute each

MUTATIONS = [  # file, what stands there, what is put in its place
    (L0, "padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]", "padded = [tuple(shape) + (1,) * (rank - len(shape)) for shape in shapes]"),
    (L0, "together.append(sizes.pop() if sizes else 1)", "together.append(max(column))"),
    (L0, "if len(sizes) > 1:\n            found", "if len(sizes) > 2:\n            found"),
    (L0, "return gradient.sum(axis=stretched, keepdims=True)", "return gradient"),
    (L0, "gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))", "gradient = gradient.mean(axis=tuple(range(gradient.ndim - len(shape))))"),
    (L0, "self.grad = self.grad + summed_to(self.data.shape, gradient)", "self.grad = summed_to(self.data.shape, gradient)"),
    (L0, "lambda grad: (grad * other.data, grad * self.data)", "lambda grad: (grad * self.data, grad * other.data)"),
    (L0, "min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]", "min(a.ndim, b.ndim) < 2"),
    (L0, "grad * power * self.data ** (power - 1)", "grad * power * self.data ** power"),
    (L0, "lambda grad: (grad * (1 - result**2),)", "lambda grad: (grad * (1 - result),)"),
    (L0, "lambda grad: (grad * (self.data > 0),)", "lambda grad: (grad,)"),
    (L0, "kept = grad if axis is None or keepdims else np.expand_dims(grad, axis)", "kept = grad if axis is None or keepdims else np.expand_dims(grad, -1)"),
    (L0, "np.add.at(whole, index, grad)", "whole[index] = grad"),
    (L0, "return self * self.lift(other) ** -1.0", "return self * self.lift(other) ** -2.0"),
    (L0, "waiting += [(value, True), *((parent, False) for parent in value.parents)]", "waiting += [*((parent, False) for parent in value.parents), (value, True)]"),
    (L0, "if value.parents:\n                value.grad = np.zeros_like(value.data)", "if False:\n                value.grad = np.zeros_like(value.data)"),
    (L0, "if self.data.size != 1:", "if False:"),
    (L0, "d_logits /= len(x)", "d_logits /= 1"),
    (L0, "d_hidden * (1 - hidden**2)", "d_hidden * (1 - hidden)"),
    (L0, "scores = logits - logits.max(axis=1, keepdims=True)", "scores = logits - 0.0"),
    (L0, "let_in, keep, content, show = rows.chunk(4, dim=-1)", "keep, let_in, content, show = rows.chunk(4, dim=-1)"),
    (L0, "return show.sigmoid() * memory.tanh(), memory", "return show.sigmoid() * memory, memory"),
    (L0, "return update * hidden + (1 - update) * content", "return (1 - update) * hidden + update * content"),
    (L0, "torch.tanh(content_x + reset * content_h)", "torch.tanh(reset * content_x + content_h)"),
    (L0, "nn.init.uniform_(parameter, -bound, bound)", "nn.init.uniform_(parameter, -2 * bound, 2 * bound)"),
    (L0, "states.append(state[0] if isinstance(state, tuple) else state)", "states.append(state[1] if isinstance(state, tuple) else state)"),
    (L0, "words[place + 1 : place + 1 + window]", "words[place + 1 : place + window]"),
    (L0, "LENGTH - 1 - distances] = wanted", "LENGTH - 2 - distances] = wanted"),
    ("course/stacked.py", "p.grad /= (norms / length)", "p.grad /= (length / norms)"),
    ("checks/recurrence.py", "return gradients_agree(cell, theirs, copy_cell)", "return Finding(True)"),
    (L1, "/ math.sqrt(d_k)  # (…, T, S)", "/ 1.0"),
    (L1, "/ math.sqrt(d_k)  # (…, T, S)", "/ math.sqrt(query.shape[-2])"),
    (L1, "scores.masked_fill(~boolean(mask), -math.inf)", "scores.masked_fill(boolean(mask), -math.inf)"),
    (L1, "return softmax(scores)\n", "return softmax(scores, dim=-2)\n"),
    (L1, "total.clamp(min=1.0)", "total"),
    (L1, "weights = F.dropout(attention_weights(query, key, mask), dropout)", "weights = attention_weights(query, key, mask)"),
    (L1, "return F.scaled_dot_product_attention(query, key, value, mask, dropout)", "return F.scaled_dot_product_attention(query, key, value, mask)"),
    (L1, "torch.atleast_2d(boolean(mask))", "torch.atleast_2d(mask)"),
    (L1, "torch.atleast_2d(boolean(mask))", "boolean(mask)"),
    (L1, "dtype=torch.bool, device=device).tril()", "dtype=torch.bool, device=device).tril(1)"),
    (L1, "(tokens != pad_id)[:, None, None, :]", "(tokens != pad_id)[:, None, :, None]"),
    (L1, "scores.detach().amax(dim, keepdim=True).clamp(min=lowest)", "scores.detach().amax(dim, keepdim=True)"),
    (L2, "self.n_heads, d_k).transpose(1, 2)", "self.n_heads, d_k).transpose(1, 2).flip(1)"),
    (L2, "x.transpose(1, 2).flatten(2)", "x.flatten(2).view(len(x), x.shape[2], -1)"),
    (L3, "return self.rotary(queries, start), self.rotary(keys)", "return self.rotary(queries), self.rotary(keys)"),
    (L2, "dropout = self.dropout if self.training else 0.0", "dropout = self.dropout"),
    (L2, "return self.project_output(self.merge(heads))", "return self.merge(heads)"),
    (L3, "torch.arange(0, width, 2, dtype=torch.float64) / width", "torch.arange(0, width, 2, dtype=torch.float64) / (width + 1)"),
    (L3, "torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)", "torch.cat([angle.sin(), angle.cos()], dim=-1)"),
    (L3, "return x + self.table[start : start + x.shape[1]]\n\n\nclass Learned", "return x + self.table[: x.shape[1]]\n\n\nclass Learned"),
    (L3, "even * cos - odd * sin", "even * cos + odd * sin"),
    (L3, "if start + length > max_len:\n        last", "if start + length > max_len + 1:\n        last"),
    (L3, "return scale * F.embedding", "return F.embedding"),
    (L3, "start=len(SPECIALS)", "start=len(SPECIALS) - 1"),
    (L4, "variance = (x - mean).square().mean(dim=-1, keepdim=True)", "variance = x.var(dim=-1, keepdim=True)"),
    (L4, "torch.sqrt(variance + eps) + bias", "(torch.sqrt(variance) + eps) + bias"),
    (L4, "x = x + F.dropout(y, self.dropout, self.training)", "x = self.before(x) + F.dropout(y, self.dropout, self.training)"),
    (L4, "x = self.around_cross.after(x, y)", "x = self.around_cross.after(x, 0.0 * y)"),
    (L4, "self.norm = LayerNorm(d_model) if norm == \"pre\" else nn.Identity()\n\n    def forward(self, x: Tensor, mask", "self.norm = nn.Identity()\n\n    def forward(self, x: Tensor, mask"),
    (L4, "x = x + F.dropout(y, self.dropout, self.training)", "x = x + F.dropout(y, self.dropout, True)"),
    (L4, "return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))", "return x * torch.sigmoid(1.702 * x)"),
    (L5, "tgt_out = pad([[*answer, EOS] for answer in answers])", "tgt_out = pad([[BOS, *answer] for answer in answers])"),
    (L5, "loss.masked_fill(targets == PAD, 0.0).sum()", "loss.sum()"),
    (L5, "return mean / (1 - beta**steps)", "return mean"),
    (L5, "parameter.sub_(lr * mean / (square.sqrt() + eps))", "parameter.sub_(lr * mean / (square + eps).sqrt())"),
    (L5, "n, warmup = step + 1, max(1, training.warmup)", "n, warmup = step + 2, max(1, training.warmup)"),
    (ENGINE, "clip_grad_norm_(self.trained, self.settings.clip)", "clip_grad_norm_(self.trained, 1e9)"),
    (L5, "training.label_smoothing) / (whole.tgt_out != PAD).sum()", "training.label_smoothing) / (part.tgt_out != PAD).sum()"),
    (ENGINE, "seed_random(self.device, self.settings.seed, step, RANK, number)", "pass"),
    (ENGINE, "self.optimizer.load_state_dict(state[\"optimizer\"])", "pass"),
    (L5, "ended = ended | (likeliest == EOS)", "ended = ended | (likeliest == BOS)"),
    ("course/digits.py", "{0: \"test\", 1: \"validation\"}", "{0: \"validation\", 1: \"test\"}"),
    (ENGINE, "if not math.isfinite(loss + norm):", "if False:"),
    (L6, "self.src_mask, self.length)\n        self.length += 1", "self.src_mask, self.length)\n        self.length += 0"),
    (L6, "self.keys = self.keys.index_select(0, rows)", "pass"),
    (L6, "scores = ranked / tokens.shape[2] ** length_penalty", "scores = ranked / (tokens.shape[2] + 1) ** length_penalty"),
    (L6, "candidates.only(ended & among_first)", "candidates.only(ended)"),
    (L6, "return finished.join(alive).best(width).listed()", "return finished.best(width).listed()"),
    (L6, "tokens = pick(usable(decoding.step(tokens))).masked_fill(ended, PAD)", "tokens = pick(usable(decoding.step(tokens)))"),
    (L6, "logits = logits.masked_fill(logits < kth, -math.inf)", "logits = logits.masked_fill(logits <= kth, -math.inf)"),
    (L6, "cut = likelier >= top_p", "cut = likelier + ranked > top_p"),
    (L6, "(logits - largest) / temperature", "(logits - largest) * temperature"),
    (L6, "decoding.reorder(alive.rows[alive.taken].to(decoding.device))", "pass"),
    (L2, "dropout = self.dropout if self.training else 0.0", "dropout = 0.0"),
    (L3, "torch.randn(max_len, d_model) * math.sqrt(0.5)", "torch.zeros(max_len, d_model)"),
    (L4, "self.bias, self.eps)", "self.bias)"),
    (L4, "self.contract(F.dropout(x, self.dropout, self.training))", "self.contract(x)"),
    (L4, "x = x + F.dropout(y, self.dropout, self.training)", "x = x + y"),
    (L5, "self.positions = LearnedPositionalEncoding(width, max_len)", "pass"),
    (L5, "x = self.positions(x, start)", "x = self.positions(x)"),
    (L5, "nn.init.constant_(last.gain, width**-0.5)", "pass"),
    (L5, "return d_model**-0.5 * min", "return 64**-0.5 * min"),
    (L5, "self.corrected(state[\"square\"], beta2, state[\"steps\"])", "self.corrected(state[\"square\"], 0.999, state[\"steps\"])"),
    (L5, "mask = self.tgt_mask(start + tgt.shape[1], tgt.device)[start:]", "mask = self.tgt_mask(start + tgt.shape[1], tgt.device)[:tgt.shape[1]]"),
    (ENGINE, "not min(losses[-patience:]) < min(losses[:-patience])", "min(losses[-patience:]) > min(losses[:-patience])"),
    (L6, "return torch.maximum(*within_reach) <= finished.scores[:, -1]", "return finished.scores[:, -1] > -math.inf"),
    (L6, "likelier >= top_p - 1e-6", "likelier >= top_p"),
    (L6, "if temperature < torch.finfo(logits.dtype).tiny:", "if temperature == 0:"),
    (L6, "self.memory = self.memory[:, :0]", "self.memory = self.memory"),
    (COMMON, "sys.exit(1 if narrator.failed else 0)", "sys.exit(0)"),
    (COMMON, "missed += [name] if caught.holds() else []", "pass"),
    (COMMON, "    torch.manual_seed(seed)\n", "    pass\n"),
    (CONSOLE, "if tested.part and holding == count and not self.unfolded:", "if tested.part and not self.unfolded:"),
    (CONSOLE, "holding == count and not self.unfolded:", "holding == count:"),
    (CONSOLE, "if finding.gap is not None]", "if finding.gap is not None][:1]"),
    (CONSOLE, "textwrap.wrap(text, self.console.width - indent, break_on_hyphens=False)", "re.findall(f'.{{1,{self.console.width - indent}}}', text)"),
    (CHECKING, "if gap <= tolerance:", "if not gap > tolerance:"),
    (CHECKING, "return same and not finding.holds", "return same"),
    (CHECKING, "len(values) == len(seen) > 0 and all(", "len(values) == len(seen) > 0 and any("),
    (CHECKING, "len(values) == len(seen) > 0 and all(", "len(values) == len(seen) and all("),
    (CHECKING, "(actual.detach().clone(), tolerance)", "(actual.detach(), tolerance)"),
    (CHECKING, "torch.default_generator.manual_seed(0)", "pass"),
    (CHECKING, "with torch.random.fork_rng(devices=[]), witnessing()", "with witnessing()"),
    (CHECKING, "return failed[0] if failed else", "return failed[-1] if failed else"),
    (CHECKING, " or PYTHON in Path(file).parents", ""),
    (CHECKING, "if frames and is_ours(frames[-1].filename):", "if False:"),
    (CHECKING, "if not self.ours_hold():", "if False:"),
    (CHECKING, "for mistake in meant or alike", "for mistake in alike"),
    (CHECKING, "if not is_lesson(frame.filename)] or theirs", "] or theirs"),
    (CHECKING, "hint or difference(actual, expected, tolerance, axes)", "hint"),
    (CHECKING, "return Finding(False, *error.args)", "pass"),
    (CHECKING, "allow_unused=True) if loss.requires_grad", "allow_unused=True) if True"),
    (DIFFERING, "== wrong.sum():", "<= wrong.sum() * 2:"),
    (DIFFERING, "and (factor - 1).abs() > 1e-3", ""),
    (DIFFERING, "number == runs[-1][-1] + 1:", "number >= runs[-1][-1] + 1:"),
    (CHECKING, "if actual.shape != expected.shape:", "if actual.numel() != expected.numel():"),
    (GRADING, "or not complete or", "or"),
    (GRADING, "left = len(checks) - number - 1 if last else 0", "left = 0"),
    (GRADING, "(finding.figure == UNWRITTEN and not number)", "False"),
    (GRADING, "last = finding.figure == RUNNING or", "last ="),
    (GRADING, "and method.name not in part.helpers]", "]"),
    (GRADING, "if guided else ()", ""),
    (REPORT, "or self.is_news(finding):", "or False:"),
    (REPORT, "and finding.diagnosis not in self.said", ""),
    (REPORT, "or narrator.unfolded or", "or"),
    (REPORT, "            self.file = None\n", ""),
    (REPORT, "if needs and needs in self.said:", "if False:"),
    (REPORT, "min(counts.get(key, 0) + 1, len(texts))", "counts.get(key, 0) + 1"),
    (REPORT, "type(n) is int and n >= 0", "True"),
    (REPORT, "self.remember(counts)", "pass"),
    (GRADING, "complete = line == END", "complete = True"),
    (GRADING, "os.killpg(child.pid, signal.SIGKILL)", "child.kill()"),
    (GRADING, "        finally:\n            end_with_all(child)", "        finally:\n            pass"),
    (GRADING, "        write(BEGIN)\n", ""),
    (GRADING, "sys.exit(128 + number))", "os._exit(128 + number))"),
    (GRADING, "sys.path.insert(0, sys.argv.pop(1))", "sys.path.append(sys.argv.pop(1))"),
    (GRADING, "if thread.is_alive():", "if False:"),
    (KEEPING, "os.replace(name, path)", "pass"),
    (KEEPING, "weights_only=True", "weights_only=False"),
    (KEEPING, "os.unlink(name)", "pass"),
    (KEEPING, "error.filename = str(path)", "pass"),
    (OPTIONS, "value >= limits[\"least\"]", "value > limits[\"least\"]"),
    (OPTIONS, "value > limits[\"above\"]", "value >= limits[\"above\"]"),
    (OPTIONS, "value < limits[\"below\"]", "value <= limits[\"below\"]"),
    (OPTIONS, "not isinstance(value, float) or math.isfinite(value)", "True"),
    (OPTIONS, "int(text) >= 2**32", "int(text) > 2**32"),
    (PARTS, "setattr(module, name, own)", "pass"),
    (PARTS, "setattr(module, name, function)", "setattr(type(module), name, staticmethod(function))"),
    (PARTS, "if re.match(r\"\\d\\d_\", name) or name == \"__main__\"]", "]"),
    (ENGINE, "group[\"lr\"] = rate * group.get(\"scale\", 1.0)", "group[\"lr\"] = rate"),
    (ENGINE, "rate = self.job.rate(step)", "rate = self.job.rate(step + 1)"),
    (ENGINE, "self.job.batch(step)", "self.job.batch(step + 1)"),
    (ENGINE, "slice(RANK * accumulate + number, None, PROCESSES * accumulate)", "slice(number, None, accumulate + 1)"),
    (ENGINE, "self.model.eval()", "pass"),
    (ENGINE, "self.model.train(was_training)", "pass"),
    (ENGINE, "del block.forward", "pass"),
    (ENGINE, "path if run.finished else unfinished(path)", "path"),
    (ENGINE, "if bf16 else nullcontext()", "if False else nullcontext()"),
    (ENGINE, "done % self.settings.validate_every == 0", "done % (self.settings.validate_every + 1) == 0"),
    (ENGINE, "SeedSequence(origin)", "SeedSequence(origin[:1])"),
    (ENGINE, "if p.requires_grad]", "]"),
    (L5, "if training.by_hand:\n        loss_of, adam = sequence_loss, Adam", "if training.by_hand:\n        loss_of, adam = sequence_loss, adam"),
    (L5, "BY_HAND if training.by_hand else {}", "{}"),
    (L5, "clipped = max(1.0,", "clipped = min(1.0,"),
    (L6, "self.src_mask = None if mask.all() else mask", "self.src_mask = None"),
    (L6, "if torch.equal(before, self.sources):", "if len(before) == len(self.sources):"),
    ("checks/trees.py", "self.places * level.shape[-1] + tokens", "self.places * level.shape[-1]"),
    # the training of lesson 5, where scale, place and order can go wrong unseen
    (L5, "return training.lr * min(n / warmup, left, 1.0)", "return training.lr * min(step / warmup, left, 1.0)"),
    (L5, "left = (training.steps - step) / max(1, training.steps - training.warmup)", "left = (training.steps - step) / training.steps"),
    (L5, "betas=(0.9, training.beta2),\n                                       weight_decay=training.weight_decay)", "betas=(0.9, training.beta2))"),
    (L5, "parameter.mul_(1 - lr * weight_decay)", "parameter.mul_(1 - weight_decay)"),
    (L5, "training.batch_size, \"train\", (training.seed, step))", "training.batch_size, \"train\", (0, step))"),
    (L5, "training.batch_size, \"train\", (training.seed, step))", "training.batch_size, \"validation\", (training.seed, step))"),
    (L5, "100, \"validation\", (training.seed,))", "100, \"train\", (training.seed,))"),
    (L5, "    torch.manual_seed(training.seed)\n    model = build", "    torch.manual_seed(0)\n    model = build"),
    (L5, "part.tgt_out, training.label_smoothing) /", "part.tgt_out) /"),
    (L5, "blocks=[*model.encoder.blocks, *model.decoder.blocks],", "blocks=[*model.encoder.blocks],"),
    (L5, "{\"validation_loss\": scores.loss, \"token_accuracy\": scores.token_accuracy,", "{\"validation_loss\": scores.loss, \"token_accuracy\": scores.exact_match,"),
    (L5, "\"forced_match\": scores.forced.float()", "\"forced_match\": scores.exact.float()"),
    (L5, "draw_batch(training.task, 100, \"validation\"", "draw_batch(\"reverse\", 100, \"validation\""),
    (L5, "for name, part in parts.items() if name in classes or name in slots}", "for name, part in parts.items()}"),
    (L5, "return F.dropout(x, self.config.dropout, self.training)", "return x"),
    (L5, "return F.dropout(x, self.config.dropout, self.training)", "return F.dropout(x, self.config.dropout, True)"),
    (L5, "config.dropout, config.norm,\n", "0.0, config.norm,\n"),
    (L5, "self.steps or steps)", "steps)"),
    (L5, "self.batch_size or batch_size)", "batch_size)"),
    (L5, "parts = self.accumulate * PROCESSES", "parts = self.accumulate"),
    (L5, "self.d_ff or 4 * self.d_model)", "4 * self.d_model)"),
    (L5, "sizes = changed_options(config, default)", "sizes = changed_options(config, default)[:1]"),
    (L5, "TrainingConfig(task=training.task))])", "replace(training, seed=0))])"),
    (L5, "replace(training, seed=seed), experiment.device)", "training, experiment.device)"),
    (L5, "range(first, first + experiment.options.seeds)", "range(first, first + 1)"),
    # its evaluation
    (L5, "loss = fused_sequence_loss(logits, batch.tgt_out) / real.sum()", "loss = fused_sequence_loss(logits, batch.tgt_out) / real.numel()"),
    (L5, "right[real].float().mean().item()", "right.float().mean().item()"),
    (L5, "(right | ~real).all(dim=1).cpu()", "right.all(dim=1).cpu()"),
    (L5, "(right | ~real).all(dim=1).cpu()", "(right | ~real).any(dim=1).cpu()"),
    (L5, "    model.eval()\n    logits = model(batch.src", "    logits = model(batch.src"),
    (L5, "    model.train(was_training)\n    return Scores", "    model.train()\n    return Scores"),
    (L5, "likeliest.masked_fill(ended, PAD)", "likeliest"),
    (L5, "        if ended.all():\n            break\n", ""),
    (L5, "if ended.all():", "if ended.any():"),
    (L5, "return (answers == wanted).all(dim=1)", "return ((answers == wanted) | (wanted == PAD)).all(dim=1)"),
    (L5, "decode(model, batch.src, batch.tgt_out.shape[1])", "decode(model, batch.src, batch.tgt_out.shape[1] - 1)"),
    (L5, "return weights[:, :, torch.arange(length), partners].mean(dim=(0, 2))", "return weights[:, :, partners, torch.arange(length)].mean(dim=(0, 2)).flip(0)"),
    (L5, "return loss.item(), again[real].mean().item()", "return loss.item(), again.mean().item()"),
    (L5, "maps[0, head].amax(-1).mean().item()", "maps[0, head].mean().item()"),
    (L5, "_, name, found = max(heads", "_, name, found = min(heads"),
    (L5, "\"embedding\": model.embedding} | {", "\"embedding\": model.encoder} | {"),
    (L5, "(square / (1 - beta2**steps)).sqrt()", "square.sqrt()"),
    ("course/digits.py", "lengths[1] + 1, size=count", "lengths[1], size=count"),
    ("course/digits.py", "lengths[0], lengths[1] + 1", "lengths[0] + 1, lengths[1] + 1"),
    ("course/digits.py", "random.integers(0, len(DIGITS), size", "random.integers(1, len(DIGITS), size"),
    ("course/digits.py", "default_rng(seed)", "default_rng(seed[0])"),
    ("course/digits.py", "if split_of(row) == split]", "if split_of(row) == split or split == \"validation\"]"),
    ("course/digits.py", "checksum % 10, \"train\")", "checksum % 5, \"train\")"),
    # the engine
    (ENGINE, "norm = clip_grad_norm_(self.trained, self.settings.clip).item()", "norm = clip_grad_norm_(self.trained, 1e9).item(); clip_grad_norm_(self.trained, self.settings.clip * 2)"),
    (ENGINE, "        self.optimizer.step()\n", "        self.optimizer.step(); clip_grad_norm_(self.trained, self.settings.clip / 2)\n"),
    (ENGINE, "\"gradient_norm\": norm,", "\"gradient_norm\": min(norm, self.settings.clip),"),
    (ENGINE, "        self.optimizer.zero_grad()\n        loss = self.backward", "        loss = self.backward"),
    (ENGINE, "                total += loss.detach()", "                total = loss.detach()"),
    (ENGINE, "loss = self.job.loss(self.forward, part, whole)", "loss = self.job.loss(self.forward, part, part)"),
    (ENGINE, "seed_random(self.device, self.settings.seed, step, RANK, number)", "seed_random(self.device, self.settings.seed, step, 0, number)"),
    (ENGINE, "seed_random(self.device, self.settings.seed, step, RANK, number)", "seed_random(self.device, self.settings.seed, step, RANK)"),
    (ENGINE, "seed_random(self.device, self.settings.seed, step, RANK, number)", "seed_random(self.device, 0, step, RANK, number)"),
    (ENGINE, "self.job.blocks if self.settings.recompute else ()", "self.job.blocks if False else ()"),
    (ENGINE, "or done == self.settings.steps", ""),
    (ENGINE, "    if path is None or RANK:", "    if path is None:"),
    (ENGINE, "not any_process(interrupted(), run.device)", "not interrupted()"),
    (ENGINE, "torch.cuda.manual_seed(number)", "pass"),
    (ENGINE, "            if after:\n                after(run)\n", ""),
    (ENGINE, "self.scores = said_by_the_first(scores)", "self.scores = scores()"),
    (ENGINE, "return len(self.history) >= self.settings.steps\n        return", "return len(self.history) > self.settings.steps\n        return"),
    (ENGINE, "self.model.compile(dynamic=True)", "pass"),
    (ENGINE, "slice(RANK * accumulate + number, None, PROCESSES * accumulate)", "slice(RANK + number, None, PROCESSES * accumulate)"),
    (PROCESSES, "if someone else None", "if someone or True else None"),
    (PROCESSES, "    distributed.all_reduce(flat)\n", "    distributed.all_reduce(flat)\n    flat = flat / PROCESSES\n"),
    (PROCESSES, "    return total.item() > 0", "    return total.item() > 1"),
    (PROCESSES, "message = [say() if RANK == 0 else None]", "message = [say()]"),
    (PROCESSES, "kind = there[0] if name == \"auto\" else name.partition(\":\")[0]", "kind = there[0]"),
    (PROCESSES, "(signal.SIGINT, signal.SIGTERM)}", "(signal.SIGINT,)}"),
    (PROCESSES, "            signal.signal(number, handler)", "            pass"),
    (PROCESSES, "redirect_stdout(nowhere) if RANK else nullcontext()", "nullcontext()"),
    # the drawings
    (COMMON, "axes.imshow(weights, vmin=0, vmax=top, cmap=\"Blues\")", "axes.imshow(weights.T, vmin=0, vmax=top, cmap=\"Blues\")"),
    (COMMON, "axes.imshow(weights, vmin=0, vmax=top, cmap=\"Blues\")", "axes.imshow(weights, cmap=\"Blues\")"),
    (COMMON, "axes.imshow(weights, vmin=0, vmax=top, cmap=\"Blues\")", "axes.imshow(weights, vmin=0, vmax=top, cmap=\"Blues_r\")"),
    (COMMON, "axes.set_yticks(range(len(rows)), rows)", "axes.set_yticks(range(len(rows)), rows[::-1])"),
    (COMMON, "axes.text(column, row, f\"{weight:.2f}\"", "axes.text(row, column, f\"{weight:.2f}\""),
    (COMMON, "palette=\"colorblind\"", "palette=\"deep\""),
    ("figures/attention.py", "zip(weights.T, (\"-\", \"--\", \":\"))", "zip(weights.T[::-1], (\"-\", \"--\", \":\"))"),
    ("figures/attention.py", "(\"scores ÷ √d_k\", stages[\"scaled\"], True)", "(\"scores ÷ √d_k\", stages[\"weights\"], True)"),
    ("figures/attention.py", "panel.axhspan(row - 0.47, row + 0.47", "panel.axhspan(row + 0.53, row + 1.47"),
    ("figures/attention.py", "axes[1].semilogx(widths, uneven, marker=\"s\", label=\"q·k\")\n    axes[1].semilogx(widths, even, marker=\"o\"", "axes[1].semilogx(widths, even, marker=\"s\", label=\"q·k\")\n    axes[1].semilogx(widths, uneven, marker=\"o\""),
    ("figures/attention.py", "heatmap(axes[1], cross, french, english", "heatmap(axes[1], cross.T, english, french"),
    ("figures/attention.py", "masked.masked_fill(~mask, math.nan)", "masked.masked_fill(mask, math.nan)"),
    ("figures/attention.py", "panel.scatter(order, [query", "panel.scatter(order.argsort(), [query"),
    ("figures/attention.py", "axes[1].loglog(lengths, masked, marker=\"D\"", "axes[1].loglog(lengths, fused, marker=\"D\""),
    ("figures/attention.py", "axes.loglog(distances, norms, marker=marker, label=name, base=2)", "axes.loglog(distances, norms[::-1], marker=marker, label=name, base=2)"),
    ("figures/block.py", "axes[0, column].semilogy(grads / grads[-1], **look)", "axes[0, column].semilogy(grads / grads[0], **look)"),
    ("figures/block.py", "\"linestyle\": \"--\" if warmup else \"-\"", "\"linestyle\": \"-\" if warmup else \"--\""),
    ("figures/block.py", "[losses.mean().item() for losses", "[losses.amin().item() for losses"),
    ("figures/block.py", "curves.amin(1), curves.amax(1)", "curves.mean(1), curves.amax(1)"),
    ("figures/decoding.py", "zip((\"with the cache\", \"without\")", "zip((\"without\", \"with the cache\")"),
    ("figures/decoding.py", "[sum(seconds[:n]) for n in lengths]", "[seconds[n - 1] for n in lengths]"),
    ("figures/decoding.py", "\"finished\": (\"C2\", 1.0), \"pruned\": (\"gray\", 0.45)", "\"finished\": (\"gray\", 1.0), \"pruned\": (\"C2\", 0.45)"),
    ("figures/decoding.py", "height = {tokens: -place for", "height = {tokens: place for"),
    ("figures/decoding.py", "[found.count(length) for length in range(1, 19)], color", "[found.count(length) for length in range(0, 18)], color"),
    ("figures/decoding.py", "adjusted[kind, \"as it is\"].tolist(), color=\"lightgray\"", "adjusted[kind, name].tolist(), color=\"lightgray\""),
    ("figures/decoding.py", "(\"exact match\", 1), (\"mean log P\", 2)", "(\"exact match\", 2), (\"mean log P\", 1)"),
    ("figures/decoding.py", "weights[head, : len(answer)], answer, source", "weights[head, : len(answer)], answer, source[::-1]"),
    ("figures/decoding.py", "return [-log_probs[tokens[: n + 1]]", "return [log_probs[tokens[: n + 1]]"),
    ("figures/drawing.py", "m.project_query.out_features // m.n_heads}", "m.project_query.out_features}"),
    ("figures/drawing.py", "count += \" each\" if copies > 1 else \"\"", "count += \" each\""),
    ("figures/drawing.py", "draw_box(axes, right, 6.6, embedding, width, label=\"logits\", again=True)", "draw_box(axes, right, 6.6, embedding, width, label=\"logits\")"),
    ("figures/drawing.py", "axes.annotate(\"\", points[-1], points[-2]", "axes.annotate(\"\", points[-2], points[-1]"),
    ("figures/drawing.py", "f\"{len(stack.blocks)} ×\"", "f\"{len(encoder.blocks)} ×\""),
    ("figures/drawing.py", "if layer == \"cross_attention\":", "if layer == \"self_attention\":"),
    ("figures/heads.py", "zip(axes, [*one, *two], titles", "zip(axes, [*one, *two[::-1]], titles"),
    ("figures/heads.py", "layouts = tokens, right.flatten(0, 1), wrong.flatten(0, 1)", "layouts = tokens, wrong.flatten(0, 1), right.flatten(0, 1)"),
    ("figures/heads.py", "token, head = places // 4, places % 4 // 2", "token, head = places // 4, places % 2"),
    ("figures/heads.py", "weights[head], tokens, tokens, f\"weights", "weights[1 - head], tokens, tokens, f\"weights"),
    ("figures/heads.py", "\"queries\": (0, 1), \"keys\": (1, 1)", "\"keys\": (0, 1), \"queries\": (1, 1)"),
    ("figures/heads.py", "share, relation = mass[head].max(0)", "share, relation = mass[head].min(0)"),
    ("figures/positions.py", "axes.imshow(waves, cmap=\"RdBu_r\"", "axes.imshow(waves.T, cmap=\"RdBu_r\""),
    ("figures/positions.py", "torch.sin(positions * frequency)", "torch.cos(positions * frequency)"),
    ("figures/positions.py", "f\"pair {pair}: {wavelengths[pair]:.0f}", "f\"pair {pair}: {wavelengths[pair + 1]:.0f}"),
    ("figures/positions.py", "axes.plot(range(-100, 100), products)", "axes.plot(range(-99, 101), products)"),
    ("figures/positions.py", "places = range(3, 3 + values.shape[1])", "places = range(2, 2 + values.shape[1])"),
    ("figures/positions.py", "values.amin(0), values.amax(0)", "values.mean(0), values.amax(0)"),
    ("figures/training.py", "axes[0].plot(range(1, len(values) + 1), values, label=schedule)", "axes[0].plot(range(len(values)), values, label=schedule)"),
    ("figures/training.py", "accuracy.plot(*column(history, \"token_accuracy\")", "accuracy.plot(*column(history, \"exact_match\")"),
    ("figures/training.py", "norm.axhline(clip,", "norm.axhline(1.0,"),
    ("figures/training.py", "turns = [f\"{read} → {write}\"", "turns = [f\"{write} → {read}\""),
    ("figures/training.py", "\"decoder\", \"cross_attention\", turns, source)", "\"decoder\", \"cross_attention\", turns, reads)"),
    ("figures/training.py", "counted = maps[head][1:] if title == \"decoder\" else maps[head]", "counted = maps[head]"),
    ("figures/training.py", "zip(line, (\"gradient in\", \"move of\")", "zip(line, (\"move of\", \"gradient in\")"),
    ("figures/training.py", "(0.2, \"exact_match\", \"exact match, free-running\")", "(0.2, \"token_accuracy\", \"exact match, free-running\")"),
    ("figures/training.py", "axes.invert_yaxis()", "pass"),
    ("figures/training.py", "zip(axes, (\"validation_loss\", score), strict=True)", "zip(axes, (score, \"validation_loss\"), strict=True)"),
    ("figures/training.py", "heatmap(panel, weights, queries, keys, f\"{name}: {head}\")", "heatmap(panel, weights.T, queries, keys, f\"{name}: {head}\")"),
    ("figures/training.py", "return [record[\"step\"] for record in records], [record", "return [*range(1, len(records) + 1)], [record"),
    # what has to hold, and what decides about it
    ("checks/attention.py", "return agree(weights(query, key, CAUSAL), expected_weights(query, key, CAUSAL), 1e-12, axes=WEIGHTS)", "return Finding(weights(query, key, CAUSAL) is not None)"),
    ("checks/attention.py", "return math.sqrt(query.shape[-1])", "return math.sqrt(query.shape[-2])"),
    ("checks/masks.py", "\"reversed\": Mistake(\"it is reversed: True means may attend\", lambda n: ~ours.causal_mask(n), back)", "\"reversed\": Mistake(\"the diagonal is missing: a position may see itself\", lambda n: ~ours.causal_mask(n), back)"),
    ("checks/masks.py", "    if mask.dtype != torch.bool:\n", "    if False:\n"),
    ("checks/softmax.py", "torch.softmax(whole, 1).nan_to_num(0.0), 1e-12", "torch.softmax(whole, 1).nan_to_num(0.0), 9"),
    ("checks/heads.py", "    return refused(lambda: implementation(30, 4), 30, 4)", "    return Finding(True)"),
    ("checks/heads.py", "return agree(found, gradients(run(theirs, x, x, x, BOTH)[0].sin().sum(), [x]))", "return agree(found, found)"),
    ("checks/positions.py", "    return math.cos(angle) if column % 2 else math.sin(angle)", "    return math.sin(angle) if column % 2 else math.cos(angle)"),
    ("checks/positions.py", "return together(refused(lambda: encoding(7, 40), 7), refused(lambda: encoding(11, 40), 11))\n\n\n@hints(\"The waves", "return Finding(True)\n\n\n@hints(\"The waves"),
    ("checks/tokens.py", "wrong = [text for text in texts if came[text] != text]", "wrong = [text for text in texts if not came[text]]"),
    ("checks/tokens.py", "Finding(found == [5, 3, 4, 6, 3, 7], f\"ids", "Finding(len(found) == 6, f\"ids"),
    ("checks/layers.py", "    return agree(layer(other)[:, kept], layer(X)[:, kept], 0)", "    return agree(layer(X)[:, kept], layer(X)[:, kept], 0)"),
    ("checks/layers.py", "largest_difference(found, expected) <= 1e-10)", "largest_difference(found, expected) <= 1e10)"),
    ("checks/block.py", "    finding = agree(found, reference(theirs))\n    if finding.holds:", "    finding = agree(found, found)\n    if finding.holds:"),
    ("checks/stack.py", "    finding = agree(found, expected)\n    parts = ", "    finding = agree(found, found)\n    parts = "),
    ("checks/training.py", "\"swapped\": Mistake(\"input and target are swapped: the input begins with BOS, the target ends in EOS\",\n                           swapped,", "\"swapped\": Mistake(\"input and target are swapped: the input begins with BOS, the target ends in EOS\",\n                           not_shifted,"),
    ("checks/training.py", "return agree(sequence_loss(LOGITS, TARGETS, 0.1), expected_loss(LOGITS, 0.1))", "return agree(sequence_loss(LOGITS, TARGETS), expected_loss(LOGITS, 0.0))"),
    ("checks/broken.py", "lambda query, *others, attend=attend: attend(\n                query * math.sqrt(query.shape[-1]), *others)", "attend"),
    ("checks/broken.py", "forced[name] > 0.99 and alone[name] < 0.01)", "forced[name] > 0.99 or alone[name] < 0.01)"),
    ("checks/broken.py", "alone[name] > 0.95)", "alone[name] > -0.95)"),
    ("checks/broken.py", "\"no positions\": run(positions=\"none\"),", "\"no positions\": run(),"),
    ("checks/decoding.py", "    return agree(kept(adjust_logits(SKEWED, 0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)", "    return Finding(adjust_logits(SKEWED, 0.0) is not None)"),
    ("checks/decoding.py", "return Finding(decoding.length == 2, f\"", "return Finding(decoding.length >= 2, f\""),
    ("checks/decoding.py", "    return agree(found[behind], torch.zeros_like(found[behind]), 0)", "    return agree(found[behind], found[behind], 0)"),
    ("checks/trees.py", "    if expected[-1] < 5:", "    if False:"),
    ("checks/trees.py", "[len(expected) - 1, statistic]", "[len(expected), statistic]"),
    ("checks/trees.py", "(n - e) ** 2 / e for", "(n - e) / e for"),
    ("checks/trees.py", "if token == EOS or length + 1 == max_length:", "if length + 1 == max_length:"),
    (CHECKING, "named = all(str(value) in str(error) for value in values)", "named = any(str(value) in str(error) for value in values)"),
    (CHECKING, "return Finding(False, \"nothing was raised\", \"raise a ValueError\")", "return Finding(True, \"nothing was raised\", \"raise a ValueError\")"),
    # what the lessons share
    (COMMON, "\" 1\" if seen else \" ·\"", "\" ·\" if seen else \" 1\""),
    (COMMON, "torch.set_num_threads(options.threads or 1)", "pass"),
    (COMMON, "Narrator(options.outputs, options.code, options.checks)", "Narrator(options.outputs, options.code)"),
    (COMMON, "Narrator(options.outputs, options.code, options.checks)", "Narrator(options.outputs, True, options.checks)"),
    (COMMON, "seed=options.seed, begun=begun", "begun=begun"),
    (COMMON, "if options.pause and records:", "if records:"),
    (COMMON, "options.graded, narrator, options.hint)", "options.graded, narrator, False)"),
    (COMMON, "options.graded, options.guided)", "options.graded, False)"),
    (COMMON, "prepare_folder(options.outputs)\n", "prepare_folder(OUTPUTS)\n"),
    ("course/experiment.py", "self.go_on() if self.options.resume else", "self.go_on() if not self.options.resume else"),
    ("course/experiment.py", "checkpoint_{name}.pt\"", "checkpoint.pt\""),
    ("course/comparing.py", "runs.append(train(run))", "runs.append(train(make(seeds[0])))"),
    ("course/comparing.py", "follows = {\"d_ff\": 0} if name == \"d_model\" else {}", "follows = {}"),
    ("course/measuring.py", "return counter.get_total_flops() // 2", "return counter.get_total_flops()"),
    ("course/measuring.py", "if pointer not in inputs_kept)", ")"),
    ("course/own.py", "if int(path.stem[:2]) < before)", ")"),
    ("course/own.py", "wanted = {name: part for name, part in graded.items() if name in defined}", "wanted = {}"),
    (KEEPING, "os.chmod(name, 0o644)", "pass"),
    (OPTIONS, "kinds[name](value) for value in values.split(\",\")", "kinds[name](value) for value in values.split(\",\")[:1]"),
    (OPTIONS, "action=\"store_true\", help=text)", "action=\"store_false\", help=text)"),
    # first weights, sizes and places of dropout
    (L2, "return self.project_output(self.merge(heads))", "return self.project_output(self.merge(heads.flip(1)))"),
    (L4, "nn.init.xavier_uniform_(linear.weight)", "nn.init.normal_(linear.weight)"),
    (L4, "return self.norm(x) if self.pre else x\n", "return self.norm(x)\n"),
    (L4, "return self.contract(F.dropout(x, self.dropout, self.training))", "return F.dropout(self.contract(x), self.dropout, self.training)"),
    (L6, "super().__init__(TransformerConfig(), TrainingConfig(task=options.task), options)", "super().__init__(TransformerConfig(), TrainingConfig(), options)"),
    (L6, "make_batch(task or self.options.task, sequences)", "make_batch(task or \"reverse\", sequences)"),
    (L6, "[step_your_input] if options.input else steps", "steps"),
    *OF_LESSON_7,
    *OF_THE_COURSE,
]


def tests_of(file: str) -> list[str]:
    """The test files that have to notice a mistake in this file, its own first."""
    folder, stem = Path(file).parent.name, Path(file).stem
    if file in TESTS:
        names = TESTS[file]
    elif folder == "grammar":
        names = ["grammar"]
    elif folder in ("checks", "figures"):
        own = Path(LESSON_OF[stem]).stem
        names = ["figures", own] if folder == "figures" else ["oracles", own, "attempts", "attempts_blocks"]
    elif folder == "course":
        names = ["course"]
    else:
        names = [*MORE.get(file, ()), stem]
    return [f"tests/test_{name}.py" for name in names]


class ScriptsLast:
    """For pytest: tests that start a script run after all others, or not at all."""

    def __init__(self, quick: bool):
        self.quick = quick

    def starts_a_script(self, test) -> bool:
        names = {*test.function.__code__.co_names} & {*test.function.__globals__} | {*test.fixturenames}
        return bool(names & {"run_lesson", "run_as_documented", "start", "subprocess", "uninterrupted"})

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=self.starts_a_script)
        if self.quick:
            items[:] = [test for test in items if not self.starts_a_script(test)]


def test_here(files: list[str], quick: bool) -> int:
    """The exit code of pytest on these files of the working directory, up to the first failure."""
    import pytest

    sys.path.insert(0, os.getcwd())
    sys.argv[0] = "pytest"
    with open(os.devnull, "r+b") as nowhere:
        for stream in range(3):
            os.dup2(nowhere.fileno(), stream)
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-k", SLOW]
    return int(pytest.main([*options, *files], plugins=[ScriptsLast(quick)]))


@contextmanager
def mutated(copy: Path, file: str, old: str, new: str) -> Iterator[None]:
    """Inside `with`, the file in the copy has the mistake, and no bytecode of before."""
    path = copy / file
    text = path.read_text(encoding="utf-8")
    for left in path.parent.glob(f"__pycache__/{path.stem}.*"):
        left.unlink()
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def outcome(copy: Path, files: list[str], quick: bool, seconds: float = 600, mistaken: bool = True) -> str:
    """What the tests say of the copy as it stands, found in a fork of this process."""
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(copy)
        sys.dont_write_bytecode = mistaken  # that of a mistake would outlive it
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "CI": "1"}  # CI: no chance
        code = 99
        try:
            code = test_here(files, quick)
        finally:
            os._exit(code)
    ends = time.monotonic() + seconds
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            break
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have started
    if not found[0]:
        os.waitpid(child, 0)
        return "endless"  # noticed, too, unless the machine is very busy
    return {0: "SURVIVED", 1: "killed", 2: "killed", 5: "SURVIVED"}.get(os.waitstatus_to_exitcode(found[1]), "FAILS")


def is_python(text: str) -> bool:
    """Whether it can be parsed: what can't would count as killed."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def fate(copy: Path, mutation: tuple[str, str, str], quick: bool, clean: dict[str, float]) -> str:
    """What becomes of a mistake: file by file, until one of its tests notices."""
    for tests in tests_of(mutation[0]):
        if tests not in clean:
            started = time.monotonic()
            if outcome(copy, [tests], quick, mistaken=False) == "killed":
                return "FAILS AS IS"
            clean[tests] = time.monotonic() - started
        with mutated(copy, *mutation):
            found = outcome(copy, [tests], quick, SECONDS + 4 * clean[tests])
        if found != "SURVIVED":
            return found
    return "SURVIVED"


def share(chosen: list[int], quick: bool, told: int) -> None:
    """Try these mutations in a copy of their own, and write a line about each to the pipe."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        clean: dict[str, float] = {}  # file of tests → seconds that it takes without a mistake
        for number in chosen:
            file, old, new = MUTATIONS[number]
            text, started = (copy / file).read_text(encoding="utf-8"), time.monotonic()
            if text.count(old) != 1:
                found = "NOT FOUND"
            elif not is_python(text.replace(old, new)):
                found = "NOT PYTHON"
            else:
                found = fate(copy, MUTATIONS[number], quick, clean)
            seconds = time.monotonic() - started
            line = f"{number:3} {found:11} {seconds:4.0f} s  {file}: {new.strip()[:70]!r}\n"
            os.write(told, line.encode())


def lines_of(chosen: list[int], quick: bool, jobs: int) -> Iterator[str]:
    """A line about each mutation, as soon as one of the processes has found it."""
    reading, writing = os.pipe()
    workers = []
    for job in range(jobs):
        workers.append(os.fork())
        if not workers[-1]:
            os.close(reading)
            try:
                share(chosen[job::jobs], quick, writing)
            finally:
                os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        yield from lines
    for worker in workers:
        os.waitpid(worker, 0)


def selected(names: list[str]) -> list[int]:
    """The numbers of these mutations: a number, or a part of a file's name."""
    return [number for number, (file, *_) in enumerate(MUTATIONS)
            if not names or any(name == str(number) or (not name.isdecimal() and name in file)
                                for name in names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="FILE or NUMBER", help="default: all")
    parser.add_argument("--list", action="store_true", help="list them and end")
    parser.add_argument("--quick", action="store_true", help="leave out the tests that start scripts")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (default: 1)")
    options = parser.parse_args()
    chosen = selected(options.names)
    if options.list:
        for number in chosen:
            file, old, new = MUTATIONS[number]
            sys.stdout.write(f"{number:3} {file}: {old.strip()[:50]!r} → {new.strip()[:50]!r}\n")
        return
    for name in "numpy", "torch", "hypothesis", "pytest", "rich", "matplotlib", "seaborn":
        __import__(name)  # once, for all forks
    unnoticed = []
    for line in lines_of(chosen, options.quick, options.jobs):
        sys.stdout.write(line)
        sys.stdout.flush()
        unnoticed += [line.split()[0]] if line[4:].strip().split()[0] not in ("killed", "endless") else []
    sys.stdout.write(f"{len(chosen)} mutations, {len(unnoticed)} unnoticed: {' '.join(unnoticed)}\n")
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
