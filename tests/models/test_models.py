"""Model strings, folders and untrained nets: what they mean, what they load, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from eval.common.files import sha256_file
from eval.models import names
from eval.models.backbone import Backbone, load
from eval.models.names import ModelName, parse_model
from eval.models.pooling import PooledFeatures
from eval.models.resolve import resolve
from eval.results.names import shelf_folder
from tests.factories import refusal
from tests.models.checkpoints import checkpoint

# --------------------------------------------------------------------------- strings

PARSED = [
    ("resnet50", ModelName("timm", "resnet50")),
    ("resnet50.a1_in1k", ModelName("timm", "resnet50.a1_in1k")),
    ("hf-hub:org/name", ModelName("hub", "org/name")),
    ("hf_hub:org/name", ModelName("hub", "org/name")),
    ("HF-Hub:org/name", ModelName("hub", "org/name")),
    ("hf-hub:org/name@v1.0", ModelName("hub", "org/name", "v1.0")),
    ("hf-hub:org/name@refs/pr/1", ModelName("hub", "org/name", "refs/pr/1")),
    ("hf-hub:org/name@a@b", ModelName("hub", "org/name", "a@b")),
    ("hf-hub:org/name?arch=resnet50", ModelName("hub", "org/name", None, "resnet50")),
    ("hf-hub:org/name@v1?arch=resnet50", ModelName("hub", "org/name", "v1", "resnet50")),
    ("hf-hub:timm/vit_tiny.augreg_in21k", ModelName("hub", "timm/vit_tiny.augreg_in21k")),
    ("local-dir:/models/x", ModelName("local", "/models/x")),
    ("local-dir:models/x", ModelName("local", "models/x")),
    ("local-dir:~/x", ModelName("local", "~/x")),
    ("local-dir:C:\\models\\x", ModelName("local", "C:\\models\\x")),
    ("local-dir:C:/models/x", ModelName("local", "C:/models/x")),
    ("local-dir:/runs/lr@0.1/step@5", ModelName("local", "/runs/lr@0.1/step@5")),
    ("local-dir:/a folder/x", ModelName("local", "/a folder/x")),
    ("local-dir:hf-hub:x", ModelName("local", "hf-hub:x")),
    ("zoo:resnet18_narrow.ce_tin100", ModelName("zoo", "resnet18_narrow.ce_tin100")),
    ("zoo:resnet50.ce+selfsupcon", ModelName("zoo", "resnet50.ce+selfsupcon")),
    ("zoo:x@v2", ModelName("zoo", "x", "v2")),
    ("random:resnet18", ModelName("random", "resnet18")),
    ("random:resnet18@0", ModelName("random", "resnet18", "0")),
    ("random:resnet18@17", ModelName("random", "resnet18", "17")),
    ("RANDOM:resnet18", ModelName("random", "resnet18")),
]


@pytest.mark.parametrize(("text", "expected"), PARSED)
def test_parse(text: str, expected: ModelName) -> None:
    assert parse_model(text) == expected


NOT_PARSED = [
    ("", "is empty"),
    (" resnet50", "spaces round it"),
    ("resnet50\n", "spaces round it"),
    ("timm/resnet50", "has no prefix; use 'hf-hub:timm/resnet50'"),
    ("org/name@v1", "has no prefix; use 'hf-hub:org/name@v1'"),
    ("hf-hub:org/name?arch=", "names no architecture behind '?arch='"),
    ("hf-hub:org/name?arch=resnet50.a1_in1k", "use one of timm's without a tag"),
    ("hf-hub:org/name?arc=resnet50", "names no Hub repository"),
    ("./models/x", "or 'local-dir:./models/x'"),
    ("/models/x", "or 'local-dir:/models/x'"),
    ("C:\\models\\x", "has no prefix"),
    ("c:/models/x", "or 'local-dir:c:/models/x'"),
    ("models\\x", "has no prefix"),
    ("resnet50@v1", "takes no @revision; use 'hf-hub:timm/resnet50@v1'"),
    ("hfhub:org/name", "unknown prefix 'hfhub'; did you mean 'hf"),
    ("local:/models/x", "unknown prefix 'local'"),
    ("localdir:/models/x", "did you mean 'local-dir'?"),
    ("rand:resnet18", "did you mean 'random'?"),
    ("https://huggingface.co/org/name", "unknown prefix 'https'; use hf-hub:org/name"),
    (":resnet18", "unknown prefix ''"),
    ("hf-hub:", "nothing behind the prefix"),
    ("local-dir:", "nothing behind the prefix"),
    ("random:", "nothing behind the prefix"),
    ("hf-hub:org/name@", "ends in '@' without a revision"),
    ("random:resnet18@", "ends in '@' without a revision"),
    ("random:@3", "no name before '@'"),
    ("zoo:@v1", "no name before '@'"),
    ("hf-hub:name", "names no Hub repository"),
    ("hf-hub:a/b/c", "names no Hub repository"),
    ("hf-hub:org/my name", "names no Hub repository"),
    ("hf-hub:/name", "names no Hub repository"),
    ("hf-hub:https://huggingface.co/org/name", "names no Hub repository"),
    ("zoo:a/b", "names no zoo model"),
    ("zoo:../x", "names no zoo model"),
    ("random:resnet18@one", "must be a number of at most 18 digits, got 'one'"),
    ("random:resnet18@-1", "must be a number"),
    ("random:resnet18@1.5", "must be a number"),
    ("random:resnet18@" + "9" * 19, "at most 18 digits"),
    ("random:resnet18@" + "9" * 5000, "at most 18 digits"),
]


@pytest.mark.parametrize(("text", "why"), NOT_PARSED, ids=[t[:40] for t, _ in NOT_PARSED])
def test_parse_refuses(text: str, why: str) -> None:
    message = refusal(lambda: parse_model(text))
    assert why in message
    assert repr(text) in message


# --------------------------------------------------------------------------- checkpoints to try

PICTURE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8))


def batch(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def loaded(text: str, cache: Path, img_size: int | None = None) -> Backbone:
    return load(resolve(text, cache, img_size))


# --------------------------------------------------------------------------- untrained


def test_random_is_the_same_net_every_time(cache: Path) -> None:
    one, two, other = (loaded(f"random:test_resnet{s}", cache) for s in ("", "@0", "@1"))
    assert one.weights_sha256 == two.weights_sha256 != other.weights_sha256
    assert len(one.weights_sha256) == 64
    images = batch(32)
    assert torch.equal(one.net(images), two.net(images))
    assert not torch.allclose(one.net(images), other.net(images))
    assert one.resolved == two.resolved
    assert (one.resolved.id, one.resolved.revision) == ("random:test_resnet", "seed0")
    assert (other.resolved.id, other.resolved.revision) == ("random:test_resnet@1", "seed1")
    folders = [shelf_folder(m.resolved) for m in (one, other)]
    assert folders == ["random--test_resnet/seed0", "random--test_resnet/seed1"]


def test_random_weights_do_not_depend_on_the_global_stream(cache: Path) -> None:
    torch.manual_seed(1)
    one = loaded("random:test_vit", cache).weights_sha256
    torch.manual_seed(2)
    assert loaded("random:test_vit", cache).weights_sha256 == one


@pytest.mark.parametrize("kind", ["random", "local-dir"])
def test_loading_leaves_the_global_random_streams_alone(
    kind: str, cache: Path, tmp_path: Path
) -> None:
    name = "test_resnet" if kind == "random" else checkpoint(tmp_path / "m")
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state(legacy=True)
    loaded(f"{kind}:{name}", cache)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state(legacy=True)) == str(before[1])


@pytest.mark.parametrize(
    ("arch", "dim", "params"),
    [("resnet18", 512, 11_176_512), ("vit_tiny_patch16_224", 192, 5_524_416)],
)
def test_common_architectures(arch: str, dim: int, params: int, cache: Path) -> None:
    backbone = loaded(f"random:{arch}", cache)
    assert (backbone.dim, backbone.params) == (dim, params)
    assert backbone.input_config["input_size"] == [3, 224, 224]
    assert not backbone.net.training
    assert not any(p.requires_grad for p in backbone.net.parameters())


@pytest.mark.parametrize("arch", ["test_byobnet", "test_convnext", "test_efficientnet"])
def test_any_architecture_gives_one_vector_an_image(arch: str, cache: Path) -> None:
    backbone = loaded(f"random:{arch}", cache)
    assert backbone.net(batch(64)).shape == (2, backbone.dim)


UNKNOWN = [
    ("resnet5", "unknown model 'resnet5'; did you mean 'resnet50'"),
    ("random:resnet5", "unknown model 'resnet5'; did you mean 'resnet50'"),
    ("qqqqqqqq", "see timm.list_models(), or use hf-hub:org/name[@rev]"),
    ("random:test_vit.nope", "knows 'test_vit' but not 'test_vit.nope'; did you mean 'test_vit.r1"),
    ("test_vit4", "no Hub weights for 'test_vit4'; use 'random:test_vit4'"),
]


@pytest.mark.parametrize(("text", "why"), UNKNOWN)
def test_unknown_architectures(text: str, why: str, cache: Path) -> None:
    assert why in refusal(lambda: resolve(text, cache))


@pytest.mark.parametrize("content", ["{", "null\x00", ""])
def test_a_damaged_memo_of_timm_names_is_made_again(content: str, cache: Path) -> None:
    resolve("random:test_resnet", cache)
    (memo,) = (cache / "models").glob("timm-*.json")
    whole = memo.read_text()
    memo.write_text(content)
    assert resolve("random:test_resnet", cache).name == "test_resnet"
    assert memo.read_text() == whole


def test_resolving_imports_no_torch(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    resolve("random:test_resnet", cache)  # fills the memo of timm's names
    code = (
        "import sys; from pathlib import Path; from eval.models.resolve import resolve\n"
        f"for m in ('local-dir:{folder}', 'random:test_resnet'): resolve(m, Path({str(cache)!r}))\n"
        "print(sorted({'torch', 'timm', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --------------------------------------------------------------------------- folders


def test_a_folder_is_known_by_its_content(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m@1")
    model = resolve(f"local-dir:{folder}", cache)
    assert len(model.revision) == 40
    assert (model.kind, model.id, model.folder) == ("local", "local-dir:m@1", folder)
    assert resolve(model.spec, cache) == model

    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert resolve(f"local-dir:{copy}", cache).revision == model.revision

    weights = load_file(copy / "model.safetensors")
    weights["fc.bias"][0] += 1e-3
    save_file(weights, copy / "model.safetensors")
    assert resolve(f"local-dir:{copy}", cache).revision != model.revision

    shutil.copy(folder / "model.safetensors", copy)
    assert resolve(f"local-dir:{copy}", cache).revision == model.revision
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace("0.8", "0.9"))  # another transform
    assert resolve(f"local-dir:{copy}", cache).revision != model.revision


def test_a_relative_path_and_home_mean_the_same_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    specs = {resolve(f"local-dir:{path}", cache).spec for path in ("m", "./m", "~/m")}
    assert specs == {f"local-dir:{folder}"}


@pytest.mark.parametrize(("arch", "img_size"), [
    ("test_resnet", None), ("test_resnet", 48), ("test_vit", None), ("test_vit", 96),
])  # fmt: skip
def test_features_are_timms_own(
    arch: str, img_size: int | None, cache: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "m", arch)
    backbone = loaded(f"local-dir:{folder}", cache, img_size)
    sized: dict[str, Any] = {"img_size": img_size} if img_size and arch == "test_vit" else {}
    net = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **sized).eval()
    side = img_size or (32 if arch == "test_resnet" else 160)
    images = batch(side)
    assert torch.equal(backbone.net(images), net(images))
    assert backbone.dim == net.num_features
    assert backbone.params == sum(p.numel() for p in net.parameters())
    assert backbone.input_config["input_size"] == [3, side, side]
    assert backbone.transform(PICTURE).shape == (3, side, side)


@pytest.mark.parametrize("img_size", [None, 40])
def test_the_transform_is_the_models_own(img_size: int | None, cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    backbone = loaded(f"local-dir:{folder}", cache, img_size)
    config = backbone.input_config
    assert (config["mean"], config["std"]) == ([0.4, 0.5, 0.6], [0.25, 0.2, 0.3])
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 0.8)

    net = timm.create_model(f"local-dir:{folder}", pretrained=True)
    args = {"img_size": img_size} if img_size else {}
    reference = create_transform(**resolve_data_config(args, model=net), is_training=False)
    pixels = torch.as_tensor(backbone.transform(PICTURE))
    assert pixels.dtype == torch.uint8
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    ours = (pixels / 255 - mean) / std
    assert torch.allclose(ours, reference(PICTURE), atol=1e-6)


def test_weights_are_hashed_as_they_lie_on_disk(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    assert loaded(f"local-dir:{folder}", cache).weights_sha256 == sha256_file(
        folder / "model.safetensors"
    )


def test_half_precision_weights_load(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    weights = {k: v.bfloat16() if v.is_floating_point() else v
               for k, v in load_file(folder / "model.safetensors").items()}  # fmt: skip
    save_file(weights, folder / "model.safetensors")
    assert loaded(f"local-dir:{folder}", cache).net(batch(32)).dtype == torch.float32


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_a_net_without_pooling_is_pooled(arch: str, cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", arch, classes=0)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {"global_pool": ""}
    (folder / "config.json").write_text(json.dumps(config))
    backbone = loaded(f"local-dir:{folder}", cache)
    images = batch(backbone.input_config["input_size"][1])
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    out = net(images)  # [B, D, H, W] of the CNN, [B, tokens, D] of the ViT
    assert out.ndim == {"test_resnet": 4, "test_vit": 3}[arch]
    expected = out.mean((2, 3)) if out.ndim == 4 else out.mean(1)
    assert torch.equal(backbone.net(images), expected)
    assert backbone.dim == net.num_features


class Returns(nn.Module):
    """A headless net with ``num_features`` 6 that returns one fixed thing."""

    num_features = 6

    def __init__(self, out: Tensor | tuple[Tensor, ...] | list[Tensor]) -> None:
        super().__init__()
        self.out = out

    def forward(self, images: Tensor) -> Any:
        return self.out


VECTORS = torch.arange(12.0).reshape(2, 6)
SPREAD = torch.tensor([-1.0, 0.5, 1.5, 3.0])  # mean 1
MAPS = VECTORS[:, :, None, None] * SPREAD.reshape(1, 1, 2, 2)  # [B, D, H, W]


@pytest.mark.parametrize(
    "out",
    [
        VECTORS,
        MAPS,
        MAPS.permute(0, 2, 3, 1),  # [B, H, W, D], as Swin's
        VECTORS[:, :, None, None],
        MAPS.flatten(2).transpose(1, 2),  # [B, tokens, D]
        (VECTORS - 1, VECTORS + 1),  # a distilled net's two heads
        [VECTORS, MAPS, VECTORS],
    ],
    ids=["vector", "NCHW", "NHWC", "1x1", "tokens", "two heads", "vectors beside a map"],
)
def test_pooling_of_every_shape(out: Any) -> None:
    pooled = PooledFeatures(Returns(out))(torch.zeros(2, 3, 8, 8))
    assert torch.allclose(pooled, VECTORS)


def test_pooling_square_maps_reads_channels_first() -> None:
    maps = torch.rand(2, 6, 6, 6)  # every side could be the channels
    assert torch.allclose(PooledFeatures(Returns(maps))(maps), maps.mean((2, 3)))


# --------------------------------------------------------------------------- folders refused


def change_weights(folder: Path, **changes: Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        key = name.replace("__", ".")
        weights.pop(key, None)
        if value is not None:
            weights[key] = value
    save_file(weights, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def truncate(folder: Path, share: float) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(share * len(data))])


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "last.ckpt").write_bytes(b"pickle")


UNFIT = [
    (
        lambda f: change_weights(f, conv1__0__weight=None),
        "1 of its 75 tensors are missing (conv1.0.weight)",
    ),
    (
        lambda f: change_weights(f, conv1__0__weight=torch.zeros(4, 1, 3, 3)),
        "conv1.0.weight has the shape (4, 1, 3, 3) where",
    ),
    (
        lambda f: change_weights(f, conv1__0__weight=torch.zeros(8, 3, 3, 3, dtype=torch.int8)),
        "conv1.0.weight",
    ),
    (lambda f: change_config(f, architecture="test_vit"), "tensors are missing (cls_token, "),
]


@pytest.mark.parametrize(("damage", "why"), UNFIT)
def test_weights_that_do_not_fit(
    damage: Callable[[Path], None], why: str, cache: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "m")
    damage(folder)
    message = refusal(lambda: loaded(f"local-dir:{folder}", cache))
    assert "the weights of local-dir:m do not load into its architecture" in message
    assert why in message


def test_an_architecture_that_timm_lacks(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", architecture="test_resnt")
    message = refusal(lambda: loaded(f"local-dir:{folder}", cache))
    assert "knows no architecture 'test_resnt'" in message
    assert "did you mean 'test_resnet'" in message


@pytest.mark.parametrize("share", [0.9, 0.001, 0])
def test_weights_that_are_cut_short(share: float, cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    truncate(folder, share)
    message = refusal(lambda: loaded(f"local-dir:{folder}", cache))
    assert "the weights of local-dir:m cannot be read" in message


def test_a_vit_with_missing_weights_is_refused_at_another_size_too(
    cache: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "m", "test_vit")
    change_weights(folder, blocks__1__norm1__weight=None)
    assert "blocks.1.norm1.weight" in refusal(lambda: loaded(f"local-dir:{folder}", cache, 96))


NOT_TIMMS = [
    (only_pickles, "only pickled weights (last.ckpt, pytorch_model.bin)"),
    (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    (lambda f: (f / "config.json").unlink(), "has no config.json"),
    (lambda f: (f / "config.json").write_text("{'architecture'"), "is not valid JSON"),
    (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "is not valid JSON"),
    (lambda f: (f / "config.json").write_text("[1]"), "has no 'architecture' name"),
    (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "of model_type 'bert'"),
    (lambda f: change_config(f, architecture=None), "has no 'architecture' name"),
    (lambda f: change_config(f, pretrained_cfg=[1]), "'pretrained_cfg' is not an object"),
    (shutil.rmtree, "does not exist or is not a directory"),
]


@pytest.mark.parametrize(("damage", "why"), NOT_TIMMS)
def test_folders_refused_before_any_weights_are_read(
    damage: Callable[[Path], None], why: str, cache: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "m")
    damage(folder)
    message = refusal(lambda: resolve(f"local-dir:{folder}", cache))
    assert why in message
    assert str(folder) in message


def test_a_file_is_no_folder(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    assert "is not a directory" in refusal(lambda: resolve(f"local-dir:{tmp_path / 'm'}", cache))


@pytest.mark.parametrize(
    ("text", "img_size", "why"),
    [
        ("random:test_vit", 33, "random:test_vit does not run at 33 px"),
        ("random:xcit_nano_12_p16_224", 100, "xcit_nano_12_p16_224 cannot be built at 100 px"),
    ],
)
def test_sizes_an_architecture_cannot_take(text: str, img_size: int, why: str, cache: Path) -> None:
    assert why in refusal(lambda: loaded(text, cache, img_size))


# --------------------------------------------------------------------------- the zoo


def test_a_shipped_zoo_model(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ZOO_FOLDER", tmp_path)
    folder = checkpoint(tmp_path / "tiny.ce")
    assert names.zoo_names() == ["tiny.ce"]
    model = resolve("zoo:tiny.ce", cache)
    assert (model.kind, model.id, model.spec) == ("zoo", "zoo:tiny.ce", "zoo:tiny.ce")
    assert model.revision == resolve(f"local-dir:{folder}", cache).revision
    assert load(model).dim == 96


def test_every_model_that_ships_loads(cache: Path) -> None:
    for name in names.zoo_names():
        backbone = loaded(f"zoo:{name}", cache)
        side = backbone.input_config["input_size"][1]
        assert torch.isfinite(backbone.net(batch(side))).all(), name


@pytest.mark.parametrize(
    ("text", "img_size", "slug"),
    [
        ("random:test_resnet", None, "random--test_resnet"),
        ("random:test_resnet", 64, "random--test_resnet@64px"),
        ("local-dir:{}/a model", None, "local-dir--a--model"),
    ],
)
def test_slugs_are_folder_names(
    text: str, img_size: int | None, slug: str, cache: Path, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "a model")
    folder = shelf_folder(resolve(text.format(tmp_path), cache, img_size))
    assert folder.partition("/")[0] == slug


def test_memory_that_runs_out_is_no_fault_of_the_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs it says what to do; "does not run at 32 px" would be another thing."""

    def full(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("eval.models.multiply_adds.counted", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load(resolve("random:test_resnet", cache, 32))
