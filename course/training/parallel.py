"""Sharing a training run between processes. --parallel names the PyTorch engine that they use.

data     DistributedDataParallel: every process has the whole model, and some rows of each batch.
fsdp     fully_shard: weights, gradients and the optimiser's states are also sharded; each process has a part.
tensor   parallelize_module: every process has all rows, and some heads and hidden units of every block.
"""

import inspect
import math
import os
import shlex
import sys
import warnings
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from course.console.ending import first_line
from course.training.processes import PROCESSES, RANK

ENGINES = "data", "fsdp", "tensor"
COLUMNS = "project_query", "project_key", "project_value", "expand", "gate"  # split by outputs
ROWS = "project_output", "contract"  # split by inputs, and summed over the processes
METHODS = "encode", "decode"  # of a model, which decoding calls instead of forward


# ------------------------------------------------------------------ the engines


class Alone:
    """Training in a single process: `forward` calls the model."""

    rank, processes = 0, 1  # which rows of a batch are this process's, and how many processes there are
    cut = False  # whether weights are sharded
    together = False  # whether all processes must take part in a validation
    rehearsed = True  # whether the next backward pass sums gradients in the same order as later ones

    def __init__(self, run: Any):
        self.forward = self.model = run.model

    @property
    def factor(self) -> int:
        """The factor for a loss: the engines average gradients, but the course sums them."""
        return self.processes

    def part(self, last: bool) -> Any:
        """A context for the backward pass of one part of a batch."""
        return nullcontext()

    def validated(self) -> nn.Module:
        """The model to validate. All processes must call this."""
        return self.model


class Data(Alone):
    """The gradients of all processes are averaged in the backward pass.

    After the first backward pass the engine reorders the gradients, and three or more processes then sum them
    in another order. So the first pass is a rehearsal: without it, resumed runs would round differently.
    """

    rehearsed = False

    def __init__(self, run: Any):
        super().__init__(run)
        self.rank, self.processes = RANK, PROCESSES
        names = inspect.signature(DistributedDataParallel).parameters  # the older name is deprecated
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        options: dict[str, Any] = {buffers: False}
        self.forward: Any = DistributedDataParallel(run.model, **options)

    def part(self, last: bool) -> Any:
        return nullcontext() if last else self.forward.no_sync()


class Shards(Alone):
    """Each block's weights are gathered when the block runs, and freed afterwards."""

    cut = together = True

    def __init__(self, run: Any):
        fsdp = import_module("torch.distributed.fsdp")
        super().__init__(run)
        self.rank, self.processes = RANK, PROCESSES
        with exchanged_parameters(run):
            for block in dict.fromkeys(run.job.blocks):
                fsdp.fully_shard(block, mesh=mesh_on(run.device))
            fsdp.fully_shard(run.model, mesh=mesh_on(run.device))
        for name in METHODS:
            if hasattr(run.model, name):
                fsdp.register_fsdp_forward_method(run.model, name)


class Tensors(Alone):
    """The heads of each attention, and the hidden units of each feed-forward network, are split up.

    The first process keeps a copy of the whole model and validates that copy, because decoding needs
    operations that DTensors don't support.
    """

    cut = True

    def __init__(self, run: Any):
        tensor = import_module("torch.distributed.tensor.parallel")
        super().__init__(run)
        self.copy = None if RANK else deepcopy(run.model)
        maps = {name: name.rpartition(".")[2] for name, module in run.model.named_modules()
                if isinstance(module, nn.Linear)}
        plan = {name: tensor.ColwiseParallel() if last in COLUMNS else tensor.RowwiseParallel()
                for name, last in maps.items() if last in COLUMNS + ROWS}
        with exchanged_parameters(run), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about dropout in DTensors on the CPU, which we draw ourselves
            tensor.parallelize_module(run.model, mesh_on(run.device), plan)
        for module in run.model.modules():
            if any(hasattr(module, name) for name in ROWS):
                draw_apart(module, run.device)

    def validated(self) -> nn.Module:
        weights = whole(self.model.state_dict())
        if self.copy is not None:
            self.copy.load_state_dict(weights)
        return self.copy or self.model


def engine_for(run: Any) -> Alone:
    """The engine that trains the run from now on. fsdp and tensor shard weights and states in place."""
    if PROCESSES == 1:
        return Alone(run)
    return {"data": Data, "fsdp": Shards, "tensor": Tensors}[run.parallel](run)


