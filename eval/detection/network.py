"""Faster R-CNN on any backbone that gives feature maps, of torchvision's building blocks.

Necks: ``fpn`` (Lin et al. 2017), with ViTDet's simple pyramid on a plain ViT, and ``c4``, the one
of the MoCo recipe (facebookresearch/moco, detection/configs/Base-RCNN-C4-BN.yaml), where the
network's last stage is the head of each box. Numbers are detectron2's defaults for either.

Three things differ from torchvision's own Faster R-CNN: the scales that boxes are pooled at and the
strides of anchors are those of the network (torchvision guesses either from sizes, wrong for
small images and for the coarsest map), an image always has a proposal, and fully connected layers
are drawn as detectron2 draws them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from eval.common.errors import BadInput, NotFound
from eval.detection import features, norms
from eval.detection.batch import Batch
from eval.detection.pooling import PyramidPool
from eval.models.backbone import Backbone

NECKS = ("fpn", "c4")
_RATIOS = (0.5, 1.0, 2.0)  # of anchors, height to width
_SIZES = (32, 64, 128, 256, 512)  # of anchors, where all lie on one map


class Detector(nn.Module):
    """A detector whose parts are ``body`` (maps), ``neck``, ``rpn`` and ``roi_heads``."""

    def __init__(
        self, body: nn.Module, neck: nn.Module, rpn: nn.Module, roi_heads: RoIHeads, divisor: int,
        recipe: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = body
        self.neck = neck
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.divisor = divisor  # images of a batch are padded to multiples of it
        self.recipe = recipe  # what ``rebuild`` takes
        self.bf16 = False
        self.train()

    def train(self, mode: bool = True) -> Detector:
        super().train(mode)
        if self.recipe["norm"] == "frozen":
            norms.freeze(self.body)
            if isinstance(self.roi_heads.box_head, LastStage):
                norms.freeze(self.roi_heads.box_head.stage)
        return self

    def sample(self, rois: int) -> None:
        """Let the head of the boxes learn from so many of an image."""
        self.roi_heads.fg_bg_sampler.batch_size_per_image = rois

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, scalars: loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg."""
        if not self.training or batch.targets is None:
            raise ValueError("losses need the training mode and a batch with targets")
        targets = [{"boxes": t.boxes, "labels": t.labels} for t in batch.targets]
        _, losses = self._run(batch, targets)
        return {name: loss.float() for name, loss in losses.items()}

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        """What each image shows, best first, at most 100: boxes [K, 4] in pixels of the batch,
        clipped to the image, scores [K] above 0.05 and labels [K] of 1..classes."""
        if self.training:
            raise ValueError("detect needs the evaluation mode")
        found, _ = self._run(batch, None)
        return found

    def _run(
        self, batch: Batch, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        images = ImageList(batch.images, batch.sizes)
        kind = batch.images.device.type
        # All that must stay float32 does, for it is given float32 and none of it is a convolution
        # or a linear layer; the heads give float32 back.
        with torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
            maps = self.body(batch.images)
            maps = self.neck(OrderedDict((str(i), m) for i, m in enumerate(maps)))
            maps = OrderedDict((name, m.float()) for name, m in maps.items())
            proposals, losses = self.rpn(images, maps, targets)
            proposals = [_some(p, size) for p, size in zip(proposals, batch.sizes, strict=True)]
            found, more = self.roi_heads(maps, proposals, batch.sizes, targets)
        return found, {**losses, **more}


def _some(proposals: Tensor, size: tuple[int, int]) -> Tensor:
    """The proposals, or the whole image where there are none: a mean over none is not a number."""
    if len(proposals):
        return proposals
    return proposals.new_tensor([[0, 0, size[1], size[0]]])


class Anchors(AnchorGenerator):
    """Anchors at the network's strides, one tensor for all images of a batch."""

    def __init__(self, sizes: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__(tuple(map(tuple, sizes)), (_RATIOS,) * len(sizes))
        self.strides = [[stride, stride] for stride in strides]

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(m.shape[-2:]) for m in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, self.strides))
        return [anchors] * len(image_list.image_sizes)


class ProposalHead(RPNHead):
    """torchvision's, with float32 results."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, boxes = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in boxes]


class Predictor(FastRCNNPredictor):
    """torchvision's, with float32 results; drawn as in Fast R-CNN (Girshick 2015, section 3.1)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes + 1)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = super().forward(x)
        return scores.float(), boxes.float()


class MapPool(nn.Module):
    """[K, C, 14, 14] of boxes on the one map, stride 16: detectron2's ROIAlignV2, which takes as
    many samples a bin as it covers."""

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Tensor:
        (only,) = maps.values()
        return roi_align(only, boxes, 14, 1 / 16, sampling_ratio=0, aligned=True)


