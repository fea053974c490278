"""What test_parallel.py runs in each of two processes: trainings of small models by one of PyTorch's engines.

python sharing.py ENGINE FOLDER. The first process leaves the histories in FOLDER/histories.json, checkpoints
beside them, and what each process held.
"""

import json
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from common import lesson
from course.console.files import load_checkpoint, unfinished
from course.training.engine import finish, save_run, train
from course.training.parallel import held, refuse_broken_engine
from course.training.processes import PROCESSES, RANK, ProcessLost, all_processes

five, ten = lesson("05_mini_transformer"), lesson("10_architectures")
CPU = torch.device("cpu")
SIZES = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
TRAINING = five.TrainingConfig(steps=20, warmup=4, batch_size=8, validate_every=10, clip=0.5)
HALF = 7  # steps before an interruption
VARIANTS = {  # name → changes of sizes, and of the training
    "uneven": ({}, {"batch_size": 5, "accumulate": 2}),  # a process has a part without rows
    "rotary": ({"positions": "rotary"}, {"recompute": True}),
    "dropped": ({"dropout": 0.2}, {}),
    "bf16": ({}, {"precision": "bf16"}),
    "fp16": ({}, {"precision": "fp16"}),
}


def run_of(name: str, parallel: str = "data", **changes):
    sizes, training = VARIANTS[name]
    run = five.make_run(replace(SIZES, **sizes), replace(TRAINING, **training, **changes), CPU)
    run.parallel = parallel
    return run


def grouped_run(parallel: str = "data"):
    """One stack with grouped queries, SwiGLU and RMSNorm, on windows of random tokens."""
    sizes = ten.StackConfig(d_model=16, n_heads=4, n_groups=2, n_layers=1, norm_kind="rms",
                            feed_forward="swiglu", vocab_size=20, max_len=16)
    training = ten.TextTraining(steps=20, warmup=4, batch_size=8)

    def batch(step):
        rows = torch.randint(3, 20, (8, 12), generator=torch.Generator().manual_seed(step))
        return ten.next_tokens(rows.tolist())

    torch.manual_seed(0)
    model = ten.OneStack(sizes)
    job = five.sequence_job(model, training, batch, lambda model: {}, [*model.stack.blocks])
    run = five.Run(model, job, training, CPU)
    run.parallel = parallel
    return run


def main(engine: str, folder: Path) -> None:
    refuse_broken_engine(engine, CPU)
    names = [name for name in VARIANTS if (engine, name) != ("tensor", "fp16")]
    runs = {name: train(run_of(name, engine), folder / f"{name}.pt") for name in names}
    runs["grouped"] = finish(grouped_run(engine))
    half = run_of("dropped", engine)
    while len(half.history) < HALF:
        half.update()
    save_run(half, folder / "half.pt")
    torch.distributed.barrier()
    for name, path in ("resumed", unfinished(folder / "half.pt")), ("from one", folder / "one.pt"):
        run = run_of("dropped" if name == "resumed" else "uneven", engine)
        load_checkpoint(path, run.load)
        runs[name] = train(run, folder / f"{name}.pt")
    interrupted = train(run_of("uneven", engine, validate_every=4), folder / "interrupted.pt", interrupt)
    mine = held(runs["bf16"]), [run.noted("loss") for run in (*runs.values(), interrupted)]
    everywhere = [None] * PROCESSES
    torch.distributed.all_gather_object(everywhere, mine)
    if RANK == 0:
        (folder / "histories.json").write_text(json.dumps({
            "held": [found for found, _ in everywhere], "agree": everywhere[0][1] == everywhere[1][1],
            "losses": dict(zip(runs, everywhere[0][1]))}))
    full_disk(run_of("uneven", engine, validate_every=4), folder)
    lost_process(run_of("uneven", engine, validate_every=4), folder)


def interrupt(run) -> None:
    """Ctrl-C in the other process only."""
    if RANK and len(run.history) == HALF:
        os.kill(os.getpid(), signal.SIGINT)


def full_disk(run, folder: Path) -> None:
    """After the first checkpoint no file may grow; the next checkpoint can't be written."""

    def after(run) -> None:
        if len(run.history) == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    try:
        train(run, folder / "full.pt", after)
    except BaseException as error:
        ended = f"{type(error).__name__} {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (folder / f"full-{RANK}.txt").write_text(ended)


def lost_process(run, folder: Path) -> None:
    """The other process is killed in the midst of a training."""

    def after(run) -> None:
        if RANK and len(run.history) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        train(run, folder / "lost.pt", after)
    except ProcessLost as error:
        (folder / "lost.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    with all_processes():
        main(sys.argv[1], Path(sys.argv[2]))