def mesh_on(device: torch.device) -> Any:
    return import_module("torch.distributed.device_mesh").init_device_mesh(device.type, (PROCESSES,))


@contextmanager
def exchanged_parameters(run: Any) -> Iterator[None]:
    """Inside `with`, an engine replaces parameters; afterwards, run and optimiser use the new ones."""
    before = dict(run.model.named_parameters())
    yield
    after = dict(run.model.named_parameters())
    new = {before[name]: after[name] for name in before}
    for group in run.optimizer.param_groups:
        group["params"] = [new[parameter] for parameter in group["params"]]
    run.optimizer.state = defaultdict(dict, {
        new[parameter]: {name: cut_like(value, new[parameter]) for name, value in state.items()}
        for parameter, state in run.optimizer.state.items()})
    run.trained = [new[parameter] for parameter in run.trained]


def cut_like(value: Any, parameter: Tensor) -> Any:
    """A state of the optimiser, sharded like its parameter."""
    if not is_cut(parameter) or not getattr(value, "ndim", 0):
        return value
    cut: Any = parameter
    return import_module("torch.distributed.tensor").distribute_tensor(value, cut.device_mesh, cut.placements)


def draw_apart(module: nn.Module, device: torch.device) -> None:
    """Inside the module, each process draws its own dropout; outside, all draw the same."""
    inside = ExitStack()

    def enter(module: nn.Module, inputs: Any) -> None:
        if module.training and getattr(module, "dropout", False):
            number = int(torch.randint(2**31, ())) * PROCESSES + RANK
            devices = [device] if device.type == "cuda" else []
            inside.enter_context(torch.random.fork_rng(devices))
            torch.manual_seed(number)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(lambda module, inputs, output: inside.close())


# ------------------------------------------------------------------ sharded and whole tensors


def is_cut(tensor: Any) -> bool:
    """Whether it is a DTensor, of which each process has a part or a whole copy."""
    return hasattr(tensor, "full_tensor")


def joined(value: Any) -> Any:
    """The whole tensor, in all processes, of one that may be sharded. All processes must call this."""
    return value.full_tensor() if is_cut(value) else value


def here(tensor: Any) -> Tensor:
    """This process's part of a tensor that may be sharded."""
    return tensor.to_local() if is_cut(tensor) else tensor


def whole(value: Any) -> Any:
    """The value with sharded tensors joined, also in nested dictionaries. All processes must call this.

    Only the first process keeps the whole tensors, in CPU memory.
    """
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    if not is_cut(value):
        return value
    together = joined(value)
    return None if RANK else together.cpu()


