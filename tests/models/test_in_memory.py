"""A network of the user's own: scored as it is, left as it was, and known by what it does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import transforms

import eval as transfer
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models import in_memory
from eval.models.in_memory import Pool, backbone, state_sha256
from eval.models.names import zoo_folder
from tests.detection.drawn import some, write_coco
from tests.factories import Cli, make_task, refusal

CONFIG: dict[str, Any] = {
    "input_size": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3), "crop_pct": 1.0,
}  # fmt: skip
OWN = transforms.Compose(
    [
        transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor(),
        transforms.Normalize((0.5, 0.4, 0.3), (0.25, 0.2, 0.3)),
    ]
)  # fmt: skip
CE = "resnet18_narrow.ce_tin100"


class Maps(nn.Module):
    """Images -> maps [N, 16, 16, 16], with the BatchNorm and dropout that real encoders have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(images)).relu())


def maps(seed: int = 0) -> Maps:
    torch.manual_seed(seed)
    net = Maps()
    net.norm.running_mean += torch.rand(16)
    return net


class Vectors(Maps):
    """Images -> features [N, 16]."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean((2, 3))


def vectors(seed: int = 0) -> Vectors:
    torch.manual_seed(seed)
    return Vectors()


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory and a cache of its own."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


# --------------------------------------------------------------------------- the right features


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("given", [OWN, CONFIG], ids=["callable", "timm's config"])
def test_features_are_those_of_a_plain_loop(
    given: Any, pool: Pool, task_dir: Path, cache: Path
) -> None:
    net = maps()
    task = load_task(f"parquet:{task_dir}", cache)
    bank = encode(backbone(net, given, "mine", pool=pool), task, cache, Workers("cpu"), Precision())
    resize = transforms.Resize(32, transforms.InterpolationMode.BICUBIC)
    plain = OWN if given is OWN else transforms.Compose([resize, *OWN.transforms[1:]])
    net.eval()
    wanted = torch.empty(len(bank.bank.features), 16)
    with torch.no_grad():
        for split, start in ((task.train, 0), (task.test, len(task.train))):
            place = {int(row): start + i for i, row in enumerate(split.rows)}
            for row, data in split.source.images(np.sort(split.rows)):
                out = net(plain(Image.open(io.BytesIO(data)).convert("RGB"))[None])[0]
                wanted[place[row]] = out.mean((1, 2)) if pool == "avg" else out.amax((1, 2))
    torch.testing.assert_close(bank.bank.features, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_ce_checkpoint_scores_alike_through_timm_and_through_a_module() -> None:
    """Loaded by hand, with timm's own config or a torchvision transform that says the same."""
    (named, plain) = transfer.evaluate(f"zoo:{CE}", "digits", ["knn", "fewshot"], limit=300)
    config = transfer.load_model(f"zoo:{CE}").input_config
    whole = timm.create_model(f"local-dir:{zoo_folder(CE)}", pretrained=False)
    whole.load_state_dict(load_file(zoo_folder(CE) / "model.safetensors"))
    whole.reset_classifier(0)
    mine = transfer.backbone(whole, config, name="ce")
    side = round(config["input_size"][1] / config["crop_pct"])
    by_hand = transforms.Compose(
        [
            transforms.Resize(side, transforms.InterpolationMode(config["interpolation"])),
            transforms.CenterCrop(config["input_size"][1]),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )
    other = transfer.backbone(whole, by_hand, name="ce-by-hand")
    found = transfer.evaluate([mine, other], "digits", ["knn", "fewshot"], limit=300)
    for mine_again, theirs in zip(found, [named, plain, named, plain], strict=True):
        assert mine_again.protocol == theirs.protocol
        assert [s.name for s in mine_again.scores] == [s.name for s in theirs.scores]
        if mine_again.model.id == "python:ce":
            assert mine_again.scores == theirs.scores
            assert mine_again.samples == theirs.samples
        else:  # torchvision normalises with other roundings: an answer of 45,000 may turn
            for a, b in zip(mine_again.scores, theirs.scores, strict=True):
                assert a.value == pytest.approx(b.value, abs=1e-4)


def test_a_network_that_was_loaded_may_be_given_a_name() -> None:
    loaded = transfer.load_model("random:test_resnet", img_size=32)
    said = refusal(transfer.evaluate, loaded, "digits", "knn")
    assert "give evaluate the string 'random:test_resnet' itself" in said
    renamed = transfer.backbone(loaded.net, loaded.input_config, name="again")
    a, b = (
        transfer.evaluate(m, "digits", "knn", limit=60, img_size=size)[0]
        for m, size in ((renamed, None), ("random:test_resnet", 32))
    )
    assert (a.scores, a.model.params) == (b.scores, b.model.params)


@pytest.mark.parametrize("protocol", ["linear-sgd", "finetune"])
def test_protocols_that_train_take_it_with_a_config_and_refuse_it_without(protocol: str) -> None:
    said = refusal(transfer.evaluate, backbone(vectors(), OWN, "mine"), "digits", protocol)
    assert f"protocol {protocol!r} cuts crops of its own" in said
    assert not Path("results").exists()
    short = {"lrs": [0.01], "batch_sizes": [32], "weight_decays": [0.0], "tune_epochs": 1,
             "epochs": 1}  # fmt: skip
    mine = backbone(vectors(), CONFIG, "mine")
    (result,) = transfer.evaluate(mine, "digits", {protocol: short}, limit=60)
    assert result.score("top1") is not None


# --------------------------------------------------------------------------- left as it was


def test_the_network_is_left_as_it_was_and_copied_as_it_is() -> None:
    net = vectors()
    net.train()
    net.norm.eval()  # one part on its own, as in fine-tuning with frozen statistics
    net.conv.weight.requires_grad_(False)
    modes = [m.training for m in net.modules()]
    state, grads = state_sha256(net), [p.requires_grad for p in net.parameters()]
    mine = backbone(net, OWN, "mine")
    transfer.evaluate(mine, "digits", "knn", limit=60)
    assert [m.training for m in net.modules()] == modes
    assert state_sha256(net) == state
    assert [p.requires_grad for p in net.parameters()] == grads
    with torch.no_grad():
        net.conv.weight.mul_(2)
    assert state_sha256(mine.net.net) == state  # type: ignore[arg-type]


# --------------------------------------------------------------------------- identity


def test_the_same_network_has_the_same_name_results_and_features(cli: Cli, cache: Path) -> None:
    first = transfer.evaluate(backbone(vectors(), OWN, "mine"), "digits", "knn", limit=60)
    banks = list((cache / "banks").iterdir())
    again = transfer.evaluate(backbone(vectors(), OWN, "mine"), "digits", "knn", limit=60)
    assert again[0].created == first[0].created  # read, not scored
    elsewhere = transfer.evaluate(
        backbone(vectors(), OWN, "mine"), "digits", "knn", limit=60, results="other"
    )
    assert elsewhere[0].scores == first[0].scores
    assert list((cache / "banks").iterdir()) == banks
    ran = cli("leaderboard")
    assert "python:mine" in ran.out
    ran = cli("verify", next(Path("results").rglob("*.json")))
    assert ran.code == 2
    assert "a network in the memory of a Python process" in ran.err


class Doubled(Vectors):
    """The weights of `Vectors`, and other features: its first half twice."""

    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images)
        return torch.cat([found[:, :8], found[:, :8]], 1)


