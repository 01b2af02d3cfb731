"""The detection network: whose weights and maps it has, what it is trained on, what it finds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from eval.common.errors import UserError
from eval.detection import features, norms
from eval.detection.batch import Batch, Target
from eval.detection.network import Detector, build_detector, rebuild
from eval.detection.pooling import PyramidPool
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve

LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
Build = Callable[..., Detector]
Loaded = Callable[[str], Backbone]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    cache = tmp_path_factory.mktemp("cache")
    loaded: dict[str, Backbone] = {}

    def get(spec: str) -> Backbone:
        if spec not in loaded:
            loaded[spec] = load(resolve(spec, cache))
        return loaded[spec]

    return get


@pytest.fixture(scope="module")
def small(backbone: Loaded) -> Build:
    """A narrow detector of 3 classes."""

    def build(spec: str, **settings: Any) -> Detector:
        return build_detector(backbone(spec), 3, **{"channels": 16, "head": 32, **settings})

    return build


def target(*boxes: list[float], label: int = 2) -> Target:
    places = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(places, torch.full((len(boxes),), label))


def batch(height: int = 96, width: int = 128) -> Batch:
    """Two images, one smaller than the batch, and one without boxes."""
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))
    sizes = [(height - 6, width), (height, width - 40)]
    images[0, :, sizes[0][0] :] = 0
    images[1, :, :, sizes[1][1] :] = 0
    return Batch(images, sizes, [target([3, 4, 60, 70], [30, 10, 90, 40]), target()])


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def confident(detector: Detector) -> Detector:
    """With scores that differ, as of a trained one."""
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight.mul_(60)
        detector.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
    return detector


# --------------------------------------------------------------------------- maps and weights


@pytest.mark.parametrize(
    ("spec", "strides", "divisor"),
    [
        ("random:test_resnet", (4, 8, 16, 32), 32),
        ("random:resnet10t", (4, 8, 16, 32), 32),
        ("zoo:resnet18_narrow.ce_tin100", (4, 8, 16, 32), 32),
        ("random:convnext_atto", (4, 8, 16, 32), 32),
        ("random:regnetx_002", (4, 8, 16, 32), 32),
        ("random:swin_tiny_patch4_window7_224", (4, 8, 16, 32), 32),
        ("random:vit_tiny_patch16_224", (16,), 32),
    ],
)
def test_the_maps_are_those_of_the_backbone(
    backbone: Loaded, small: Build, spec: str, strides: tuple[int, ...], divisor: int
) -> None:
    net = backbone(spec).net.net
    detector = small(spec).eval()
    assert detector.divisor == divisor
    assert detector.body.strides == strides
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        wanted = net.forward_intermediates(images, intermediates_only=True, norm=False)
        maps = detector.body(images)
    for ours, theirs in zip(maps, wanted[-len(strides) :], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [224 / m.shape[2] for m in maps] == list(strides)
    assert [m.shape[1] for m in maps] == list(detector.body.widths)


@pytest.mark.parametrize("spec", ["random:convnext_atto", "random:efficientnet_lite0"])
def test_the_halves_of_c4_are_the_backbone(backbone: Loaded, small: Build, spec: str) -> None:
    detector = small(spec, neck="c4").eval()
    images = torch.randn(1, 3, 96, 64)
    net = backbone(spec).net.net
    with torch.no_grad():
        *_, c4, c5 = net.forward_intermediates(images, intermediates_only=True)
        (ours,) = detector.body(images)
        stage = detector.roi_heads.box_head.stage(ours)
    torch.testing.assert_close(ours, c4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stage, c5, rtol=1e-4, atol=1e-5)
    assert detector.divisor == 16


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_a_step_leaves_the_shared_backbone_alone(backbone: Loaded, small: Build, neck: str) -> None:
    spec = "zoo:resnet18_narrow.ce_tin100"
    shared = backbone(spec).net
    before = state(shared)
    flags = [p.requires_grad for p in shared.parameters()]
    detector = small(spec, neck=neck)
    source = set(map(torch.Tensor.data_ptr, shared.state_dict().values()))
    assert not source & set(map(torch.Tensor.data_ptr, detector.state_dict().values()))
    start = state(detector)
    optimiser = torch.optim.SGD(detector.parameters(), lr=0.01)
    sum(detector(batch(64, 96)).values(), torch.zeros(())).backward()
    optimiser.step()
    assert same(before, state(shared))
    assert flags == [p.requires_grad for p in shared.parameters()]
    assert not shared.training
    fixed = [n for n, p in detector.named_parameters() if torch.equal(p, start[n])]
    assert not fixed


def test_the_same_seed_draws_the_same_heads(small: Build) -> None:
    def heads(spec: str, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(99)
        return state(small(spec, seed=seed).roi_heads)

    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    detector = small("random:test_resnet", seed=7)
    assert torch.equal(torch.rand(1), wanted)  # nobody else's draws are touched
    assert same(state(detector.roi_heads), heads("random:test_resnet", 7))
    assert not same(state(detector.roi_heads), heads("random:test_resnet", 8))


def test_missing_weights_are_refused() -> None:
    net: Any = timm.create_model("test_resnet")
    maps = features.build_maps("test_resnet", {})
    full = net.state_dict()
    copied = features.build_maps("test_resnet", {}, net)
    assert {n: t.tolist() for n, t in copied.net.state_dict().items()} == {
        n: full[n].tolist() for n in maps.net.state_dict()
    }
    net.layer2 = nn.Identity()
    with pytest.raises(UserError, match=r"has no weights for 'layer2\.0\.conv1\.weight'"):
        features.copy_weights(net, maps.net, "net")
    wide = timm.create_model("test_resnet", channels=(32, 64, 96, 160))
    with pytest.raises(UserError, match=r"are \[64, .* but its feature maps take \[48, "):
        features.copy_weights(wide, maps.net, "net")


def test_rebuilt_from_its_recipe(small: Build) -> None:
    for spec, neck in (("zoo:resnet18_narrow.ce_tin100", "fpn"), ("random:test_vit", "fpn"),
                       ("random:test_resnet", "c4")):  # fmt: skip
        detector = confident(small(spec, neck=neck, norm="frozen")).eval()
        recipe = json.loads(json.dumps(detector.recipe))
        again = rebuild(recipe).eval()
        assert again.recipe == recipe
        again.load_state_dict(state(detector), strict=True)
        images = batch(64, 64)
        for a, b in zip(detector.detect(images), again.detect(images), strict=True):
            assert same(a, b)


# --------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("spec", "neck"),
    [
        ("random:resnet10t", "fpn"),
        ("random:test_resnet", "c4"),
        ("random:convnext_atto", "fpn"),
        ("random:test_efficientnet", "c4"),
        ("random:mobilenetv3_small_050", "fpn"),
        ("random:swin_tiny_patch4_window7_224", "fpn"),
        ("random:test_vit", "fpn"),
        ("random:deit_tiny_distilled_patch16_224", "fpn"),
    ],
)
def test_every_parameter_is_trained(small: Build, spec: str, neck: str) -> None:
    detector = small(spec, neck=neck)
    assert all(p.requires_grad for p in detector.parameters())
    assert all(m.training for m in detector.modules())
    losses = detector(batch(64, 96))
    assert losses.keys() == LOSSES
    for loss in losses.values():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    sum(losses.values(), torch.zeros(())).backward()
    untrained = [n for n, p in detector.named_parameters() if p.grad is None]
    assert not untrained  # DistributedDataParallel would wait for them
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


@pytest.mark.parametrize("neck", ["fpn", "c4"])
@pytest.mark.parametrize("spec", ["random:test_resnet", "random:test_efficientnet"])
def test_frozen_norm_stays(small: Build, spec: str, neck: str) -> None:
    detector = small(spec, neck=neck, norm="frozen")
    own = (detector.roi_heads.box_head.norm,) if neck == "c4" else ()
    fixed = [m for m in norms.batch_norms(detector) if m not in own]
    assert len(fixed) == len(norms.batch_norms(small(spec, neck=neck))) - len(own)
    before = [state(m) for m in fixed]
    detector.eval()
    detector.train()
    assert detector.training
    assert not any(m.training for m in fixed)
    assert all(m.training for m in own)
    sum(detector(batch(64, 96)).values(), torch.zeros(())).backward()
    assert all(same(a, state(m)) for a, m in zip(before, fixed, strict=True))
    still = {id(p) for m in fixed for p in m.parameters()}
    for parameter in detector.parameters():
        assert (id(parameter) in still) == (parameter.grad is None)


def test_trained_norm_moves(small: Build) -> None:
    detector = small("random:test_resnet")
    before = [state(m) for m in norms.batch_norms(detector)]
    detector(batch(64, 96))
    assert before
    assert not any(
        same(a, state(m)) for a, m in zip(before, norms.batch_norms(detector), strict=True)
    )


@pytest.mark.parametrize("norm", norms.NORMS)
def test_norms_of_several_gpus_are_synchronised(
    monkeypatch: pytest.MonkeyPatch, small: Build, norm: str
) -> None:
    alone = small("random:test_efficientnet", norm=norm)  # its norms hold their activation
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    on = {"cuda": False, "backend": "gloo"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: on["cuda"])
    monkeypatch.setattr("torch.distributed.get_backend", lambda: on["backend"])
    for on["cuda"] in (False, True):
        each = small("random:test_efficientnet", norm=norm)
        assert not any(isinstance(m, nn.SyncBatchNorm) for m in each.modules())
    on["backend"] = "nccl"
    shared = small("random:test_efficientnet", norm=norm)
    found = norms.batch_norms(shared)
    assert found
    assert all(isinstance(m, nn.SyncBatchNorm) for m in found)
    assert all(m.training == (norm == "batch") for m in found)
    assert same(state(alone), state(shared))
    images = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(shared.eval().body(images), alone.eval().body(images), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_images_of_one_pixel(small: Build, neck: str) -> None:
    detector = small("random:test_resnet", neck=neck)
    tiny = Batch(torch.zeros(2, 3, 32, 32), [(1, 1), (20, 32)], [target([0, 0, 1, 1]), target()])
    tiny.images[:, :, :1, :1] = 1
    assert all(loss.isfinite() for loss in detector(tiny).values())
    empty = Batch(tiny.images, tiny.sizes, [target(), target()])
    losses = detector(empty)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    sum(losses.values(), torch.zeros(())).backward()
    assert len(detector.eval().detect(empty)) == 2


def test_an_image_without_proposals(monkeypatch: pytest.MonkeyPatch, small: Build) -> None:
    detector = small("random:test_resnet")
    none = ([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2)
    monkeypatch.setattr(detector.rpn, "filter_proposals", lambda *_: none)
    images = batch(64, 64)
    images.targets = [target(), target()]
    assert all(loss.isfinite() for loss in detector(images).values())
    assert len(detector.eval().detect(images)) == 2


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_bfloat16(small: Build, neck: str) -> None:
    detector = small("random:test_resnet", neck=neck)
    full, narrow = copy.deepcopy(detector), detector
    narrow.bf16 = True
    inputs: list[torch.dtype] = []
    detector.roi_heads.box_roi_pool.register_forward_pre_hook(
        lambda _, args: inputs.extend([*(m.dtype for m in args[0].values()), args[1][0].dtype])
    )
    losses = []
    for each in (full, narrow):
        torch.manual_seed(0)
        losses.append(each(batch(64, 96)))
    for name in LOSSES:
        assert losses[1][name].dtype == torch.float32
        torch.testing.assert_close(losses[1][name], losses[0][name], rtol=0.05, atol=0.02)
    assert losses[0] != losses[1]
    assert set(inputs) == {torch.float32}
    sum(losses[1].values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in narrow.parameters())
    for found in narrow.eval().detect(batch(64, 96)):
        assert found["boxes"].dtype == found["scores"].dtype == torch.float32


# --------------------------------------------------------------------------- plain ViTs


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
def test_a_plain_vit_takes_images_of_any_size(tmp_path: Path, patch: int) -> None:
    args = {"patch_size": patch, "img_size": 64 if patch != 14 else 70}
    net = timm.create_model("test_vit", num_classes=3, **args)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    size = [3, args["img_size"], args["img_size"]]
    config = {"architecture": "test_vit", "num_classes": 3, "model_args": args,
              "pretrained_cfg": {"input_size": size, "fixed_input_size": True}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    vit = load(resolve(f"local-dir:{tmp_path}", tmp_path))
    detector = build_detector(vit, 3, channels=16, head=32)
    assert detector.divisor == 32
    images = batch(96, 160)
    maps = detector.neck({"0": detector.body(images.images)[0]})
    sizes = [tuple(m.shape[1:]) for m in maps.values()]
    assert sizes == [(16, 24, 40), (16, 12, 20), (16, 6, 10), (16, 3, 5), (16, 2, 3)]
    assert all(loss.isfinite() for loss in detector(images).values())
    assert len(detector.eval().detect(images)) == 2
    again = rebuild(json.loads(json.dumps(detector.recipe)))
    again.load_state_dict(detector.state_dict(), strict=True)


@pytest.mark.parametrize("patch", [12, 14, 18, 20])
def test_resampling_keeps_places(patch: int) -> None:
    height, width = 96, 224
    rows, columns = -(-height // patch), -(-width // patch)
    centre = (torch.arange(columns) + 0.5) * patch  # a map that holds where each patch lies
    maps = centre.expand(1, 1, rows, columns)
    out = features.resample(maps, patch, 16, (height, width))
    assert out.shape == (1, 1, 6, 14)
    wanted = (torch.arange(14) + 0.5) * 16
    inside = slice(1, -1)  # at the border nothing lies further out
    torch.testing.assert_close(out[0, 0, 2, inside], wanted[inside])


# --------------------------------------------------------------------------- detection


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_what_is_found_lies_in_the_image(small: Build, neck: str) -> None:
    detector = confident(small("random:test_resnet", neck=neck)).eval()
    images = batch(96, 128)
    for found, (height, width) in zip(detector.detect(images), images.sizes, strict=True):
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        assert 0 < len(boxes) == len(scores) == len(labels) <= 100
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (scores > 0.05).all()
        assert (scores.diff() <= 0).all()
        assert set(labels.tolist()) <= {1, 2, 3}
        assert not scores.requires_grad
        kept = torchvision.ops.batched_nms(boxes, scores, labels, 0.5)
        assert len(kept) == len(boxes)


def test_boxes_are_pooled_at_the_strides_of_the_network() -> None:
    """torchvision would take stride 2 for this image, half the height of its padded batch."""
    pool = PyramidPool((4, 8, 16, 32))
    maps = {str(i): torch.zeros(1, 1, 64 // s, 64 // s) for i, s in enumerate((4, 8, 16, 32))}
    maps["0"] += torch.arange(16.0)  # what lies at x / 4
    out = pool(maps, [torch.tensor([[8.0, 8, 36, 36]])], [(34, 64)])
    torch.testing.assert_close(out[0, 0, 0], torch.arange(2.5, 9))  # bins 4 pixels wide


def test_each_box_is_pooled_from_the_map_that_suits_it() -> None:
    """As torchvision's pool does, where its guess of the scales is right; also without boxes."""
    random = torch.Generator().manual_seed(1)
    maps = {str(i): torch.randn(2, 3, 256 // s, 512 // s, generator=random)
            for i, s in enumerate((4, 8, 16, 32, 64))}  # fmt: skip
    corners = 256 * torch.rand(40, 2, generator=random)
    sides = 250 * torch.rand(40, 2, generator=random) ** 3 + 1
    boxes = [torch.cat([corners, corners + sides], dim=1), torch.zeros(0, 4)]
    theirs = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    want = theirs(maps, boxes, [(256, 512)] * 2)
    got = PyramidPool((4, 8, 16, 32))(maps, boxes, [(256, 512)] * 2)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_torchvision_agrees(monkeypatch: pytest.MonkeyPatch, backbone: Loaded) -> None:
    """The whole of it, network included, against torchvision's own with the same weights."""
    torch.manual_seed(0)  # for the images, no two scores of which are equal
    detector = confident(build_detector(backbone("random:resnet18"), 3, channels=256, head=1024))
    resnet = torchvision.models.resnet18(weights=None)
    theirs = FasterRCNN(
        _resnet_fpn_extractor(resnet, trainable_layers=5), num_classes=4, min_size=128,
        max_size=192, image_mean=[0.0] * 3, image_std=[1.0] * 3, rpn_post_nms_top_n_train=1000,
    )  # fmt: skip
    # It draws the size of an image, of which there is one here, and so moves the random stream on.
    monkeypatch.setattr(theirs.transform, "torch_choice", lambda sizes: sizes[0])
    renamed = {
        name.replace("body.net.", "backbone.body.").replace("neck.", "backbone.fpn."): tensor
        for name, tensor in detector.state_dict().items()
    }
    theirs.load_state_dict(renamed, strict=True)
    images = torch.randn(2, 3, 128, 192)  # whole at stride 64, where torchvision's anchors are ours
    targets = [target([3, 4, 60, 70], [30, 10, 90, 40]), target([100, 20, 190, 120], label=1)]
    ours = Batch(images, [(128, 192)] * 2, targets)
    for model in (detector, theirs):
        model.train()
    torch.manual_seed(4)
    losses = detector(ours)
    torch.manual_seed(4)
    wanted = theirs(list(images), [{"boxes": t.boxes, "labels": t.labels} for t in targets])
    assert losses.keys() == wanted.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, wanted[name], rtol=1e-4, atol=1e-5)
    detector.eval()
    theirs.eval()
    with torch.no_grad():
        expected = theirs(list(images))
    for a, b in zip(detector.detect(ours), expected, strict=True):
        assert len(a["boxes"]) > 10
        assert a["labels"].tolist() == b["labels"].tolist()
        torch.testing.assert_close(a["scores"], b["scores"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a["boxes"], b["boxes"], rtol=1e-4, atol=1e-2)


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("spec", "settings", "text"),
    [
        ("random:test_resnet", {"neck": "yolo"}, "neck 'yolo' is unknown; it is 'fpn' or 'c4'"),
        ("random:test_resnet", {"norm": "group"}, "norm 'group' is unknown; it is 'batch' "),
        ("random:test_resnet", {"channels": 0}, "channels of a detector must be at least 1, got 0"),
        ("random:test_vit", {"neck": "c4"}, "which test_vit has not; neck 'fpn' works"),
        ("random:swin_tiny_patch4_window7_224", {"neck": "c4"}, "neck 'fpn' works"),
        ("random:mixer_s32_224", {}, "mixer_s32_224 gives no feature maps of images of any size"),
        ("random:test_mambaout", {"neck": "c4"}, "neck 'fpn' works"),
    ],
)
def test_refused(small: Build, spec: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as error:
        small(spec, **settings)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mode_that_does_not_fit(small: Build) -> None:
    detector = small("random:test_resnet")
    with pytest.raises(ValueError, match="evaluation mode"):
        detector.detect(batch())
    with pytest.raises(ValueError, match="targets"):
        detector(Batch(batch().images, batch().sizes))
    with pytest.raises(ValueError, match="training mode"):
        detector.eval()(batch())