def kinds_of(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """The sharded ones and the others, separately: no kernel takes both at once."""
    kinds = ([p for p in parameters if is_cut(p) == cut] for cut in (False, True))
    return [kind for kind in kinds if kind]


def clip_gradients(parameters: Sequence[Tensor], longest: float) -> float:
    """clip_grad_norm_(), but some gradients may be sharded and others not → the norm before clipping."""
    kinds = kinds_of(parameters)
    if len(kinds) == 1:
        norm: Any = clip_grad_norm_(kinds[0], longest)
        return joined(norm).item()
    norms: list[Any] = [get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    total = math.hypot(*(joined(norm).item() for norm in norms))
    for parameter in parameters if total > longest else ():
        if parameter.grad is not None:
            parameter.grad.mul_(longest / (total + 1e-6))
    return total


@contextmanager
def one_kind_each(optimizer: Optimizer) -> Iterator[None]:
    """Inside `with`, no parameter group has both sharded parameters and others."""
    groups = optimizer.param_groups
    optimizer.param_groups = [group | {"params": kind} for group in groups
                              for kind in kinds_of(group["params"])]
    try:
        yield
    finally:
        optimizer.param_groups = groups


def held(run: Any) -> tuple[int, int]:
    """The weights that this process has, and the bytes of weights, gradients and the optimiser's states."""
    names = {name for name, _ in run.model.named_parameters()}
    weights = [here(tensor) for name, tensor in run.model.state_dict().items() if name in names]
    gradients = [here(p.grad) for p in run.trained if p.grad is not None]
    states = [here(value) for state in run.optimizer.state.values() for value in state.values()
              if isinstance(value, Tensor) and value.ndim]
    return (sum(tensor.numel() for tensor in weights),
            sum(tensor.nbytes for tensor in (*weights, *gradients, *states)))


def memory_report(run: Any, weights: int) -> str:
    """What each process holds at most; the whole model has `weights` weights."""
    most = torch.tensor(held(run), device=run.device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    count, size = most.tolist()
    copy = " The first one also has a whole copy, for validation." if run.parallel == "tensor" else ""
    return (f"--parallel {run.parallel}: each of {PROCESSES} processes holds at most {count:,} of "
            f"{weights:,} weights, {size:,} bytes with gradients and the optimiser's states.{copy}")


# ------------------------------------------------------------------ what isn't supported


def refuse_parallel(options: Namespace, sizes: Any, settings: Any, parts: Mapping[str, Any]) -> None:
    """A one-line ValueError for anything that the engine of --parallel, or any engine, doesn't support."""
    how = getattr(options, "parallel", None)
    if how and "RANK" not in os.environ:
        raise ValueError(f"--parallel {how} is for several processes: {command()}")
    if PROCESSES == 1:
        return
    how = how or "data"
    rows = settings.accumulate * (1 if how == "tensor" else PROCESSES)
    if settings.batch_size < rows:
        raise ValueError(f"batch_size {settings.batch_size} can't be cut into {rows} parts: "
                         f"{PROCESSES} processes with --accumulate {settings.accumulate}")
    for name, wrong in (("compile", settings.compile), ("compare", getattr(options, "compare", None)),
                        ("broken", getattr(options, "broken", False))):
        if how != "data" and wrong:
            raise ValueError(f"--{name} goes with --parallel data, and not with {how}")
    if how != "tensor":
        return
    classes = any(map(inspect.isclass, parts.values()))
    for name, wrong in (("rank", getattr(options, "rank", None)), ("with", classes),
                        ("precision fp16", settings.precision == "fp16")):
        if wrong:
            raise ValueError(f"--{name} goes with --parallel data or fsdp, and not with tensor")
    for name in "n_heads", "d_ff", "groups", "n_groups":
        number = getattr(sizes, name, 0)
        if number % PROCESSES and (name != "groups" or sizes.attention == "grouped"):
            raise ValueError(f"--parallel tensor: {name} {number} does not split into {PROCESSES} processes")


def command() -> str:
    """The command line that runs this script in two processes."""
    torchrun = Path(sys.executable).with_name("torchrun")
    if torchrun.is_relative_to(Path.cwd()):
        torchrun = torchrun.relative_to(Path.cwd())
    return shlex.join([str(torchrun), "--nproc-per-node", "2", *sys.argv])


class Probe(nn.Module):
    """A model of two linear maps, which every engine can share."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(2, 2 * PROCESSES), nn.Linear(2 * PROCESSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.expand(x).relu())


def refuse_broken_engine(how: str, device: torch.device) -> None:
    """ValueError if the engine, in this version of PyTorch and on this device, gives wrong gradients or none.

    The gradient of a tiny model is compared with that of one process. (Some versions of PyTorch
    can't average over processes on a CPU, which fsdp needs; some returned the sum instead.)
    """
    torch.manual_seed(0)
    model = Probe().to(device)
    rows = torch.randn(PROCESSES, 2, device=device)
    model(rows).sum().backward()
    wanted: dict[str, Any] = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters())
    run = SimpleNamespace(model=model, device=device, parallel=how, job=SimpleNamespace(blocks=()),
                          trained=[*model.parameters()], optimizer=optimizer)
    try:
        engine = engine_for(run)
        mine = rows[engine.rank :: engine.processes]
        (engine.forward(mine).sum() * engine.factor).backward()
        found = {name: joined(parameter.grad) for name, parameter in model.named_parameters()}
        right = all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in found)
        reason = "" if right else "its gradients are wrong"
    except (RuntimeError, ValueError, TypeError, ImportError, AttributeError, NotImplementedError) as error:
        reason = first_line(error)
    if reason:
        other = "" if how == "data" else ", or --parallel data"
        raise ValueError(f"--parallel {how} doesn't work here with PyTorch {torch.__version__} "
                         f"({reason[:80]}); use a newer PyTorch{other}")