def test_what_differs_has_another_revision() -> None:
    torch.manual_seed(0)
    doubled = Doubled()
    assert state_sha256(doubled) == state_sha256(vectors())
    revisions = [
        backbone(net, given, "mine", pool=pool).resolved.revision
        for net, given, pool in (
            (vectors(), OWN, None),
            (vectors(1), OWN, None),
            (doubled, OWN, None),
            (maps(), OWN, "avg"),
            (maps(), OWN, "max"),
            (vectors(), CONFIG, None),
            (vectors(), CONFIG | {"crop_pct": 0.8}, None),
            (vectors(), lambda image: OWN(image), None),
            (vectors(), lambda image: 0.5 * OWN(image), None),
            (vectors(), lambda image: OWN(image).flip(2), None),
            # which a small square picture does not tell apart
            (vectors(), lambda image: OWN(image.resize((64, 64))), None),
            (vectors(), lambda image: OWN(image.resize((64, 64), Image.Resampling.NEAREST)), None),
            (vectors(), lambda image: OWN(image.resize((64, 64), reducing_gap=1.0)), None),
        )
    ]
    assert len(set(revisions)) == len(revisions)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda net: nn.DataParallel(torch.compile(net))]
)
def test_wrappers_are_no_other_network(wrap: Callable[[nn.Module], nn.Module]) -> None:
    plain, wrapped = backbone(vectors(), OWN, "mine"), backbone(wrap(vectors()), OWN, "mine")
    assert plain.resolved == wrapped.resolved


