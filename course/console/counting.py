"""Counting bytes: those alive at the same time, and those moved between a fast memory and a slow one."""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_WORK = "aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view"  # these move no data


def tensors_in(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors created inside `with`: `now` currently, `peak` at most so far.

    Views share the storage of their tensor and aren't counted, nor are the `known` tensors. Memory that a
    kernel allocates and frees internally isn't seen.
    """

    def __init__(self, *known: Tensor):
        super().__init__()
        self.now = self.peak = 0
        self.alive: dict[int, weakref.ref] = {}
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self.note(tensor.untyped_storage())
        return result

    def note(self, storage) -> None:
        """Count a storage from now until it is freed."""
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive or key in self.known:
            return

        def freed(_) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(function: Callable, *inputs: Any) -> int:
    """The most bytes alive at once in function(*inputs), beyond the inputs."""
    with LiveBytes(*tensors_in(inputs)) as live:
        result = function(*inputs)
    del result
    return live.peak


class FastMemory(TorchDispatchMode):
    """A fast memory of `size` bytes in front of a slow one; `moved` counts the bytes moved between them.

    Every tensor that an operation reads or writes has to be in the fast memory. To make room, the least
    recently used tensors are evicted, and copied back to the slow memory if they were written. A tensor
    larger than the fast memory is moved each time. A tensor freed before its eviction costs nothing. This is
    a model of a cache, with one thread and no prefetching, not a measurement.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size, self.moved, self.used = size, 0, 0
        self.held: OrderedDict[tuple, list] = OrderedDict()  # view → its bytes, whether written
        self.storages: dict[int, tuple[weakref.ref, set]] = {}

    def __exit__(self, *exception):
        self.moved += sum(size for size, written in self.held.values() if written)
        self.held.clear()
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if func.is_view or name.startswith(NO_WORK):
            return result
        given = {key: value for key, value in (kwargs or {}).items() if key != "out"}  # it is only written
        for tensor in tensors_in((args[1:] if name == "aten::copy_" else args, given)):
            self.touch(tensor, written=False)
        for tensor in tensors_in(result):
            self.touch(tensor, written=True)
        return result

    def touch(self, tensor: Tensor, written: bool) -> None:
        """Record that the tensor is read or written."""
        size, key = tensor.nbytes, (tensor.data_ptr(), tuple(sorted(n for n in tensor.shape if n > 1)))
        self.watch(tensor.untyped_storage(), key)
        if size > self.size:
            self.moved += size
        elif key in self.held:
            self.held.move_to_end(key)
            self.held[key][1] |= written
        else:
            self.moved += 0 if written else size
            self.make_room(size)
            self.held[key] = [size, written]
            self.used += size

    def make_room(self, size: int) -> None:
        while self.used + size > self.size:
            _, (freed, written) = self.held.popitem(last=False)
            self.used -= freed
            self.moved += freed if written else 0

    def watch(self, storage, key: tuple) -> None:
        """Forget the views of a storage when it is freed."""
        number = storage._cdata
        if number not in self.storages:

            def freed(_) -> None:
                for view in self.storages.pop(number)[1]:
                    if view in self.held:
                        self.used -= self.held.pop(view)[0]

            self.storages[number] = (weakref.ref(storage, freed), set())
        self.storages[number][1].add(key)


def there_and_back(function: Callable) -> Callable:
    """A function that runs `function` on copies of its inputs, and backward from the sum of its result."""

    def run(*inputs: Tensor) -> None:
        function(*(tensor.detach().requires_grad_() for tensor in inputs)).sum().backward()

    return run


def traffic(function: Callable, size: int, *inputs: Tensor) -> int:
    """The bytes that function(*inputs) moves in and out of a fast memory of this size."""
    with FastMemory(size) as memory:
        result = function(*inputs)
    del result
    return memory.moved
