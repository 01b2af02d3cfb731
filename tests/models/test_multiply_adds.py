"""Multiply-adds of a network: against sums over its layers, and numbers that are published."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from eval.models import in_memory
from eval.models.backbone import load
from eval.models.multiply_adds import counted
from eval.models.resolve import resolve
from eval.results.receipt import model_info
from eval.results.schema import ModelInfo


def by_layers(net: nn.Module, image: Tensor) -> int:
    """The sum over convolutions and linear layers of what each output element costs."""
    found: list[int] = []

    def hook(layer: nn.Module, given: Any, out: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            wide, high = layer.kernel_size
            found.append(out.numel() * layer.in_channels // layer.groups * wide * high)
        elif isinstance(layer, nn.Linear):
            found.append(out.numel() * layer.in_features)

    handles = [layer.register_forward_hook(hook) for layer in net.modules()]
    with torch.inference_mode():
        net(image)
    for handle in handles:
        handle.remove()
    return sum(found)


def cost_of(net: nn.Module, image: Tensor) -> int | None:
    with torch.inference_mode():
        out, cost = counted(net, image)
        assert torch.equal(out, net(image))
    return cost


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_b0", "convnext_atto"])
@pytest.mark.parametrize("size", [64, 96])
def test_of_a_convolutional_network_it_is_the_sum_over_its_layers(name: str, size: int) -> None:
    net = timm.create_model(name, num_classes=0).eval()
    image = torch.zeros(1, 3, size, size)
    assert cost_of(net, image) == by_layers(net, image)


@pytest.mark.parametrize(
    ("name", "published"),
    # torchvision's tables (GFLOPS there are multiply-adds): resnet18 1.81, resnet50 4.09,
    # vit_b_16 17.56, swin_t 4.49
    [
        ("resnet18", 1.81), ("resnet50", 4.09), ("vit_base_patch16_224", 17.56),
        ("swin_tiny_patch4_window7_224", 4.49),
    ],
)  # fmt: skip
def test_of_known_networks_it_is_what_is_published(name: str, published: float) -> None:
    with torch.device("meta"):  # shapes alone
        net = timm.create_model(name).eval()
        _, cost = counted(net, torch.zeros(1, 3, 224, 224))
    assert cost is not None
    assert cost / 1e9 == pytest.approx(published, rel=0.006)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("net", "sum_of_parts"),
    [
        (SelfAttention(), 10 * 64 * 64 * 4 + 2 * 10 * 10 * 64),
        (
            nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
            10 * 64 * 64 * 4 + 2 * 10 * 10 * 64 + 2 * 10 * 64 * 128,
        ),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_what_torch_fuses_counts_like_its_parts(
    net: nn.Module, sum_of_parts: int, fused: bool
) -> None:
    x = torch.rand(1, 10, 64)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        assert cost_of(net.eval(), x) == sum_of_parts
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_no_module_outside_is_hooked_meanwhile() -> None:
    """Other threads of the Space run networks while one is loaded."""
    hooks: list[int] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hooks.append(len(nn.modules.module._global_forward_hooks))
            return x @ x

    assert cost_of(Looks(), torch.rand(1, 4, 4)) == 64
    assert hooks[0] == hooks[1] == 0


class Dislikes(nn.Module):
    """Runs where nothing watches its operations."""

    def forward(self, x: Tensor) -> Tensor:
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("watched")
        return x @ x


def test_none_where_it_cannot_be_counted() -> None:
    assert cost_of(Dislikes(), torch.rand(1, 3, 4, 4)) is None
    assert cost_of(nn.AvgPool2d(2), torch.rand(1, 3, 4, 4)) is None
    broken = nn.Conv2d(4, 4, 1)
    with pytest.raises(RuntimeError, match="channels"):
        counted(broken, torch.rand(1, 3, 4, 4))


def test_a_result_says_it_of_the_size_that_was_scored(cache: Any) -> None:
    small, large = (
        load(resolve("zoo:resnet18_narrow.ce_tin100", cache, img_size=size)) for size in (None, 128)
    )
    assert small.multiply_adds
    assert large.multiply_adds == 4 * small.multiply_adds
    assert model_info(small).multiply_adds == small.multiply_adds


def test_a_network_in_memory_has_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    said = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    mine = in_memory.backbone(net, said, name="mine", pool="avg")
    assert mine.multiply_adds == 30 * 30 * 8 * 27


def test_a_file_without_it_is_read_and_written_as_it_was() -> None:
    old = {"spec": "a", "id": "a", "revision": "", "weights_sha256": "", "params": 5,
           "input": {}, "img_size": None}  # fmt: skip
    assert ModelInfo.model_validate(old).model_dump(mode="json") == old
    told = old | {"multiply_adds": 12}
    assert ModelInfo.model_validate(told).model_dump(mode="json") == told
