"""Bytes and arithmetic of operations, counted while they run; on the meta device shapes are enough, without numbers.

Counted are the bytes of tensors: not the allocator's slack, and not the workspace of kernels.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from vsr.offload import power_of_two


class PeakBytes(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that are still alive; ``peak`` is the most there were.

    Args:
        there_before: tensors that do not count, weights for example.
    """

    def __init__(self, there_before: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known = {tensor.untyped_storage()._cdata for tensor in there_before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in [result] if isinstance(result, Tensor) else tree_flatten(result)[0]:  # most are, and it is faster
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


class Count(PeakBytes):
    """The same on the meta device, with ``flops``, and apart from it what is asked for in host memory.

    ``peak`` counts all tensors, ``device_peak`` those that are not for the host; ``host`` is the bytes of the latter,
    and ``pinned`` the blocks of pinned memory that they take, how many of each size.
    """

    def __init__(self, there_before: Iterable[Tensor]) -> None:
        super().__init__(there_before)
        self.flops, self.host, self.device_peak = 0, 0, 0
        self.pinned: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, before = kwargs or {}, self.alive
        of_host = func is torch.ops.aten.empty.memory_format and kwargs.get("device") == torch.device("cpu")
        if of_host:
            kwargs = {**kwargs, "device": torch.device("meta"), "pin_memory": False}
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if of_host:
            self.host += self.alive - before
            self.pinned[power_of_two(self.alive - before)] += 1
        self.device_peak = max(self.device_peak, self.alive - self.host)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


class FusedAttention(TorchFunctionMode):
    """Attention without its n x n scores, as real devices compute it; on the meta device torch would make them.

    Args:
        count: gets its operations.
    """

    def __init__(self, count: Count) -> None:
        super().__init__()
        self._count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, _ = args
        batch, heads, length, width = query.shape
        self._count.flops += 4 * batch * heads * length * key.shape[2] * width
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
