"""CUDA tensors on a machine without a GPU, which know their values.

    with FakeCuda():
        x = torch.ones(3, device="cuda")
        x + torch.ones(3)  # raises: two devices
        float(x.sum())  # 3.0

torch's FakeTensorMode makes tensors with a shape and a device but no values. It raises where
devices mix, and stops where a program looks at a value (``nonzero``, ``.tolist()``,
``if x.any()``). Here each tensor has its values beside it, on the CPU, and every operation is done
on those as well: code that depends on data runs to its end, and what it gives can be held against
a run on the CPU.

What no fake shows: kernels, streams, bfloat16 (autocast for CUDA is off where there is none) and
random numbers of the device, which are drawn here by the CPU's generator. `check.py` is for those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_map

from eval.common.distributed import Workers

CUDA = torch.device("cuda:0")
_CPU = torch.device("cpu")
# What torch's C++ is told of such a tensor's device (Python is told the truth): its backward pass
# would look for the streams of a real GPU.
_META = torch.device("meta")
# What a fake cannot answer by itself, or asks a symbolic size for: answered by the values.
_ASKED = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
_aten = torch.ops.aten


def value_of(tensor: Tensor) -> Tensor:
    """The values of a fake tensor, on the CPU; a real tensor is its own."""
    return tensor.value if isinstance(tensor, FakeTensor) else tensor


_Generator = torch.Generator


class CudaGenerator(_Generator):
    """A generator that stands on CUDA as far as code can tell, and draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return _Generator.__new__(cls if torch.device(device).type == "cuda" else _Generator)

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return CUDA


class FakeCuda(FakeTensorMode):
    """FakeTensorMode whose tensors have a ``value`` on the CPU."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False  # one operation is taken apart into others, to learn its shape

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and args[0].fake_device.type == "cuda":
            return _META
        kwargs = {k: v for k, v in (kwargs or {}).items() if k != "pin_memory"}
        if kwargs.get("device") == _META:
            kwargs["device"] = CUDA
        if self._inside:
            return super().dispatch(func, types, args, kwargs)
        if func is _aten._pin_memory.default:
            if args[0].device.type != "cpu":
                raise RuntimeError("cannot pin a tensor that is not on the CPU")
            return args[0]
        with torch.utils._mode_utils.no_dispatch():
            values = func(*_on_cpu(args), **_on_cpu(kwargs))
        self._inside = True
        try:
            out = super().dispatch(func, types, args, kwargs)
        except _ASKED:
            out = self._like(values, func, args, kwargs)
        finally:
            self._inside = False
        _give(out, values)
        return out

    def _like(self, values: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Fakes of the values' shapes on the device of the arguments; numbers as they are."""
        flat = torch.utils._pytree.arg_tree_leaves(*args, **kwargs)
        device, _ = FakeTensor._find_common_device(func, flat)  # raises where devices mix

        def fake(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            with self:
                return torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device=device
                )

        return tree_map(fake, values)


def _on_cpu(tree: Any) -> Any:
    def real(leaf: Any) -> Any:
        if isinstance(leaf, FakeTensor):
            return leaf.value
        if isinstance(leaf, Tensor) and leaf.device == _META:
            raise AssertionError("a tensor that C++ made on the device that it was told of")
        return _CPU if isinstance(leaf, torch.device) else leaf

    return tree_map(real, tree)


def _give(out: Any, values: Any) -> None:
    """Lay the values beside the fakes; both are trees of one form.

    Shapes are the same but for what an operator returns behind its result for its own backward
    pass (batch norm, embedding bag): CUDA and the CPU note it differently, one of them not at all.
    """
    fakes, reals = (torch.utils._pytree.tree_leaves(t) for t in (out, values))
    assert len(fakes) == len(reals)
    for place, (fake, real) in enumerate(zip(fakes, reals, strict=True)):
        if isinstance(fake, FakeTensor):
            noted = place > 0 and 0 in (fake.numel(), real.numel())
            assert noted or fake.shape == real.shape, (fake.shape, real.shape)
            fake.value = real


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` that lays new parameters in the place of the old ones: torch's own swaps
    their insides, which fakes do not take."""
    for child in self.children() if recurse else ():
        child._apply(fn)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = fn(parameter)
            if moved is not parameter:
                self._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self


def _numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """As torch's: a tensor of CUDA, or one with gradients, has to be brought here first."""
    if self.device.type != "cpu":
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")
    if self.requires_grad:
        raise RuntimeError("can't call numpy() on a tensor that requires grad")
    with torch.utils._mode_utils.no_dispatch():
        return value_of(self).numpy()


def _index(key: Any) -> Any:
    """C++ would make an index of a list on the device that it is told of. From the CPU it is as
    good: torch takes such an index on any device."""
    keys = key if isinstance(key, tuple) else (key,)
    made = tuple(torch.tensor(k) if isinstance(k, list) else k for k in keys)
    return made if isinstance(key, tuple) else made[0]


def _getitem(self: Tensor, key: Any) -> Tensor:
    return Tensor.__getitem__(self, _index(key))


def _setitem(self: Tensor, key: Any, value: Any) -> None:
    Tensor.__setitem__(self, _index(key), value)


def _deepcopy(self: Tensor, memo: dict[int, Tensor]) -> Tensor:
    """torch's own copies the storage, of which a fake has none."""
    if id(self) not in memo:
        copied = self.detach().clone()
        leaf = isinstance(self, nn.Parameter)
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if leaf else copied
    return memo[id(self)]


Cuda = Callable[[], contextlib.AbstractContextManager[FakeCuda]]  # the fixture of conftest.py


@contextlib.contextmanager
def fake_cuda(monkeypatch: Any) -> Iterator[FakeCuda]:
    """Code in here finds a CUDA device: what it asks torch besides tensors is answered too."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "Generator", CudaGenerator)
        patch.setattr(FakeTensor, "numpy", _numpy, raising=False)
        patch.setattr(Tensor, "__deepcopy__", _deepcopy)
        patch.setattr(FakeTensor, "__getitem__", _getitem, raising=False)
        patch.setattr(FakeTensor, "__setitem__", _setitem, raising=False)
        patch.setattr(FakeTensor, "pin_memory", lambda self: self, raising=False)
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(torch.cuda, "get_device_name", lambda device=None: "fake")
        # No cuDNN, whose operators have no counterpart on the CPU.
        with torch.backends.cudnn.flags(enabled=False), FakeCuda() as mode:
            yield mode


def cuda_workers() -> Workers:
    """One process whose device is the fake."""
    workers = Workers("cpu")
    workers.device = CUDA
    return workers


def assert_on_cuda(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """``found`` lies on the fake device and has the values that the CPU computed."""
    assert isinstance(found, FakeTensor)
    assert found.device == CUDA
    torch.testing.assert_close(
        found.value.detach(), expected.detach(), rtol=tolerance, atol=tolerance
    )
