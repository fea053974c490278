"""PyTorch's own engines for training on several ranks, each compared with the gradients of one process.

Parts that differ between versions of PyTorch are imported only when needed, and tested before being trusted.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from course.console.ending import first_line
from course.training.parallel import here
from course.training.pieces import after_backward, fresh, gap_of_gradients, piece_of_blocks, rows_of
from course.training.ranks import Group

Loss = Callable[[nn.Module, Any], Tensor]  # model and rows → the rows' part of the mean over the batch


class Engine(NamedTuple):
    """An engine's results on a rank: the largest gap of its gradients, and the bytes of the rank's weights.

    `reason` says why this PyTorch can't run it on CPUs; the other fields then mean nothing.
    """

    gap: float = 0.0
    kept: int = 0
    reason: str = ""


def compared(model: nn.Module, whole: nn.Module) -> Engine:
    """Compare the engine's model, after backward(), with the whole one."""
    return Engine(gap_of_gradients(model, whole), sum(here(p).nbytes for p in model.parameters()))


def mesh_of(group: Group) -> Any:
    """A one-dimensional device mesh of all ranks, for PyTorch's engines."""
    return importlib.import_module("torch.distributed.device_mesh").init_device_mesh("cpu", (group.size,))


def data_engine(whole: nn.Module, batch: Any, loss: Loss, group: Group) -> Engine:
    """DistributedDataParallel averages the gradients of all ranks, so the loss is multiplied by P."""
    model = DistributedDataParallel(fresh(whole))
    (group.size * loss(model, rows_of(batch, group))).backward()
    return compared(model.module, whole)


def fsdp_engine(whole: nn.Module, batch: Any, loss: Loss, group: Group) -> Engine:
    """fully_shard() shards the weights of each block, and gathers them just before they are needed."""
    fully_shard = importlib.import_module("torch.distributed.fsdp").fully_shard
    model, mesh = fresh(whole), mesh_of(group)
    for block in [module for module in model.modules() if hasattr(module, "feed_forward")]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    (group.size * loss(model, rows_of(batch, group))).backward()
    return compared(model, whole)


def tensor_engine(whole: nn.Module, batch: Any, loss: Loss, layers: Sequence[Sequence[str]], group: Group
                  ) -> Engine:
    """parallelize_module() follows a plan: name of a linear map → by columns or by rows."""
    parallel = importlib.import_module("torch.distributed.tensor.parallel")
    model, plan = fresh(whole), dict[str, Any]()
    for name, module in model.named_modules():
        for *columns, row in (names for names in layers if hasattr(module, names[0])):
            plan |= {f"{name}.{column}": parallel.ColwiseParallel() for column in columns}
            plan[f"{name}.{row}"] = parallel.RowwiseParallel()
    parallel.parallelize_module(model, mesh_of(group), plan)
    loss(model, batch).backward()
    return compared(model, whole)


def pipeline_engine(schedule: str, blocks: nn.Module, x: Tensor, target: Tensor, group: Group) -> Engine:
    """This rank's blocks as a stage, run by torch.distributed.pipelining with 4 micro-batches."""
    if (count := len([*blocks.children()])) % group.size:
        return Engine(reason=f"{count} blocks don't split over {group.size} ranks")
    pipelining = importlib.import_module("torch.distributed.pipelining")
    kind = getattr(pipelining, schedule)
    if "scale_grads" not in inspect.signature(kind).parameters:  # such a version sums, and may hang
        return Engine(reason=f"PyTorch {torch.__version__} can't average over micro-batches; a newer one "
                             "can")
    part = piece_of_blocks(blocks, group)
    model = fresh(part)
    stage = pipelining.PipelineStage(model, group.rank, group.size, torch.device("cpu"))
    run = kind(stage, n_microbatches=4, loss_fn=F.mse_loss)
    run.step(*([x] if group.rank == 0 else []),
             **({"target": target} if group.rank == group.size - 1 else {}))
    return compared(model, part)


def averages(group: Group) -> bool:
    """Whether the backend can average in a reduce-scatter; some versions refuse, or return the sum."""
    piece = torch.zeros(1)
    try:
        distributed.reduce_scatter_tensor(piece, torch.full((group.size,), group.rank + 1.0),
                                          op=distributed.ReduceOp.AVG)
    except (RuntimeError, ValueError):
        return False
    return piece.item() == (group.size + 1) / 2


def run_engines(whole: nn.Module, batch: Any, loss: Loss, layers: Sequence[Sequence[str]],
                pipeline: tuple[nn.Module, Tensor, Tensor], group: Group) -> dict[str, Engine]:
    """Each engine's results on this rank. `pipeline` is a model of blocks, its input and its targets."""
    blocks, x, target = pipeline
    whole = after_backward(whole, lambda model: loss(model, batch))
    pipeline = after_backward(blocks, lambda model: F.mse_loss(model(x), target)), x, target
    jobs: dict[str, Callable[[Group], Engine]] = {
        "DistributedDataParallel": partial(data_engine, whole, batch, loss),
        "FSDP2 (fully_shard)": partial(fsdp_engine, whole, batch, loss),
        "parallelize_module": partial(tensor_engine, whole, batch, loss, layers),
        "pipelining, GPipe": partial(pipeline_engine, "ScheduleGPipe", *pipeline),
        "pipelining, 1F1B": partial(pipeline_engine, "Schedule1F1B", *pipeline)}
    found, version = {}, f"PyTorch {torch.__version__}"
    able = averages(group)
    for name, job in jobs.items():
        if "FSDP2" in name and not able:
            found[name] = Engine(reason=f"{version} can't average on CPUs; a newer one can")
            continue
        try:
            found[name] = job(group)
        except (AttributeError, ImportError, NotImplementedError) as error:
            found[name] = Engine(reason=f"not in {version}: {first_line(error)}")
    return found
