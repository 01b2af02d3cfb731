"""The fake accelerator itself: it raises where a real one would, and computes as the CPU does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda, value_of


def test_devices_do_not_mix(cuda: Cuda) -> None:
    with cuda():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for mixed in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here @ there):
            with pytest.raises(FakeTensorDeviceMismatchError):
                mixed()
        with pytest.raises(RuntimeError, match=r"device between self \(cuda:0\) and values"):
            there.index_put_((torch.tensor([0], device="cuda"),), torch.ones(1))
        assert (there + here.to("cuda")).device == CUDA
        assert (there * torch.tensor(2.0)).device == CUDA  # a number may come from the CPU


def test_numpy_wants_the_cpu(cuda: Cuda) -> None:
    with cuda():
        there = torch.ones(3, device="cuda")
        with pytest.raises(TypeError, match="cuda:0"):
            there.numpy()
        assert there.cpu().numpy().tolist() == [1, 1, 1]


def test_generators_have_a_device(cuda: Cuda) -> None:
    with cuda():
        assert torch.Generator("cuda").device == CUDA
        assert torch.Generator().device.type == "cpu"
        drawn = torch.rand(4, device="cuda", generator=torch.Generator("cuda").manual_seed(3))
    assert_on_cuda(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_code_that_depends_on_values_runs(cuda: Cuda) -> None:
    with cuda():
        x = torch.from_numpy(np.array([0, 2, 2, 5])).to("cuda")
        assert torch.bincount(x, minlength=7).tolist() == [1, 0, 2, 0, 0, 1, 0]
        assert x.nonzero().flatten().device == CUDA
        assert bool((x > 4).any())
        assert_on_cuda(x[x > 1], torch.tensor([2, 2, 5]))


def test_gradients_are_those_of_the_cpu(cuda: Cuda) -> None:
    def gradient(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU())
        net.to(device)
        net(torch.arange(24.0).view(6, 4).sin().to(device)).square().sum().backward()
        found = net[0].weight.grad
        assert found is not None
        return found

    expected = gradient("cpu")
    assert expected.abs().max() > 1e-3
    with cuda():
        found = gradient("cuda")
    assert_on_cuda(found, expected)
    assert value_of(found).device.type == "cpu"