class LastStage(nn.Module):
    """[K, C, 14, 14] -> [K, width]: the network's last stage, the norm that the MoCo recipe adds
    behind it, and the mean over space."""

    def __init__(self, stage: nn.Module, width: int) -> None:
        super().__init__()
        self.stage = stage
        self.norm = nn.BatchNorm2d(width)

    def forward(self, boxes: Tensor) -> Tensor:
        return self.norm(self.stage(boxes)).mean((2, 3))


class Trunk(nn.Module):
    """Images -> [map of stride 16]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.net(images)]


def build_detector(
    backbone: Backbone, classes: int, *, neck: str = "fpn", norm: str = "batch",
    channels: int = 256, head: int = 1024, seed: int = 0,
) -> Detector:  # fmt: skip
    """A detector to be trained from the backbone's weights, which are copied; what the backbone
    lacks is drawn from ``seed``. ``channels`` and ``head`` are of the pyramid and its box head.

    Raises UserError for a setting that is unknown, or a backbone that the neck cannot be put on.
    """
    if neck not in NECKS:
        raise NotFound(f"neck {neck!r} is unknown; it is 'fpn' or 'c4'")
    norms.check_norm(norm)
    for name, value in (("classes", classes), ("channels", channels), ("head", head)):
        if value < 1:
            raise BadInput(f"{name} of a detector must be at least 1, got {value}")
    architecture, args = features.architecture_of(backbone)
    recipe = {
        "architecture": architecture, "model_args": args, "classes": classes, "neck": neck,
        "norm": norm, "channels": channels, "head": head,
    }  # fmt: skip
    return _build(recipe, seed, features.inner(backbone))


def rebuild(recipe: dict[str, Any]) -> Detector:
    """The same detector with untrained weights, to be filled by ``load_state_dict``."""
    return _build(recipe, 0, None)


def _build(recipe: dict[str, Any], seed: int, source: nn.Module | None) -> Detector:
    make = _on_pyramid if recipe["neck"] == "fpn" else _on_one_map
    detector = norms.synchronised(make(recipe, seed, source))
    assert isinstance(detector, Detector)
    return detector.train()


def _on_pyramid(recipe: dict[str, Any], seed: int, source: nn.Module | None) -> Detector:
    body = features.build_maps(recipe["architecture"], recipe["model_args"], source)
    channels, head = recipe["channels"], recipe["head"]
    plain = isinstance(body, features.LastMap)
    strides = features.LEVELS if plain else body.strides
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        neck: nn.Module = (
            features.SimplePyramid(body.widths[0], body.strides[0], channels)
            if plain
            else FeaturePyramidNetwork(list(body.widths), channels, LastLevelMaxPool())
        )
        all_strides = (*strides, 2 * strides[-1])
        # One size a map, eight times its stride: 32 to 512 from stride 4.
        anchors = Anchors([(8 * stride,) for stride in all_strides], all_strides)
        box_head = TwoMLPHead(channels * 7 * 7, head)
        for layer in (box_head.fc6, box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        rpn = _rpn(channels, anchors, before=(2000, 1000), after=(1000, 1000))
        heads = _heads(PyramidPool(strides), box_head, Predictor(head, recipe["classes"]))
    return Detector(body, neck, rpn, heads, max(strides), recipe)


def _on_one_map(recipe: dict[str, Any], seed: int, source: nn.Module | None) -> Detector:
    trunk, width, stage, last = features.build_halves(
        recipe["architecture"], recipe["model_args"], source
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rpn = _rpn(width, Anchors([_SIZES], [16]), before=(12000, 6000), after=(2000, 1000))
        heads = _heads(MapPool(), LastStage(stage, last), Predictor(last, recipe["classes"]))
    return Detector(Trunk(trunk), nn.Identity(), rpn, heads, 16, recipe)


def _rpn(
    width: int, anchors: Anchors, before: tuple[int, int], after: tuple[int, int]
) -> RegionProposalNetwork:
    """Proposals kept before NMS (on each map) and after it, in training and in testing."""
    modes = ("training", "testing")
    return RegionProposalNetwork(
        anchors,
        ProposalHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(modes, before, strict=True)),
        post_nms_top_n=dict(zip(modes, after, strict=True)),
        nms_thresh=0.7,
    )


def _heads(pool: nn.Module, head: nn.Module, predictor: nn.Module) -> RoIHeads:
    return RoIHeads(
        pool,
        head,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=None,  # 10, 10, 5, 5
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