def test_a_lambda_says_no_address_in_memory() -> None:
    assert in_memory.stated(lambda image: image).endswith("<lambda>")
    assert in_memory.stated(OWN).startswith("Compose( Resize(size=32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_in_any_float_are_scored_in_fp32(dtype: torch.dtype) -> None:
    net = vectors().to(dtype)
    mine = backbone(net, OWN, "mine")
    assert {p.dtype for p in mine.net.parameters()} == {torch.float32}
    assert mine.weights_sha256 == state_sha256(net)


def test_grey_images_are_the_transforms_affair() -> None:
    grey = transforms.Compose([transforms.Grayscale(), transforms.Resize((8, 8)),
                               transforms.ToTensor()])  # fmt: skip
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    (result,) = transfer.evaluate(backbone(net, grey, "grey"), "digits", "knn", limit=60)
    assert result.model.input["input_size"] == [1, 8, 8]


def test_images_of_one_size_need_no_resize(tmp_path: Path) -> None:
    photos = make_task(tmp_path / "photos")  # all 24 x 24
    mine = backbone(vectors(), transforms.ToTensor(), "mine")
    assert mine.input_config["resizes"] is False
    (result,) = transfer.evaluate(mine, f"parquet:{photos}", "knn")
    assert result.score("top1") is not None


# --------------------------------------------------------------------------- mistakes


class Returns(nn.Module):
    """A network whose forward is the given function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


class Moving(nn.Module):
    """Keeps a running mean, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.mean: Tensor

    def forward(self, images: Tensor) -> Tensor:
        self.mean += 0.1 * images.mean((0, 2, 3))
        return flat(images)


class Stubborn(nn.BatchNorm2d):
    """Never in eval mode."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


@pytest.mark.parametrize(
    ("net", "pool", "said"),
    [
        (Returns(lambda x: (flat(x), flat(x))), None, "returns a tuple of 2; it must return one"),
        (Returns(lambda x: {"pooled": flat(x), "maps": x}), None, "a dict with 'pooled', 'maps'"),
        (Returns(lambda x: None), None, "returns a NoneType"),
        (Returns(lambda x: flat(x).log()), None, "features that are not finite"),
        (Returns(lambda x: flat(x) * float("nan")), None, "features that are not finite"),
        (Returns(lambda x: x), None, "say how they become one vector an image, with pool='avg'"),
        (Returns(lambda x: x.flatten(2)), None, "so pick the class token or the mean"),
        (Returns(lambda x: x.mean()), None, "returns []; it must return features [N, D]"),
        (Returns(flat), "avg", "which pool='avg' has nothing to do with"),
        (Returns(flat), "mean", "pool must be 'avg', 'max' or left out, got 'mean'"),
        (Returns(lambda x: flat(x).argsort()), None, "of torch.int64 for 3 images"),
        (Returns(lambda x: flat(x)[:1]), None, "it must return floats [N, D], one row an image"),
        (Returns(lambda x: flat(x)[:, :0]), None, "it must return floats [N, D], one row an image"),
        (Returns(lambda x: flat(x)[:, : len(x)]), None, "returns 1 features for one batch and 3"),
        (Returns(lambda x: flat(x) - flat(x).mean(0)), None, "beside other images than alone"),
        (Returns(lambda x: flat(x) + torch.randn(len(x), 1)), None, "a second time, in eval mode"),
        (Moving(), None, "changes its own state while it encodes"),
        (nn.Sequential(Stubborn(3), nn.Flatten()), None, "its Stubborn '0' stays in training mode"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()), None,
         "its BatchNorm2d '0' has no running statistics"),
        (nn.Linear(7, 2), None, "does not run on images [3, 32, 32], as its transform gives them"),
        (flat, None, "net must be a torch.nn.Module, got a function"),
    ],
)  # fmt: skip
def test_a_network_no_score_can_rest_on_is_refused(net: Any, pool: Any, said: str) -> None:
    told = refusal(lambda: backbone(net, OWN, "mine", pool=pool))
    assert told.startswith("python:mine")
    assert said in told


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    net = nn.Linear(3, 3)
    net.cached = net(torch.zeros(1, 3))  # type: ignore[assignment]  # part of a graph
    assert "python:mine cannot be copied (Only Tensors created explicitly" in refusal(
        lambda: backbone(net, OWN, "mine")
    )


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float(),
         "values up to 255, as of pixels in 0..255; divide them by 255"),
        (lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1), "returns torch.uint8"),
        (lambda image: np.array(image) / 255, "returns [64, 64, 3]; the channels come first"),
        (lambda image: OWN(image)[None], "returns [1, 3, 32, 32]; the channels come first"),
        (lambda image: image, "returns a Image; end it with ToTensor() and Normalize"),
        (lambda image: OWN(image) / 0, "values that are not finite"),
        (lambda image: OWN(image) + torch.rand(1), "another result for the same image a second"),
        (lambda image, size: image, "fails on an RGB image:"),
        (None, "transform must be a function of an image or timm's data config, got a NoneType"),
        ({"input_size": (3, 8, 8)}, "its data config lacks mean and std"),
        (CONFIG | {"mean": (124, 116, 104)}, "mean must be three numbers in 0..1, got (124,"),
        (CONFIG | {"std": (0, 0, 0)}, "std must be three numbers in 0..1, got (0, 0, 0)"),
        (CONFIG | {"std": 0.5}, "std must be three numbers in 0..1, got 0.5"),
        (CONFIG | {"input_size": 32}, "input_size must be (3, height, width), got 32"),
        (CONFIG | {"crop": 0.9}, "timm's data config has no 'crop'; did you mean"),
    ],
)  # fmt: skip
def test_a_transform_that_makes_no_input_is_refused(transform: Any, said: str) -> None:
    told = refusal(lambda: backbone(vectors(), transform, "mine"))
    assert told.startswith("python:mine: ")
    assert said in told


@pytest.mark.parametrize("name", ["", "a b", "../up", "a:b", "mine@2", "é", 7, "x" * 81])
def test_a_name_is_safe_in_files_and_on_boards(name: Any) -> None:
    assert "must be 1 to 80 letters" in refusal(lambda: backbone(vectors(), OWN, name))


def test_what_goes_wrong_while_encoding_is_one_sentence_too(tmp_path: Path) -> None:
    photos = make_task(tmp_path / "photos")

    def moody(image: Image.Image) -> Tensor:
        return OWN(image)[:, : 31 if image.size == (24, 24) and image.getpixel((0, 0))[0] < 128
                          else 32]  # fmt: skip

    mine = backbone(vectors(), moody, "mine")
    said = refusal(transfer.evaluate, mine, f"parquet:{photos}", "knn")
    assert "its transform returns [3, 3" in said
    assert "let it resize and crop all to one size" in said
    nan = Returns(lambda x: flat(x) if x.shape[2] == 64 else flat(x) * float("nan"))
    mine = backbone(nan, transforms.ToTensor(), "nan")
    said = refusal(transfer.evaluate, mine, f"parquet:{photos}", "knn")
    assert "python:nan gives features that are not finite (NaN or infinite) for row" in said


def test_what_cannot_be_asked_of_it_is_said_before_anything_is_scored() -> None:
    mine = backbone(vectors(), CONFIG, "mine")
    for wanted, said in (
        ({"img_size": 64}, "python:mine has a transform of its own"),
        ({"protocols": "detection"}, "has one label an image; protocol detection cannot score it"),
        ({"protocols": "finetune", "keep_model": True}, "cannot keep: leave keep_model out"),
    ):
        call: dict[str, Any] = {"protocols": "knn", **wanted}
        assert said in refusal(lambda call=call: transfer.evaluate(mine, "digits", **call))
    assert not Path("results").exists()


@pytest.mark.slow
def test_a_run_that_names_no_protocol_is_that_of_the_command() -> None:
    mine = backbone(vectors(), CONFIG, "mine")
    found = transfer.evaluate(mine, "digits", limit=300)
    assert [r.protocol.name for r in found] == ["fewshot", "knn", "linear"]


def test_boxes_are_refused_whether_detection_is_named_or_not(tmp_path: Path) -> None:
    write_coco(tmp_path / "boxes", some())
    mine = backbone(vectors(), CONFIG, "mine")
    for protocols in (None, "detection"):
        said = refusal(transfer.evaluate, mine, f"coco:{tmp_path / 'boxes'}", protocols)
        assert "python:mine is a network in memory, which protocol 'detection' cannot take" in said
