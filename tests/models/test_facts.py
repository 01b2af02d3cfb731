"""What a model's files declare of its making; and that no name ever does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.models.facts import Facts, declared, of_card, of_config, of_recipe
from eval.models.families import FAMILIES, of_timm, shown_family
from eval.models.names import ZOO_FOLDER, zoo_names
from eval.models.resolve import ResolvedModel, resolve
from eval.results.facts import facts_named, facts_of, making, stated
from eval.results.schema import ModelInfo
from tests.hub import LoopbackHub
from tests.models.checkpoints import Files, checkpoint

CARD = "---\ntags:\n- objective:{}\ndatasets:\n- zh-plus/tiny-imagenet\n---\n# hello\n"


@pytest.mark.parametrize(
    ("architecture", "tag", "family", "data"),
    [
        ("resnet50", "a1_in1k", "supervised", ("imagenet-1k",)),
        ("vit_base_patch16_224", "augreg_in21k_ft_in1k", "supervised",
         ("imagenet-21k", "imagenet-1k")),
        ("vit_small_patch16_224", "dino", "dino", ()),
        ("vit_small_patch14_dinov2", "lvd142m", "dino", ("lvd-142m",)),
        ("vit_base_patch16_224", "mae", "mae", ()),
        ("convnextv2_tiny", "fcmae", "mae", ()),
        ("convnextv2_tiny", "fcmae_ft_in22k_in1k", "mae-ft", ("imagenet-21k", "imagenet-1k")),
        ("vit_base_patch16_clip_224", "laion2b", "clip", ("laion-2b",)),
        ("vit_base_patch16_clip_224", "openai", "clip", ("wit-400m",)),
        ("vit_base_patch16_clip_224", "laion2b_ft_in12k_in1k", "clip-ft",
         ("laion-2b", "imagenet-12k", "imagenet-1k")),
        ("vit_base_patch16_siglip_224", "webli", "siglip", ("webli",)),
        ("resnet50", "mocov2_in1k", "moco", ("imagenet-1k",)),
        ("deit_tiny_distilled_patch16_224", "fb_in1k", "distilled", ("imagenet-1k",)),
        ("regnety_320", "seer", "", ()),
        ("vit_base_patch16_clip_224", "", "", ()),  # an architecture's name is no training
        ("resnet50", "nonsense", "", ()),
    ],
)  # fmt: skip
def test_families_of_timm_tags(
    architecture: str, tag: str, family: str, data: tuple[str, ...]
) -> None:
    assert of_timm(architecture, tag) == (family, data)


@pytest.mark.parametrize(
    ("config", "objective", "architecture"),
    [
        ({"architecture": "resnet50", "pretrained_cfg": {"tag": "a1_in1k"}}, "supervised",
         "resnet50"),
        ({"architecture": "resnet50", "tag": "a1_in1k"}, "supervised", "resnet50"),  # older, flat
        ({"architecture": "resnet50", "pretrained_cfg": {"tag": ["dino"]}}, "", "resnet50"),
        ({"model_type": "dinov2", "architectures": ["Dinov2Model"]}, "dino", "dinov2"),
        ({"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]}, "dino-ft",
         "dinov2"),
        ({"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"]}, "mae", "vit_mae"),
        ({"model_type": "siglip_vision_model"}, "siglip", "siglip_vision_model"),
        ({"model_type": "clip"}, "clip", "clip"),
        ({"model_type": "deit", "architectures": ["DeiTForImageClassificationWithTeacher"]},
         "distilled", "deit"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "supervised",
         "vit"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "", "vit"),
        ({"model_cfg": {"vision_cfg": {"timm_model_name": "vit_base"}}}, "clip", "vit_base"),
        ({"model_cfg": {"init_logit_bias": -10, "vision_cfg": {}}}, "siglip", "ViT"),
        ({}, "", ""),
    ],
)  # fmt: skip
def test_families_of_configs(config: dict[str, Any], objective: str, architecture: str) -> None:
    found = of_config(config)
    assert (found.objective, found.architecture) == (objective, architecture)


@pytest.mark.parametrize(
    ("head", "objective", "data"),
    [
        ("tags: [objective:selfsupcon+ce]\ndatasets: [zh-plus/tiny-imagenet]", "ce+selfsupcon",
         ("zh-plus/tiny-imagenet",)),
        ("tags: [vision, dinov2]", "dino", ()),
        ("tags: [clip, siglip]\ndatasets: webli", "siglip", ("webli",)),
        ("tags: [objective:psychic]", "", ()),
        ("tags: 7\ndatasets: {a: b}", "", ()),
        ("datasets: [/home/ada/photos, 3, null, x]", "", ("photos", "x")),  # no folder of hers
        ("tags: [&a [*a]]", "", ()),
        ("- a list", "", ()),
        ("a: [", "", ()),
    ],
)  # fmt: skip
def test_cards(head: str, objective: str, data: tuple[str, ...]) -> None:
    found = of_card(f"---\n{head}\n---\n# text\n")
    assert (found.objective, found.data) == (objective, data)
    assert of_card(f"\ufeff---\n{head}\n---\n") == found
    assert of_card(head) == Facts()  # no front matter


def test_a_card_too_long_says_nothing() -> None:
    """Whoever reads it has other things to do."""
    long = f"tags: [dino]\nfiller: {'x' * 200_000}"
    assert of_card(f"---\n{long}\n---\n") == Facts()
    assert of_card(f"---\n{long[:1000]}\n---\n").objective == "dino"


def test_the_recipes_that_ship() -> None:
    found = {
        name: of_recipe((ZOO_FOLDER / name / "recipe.toml").read_text()) for name in zoo_names()
    }
    assert len({f.recipe for f in found.values()}) == 1  # trained alike but for the objective
    assert [f.objective for f in found.values()] == [
        "ce", "ce-strong", "selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon",
    ]  # fmt: skip
    for facts in found.values():
        assert facts.data == ("tiny_imagenet",)
        assert (facts.architecture, facts.seed) == ("resnet18_narrow", 0)


def test_another_budget_is_another_recipe_and_another_seed_is_not() -> None:
    text = (ZOO_FOLDER / zoo_names()[0] / "recipe.toml").read_text()
    plain = of_recipe(text)
    other = of_recipe(text.replace("seed = 0", "seed = 7"))
    assert (other.recipe, other.seed) == (plain.recipe, 7)
    assert of_recipe(text.replace("epochs = 12", "epochs = 13")).recipe != plain.recipe
    assert of_recipe(text.replace("images_seen = 359424", "images_seen = 1")).recipe != plain.recipe
    for broken in ("", "x", "[run]\nobjective = 3", text.replace('objective = "ce"', ""),
                   text.replace('objective = "ce"', 'objective = "?"')):  # fmt: skip
        assert of_recipe(broken) == Facts()


@pytest.mark.parametrize("name", ["resnet18_narrow.supcon_tin100", "vit.dino_lvd142m"])
def test_a_folder_s_name_says_nothing(tmp_path: Path, cache: Path, name: str) -> None:
    folder = checkpoint(tmp_path / name)
    found = declared(resolve(f"local-dir:{folder}", cache))
    assert found == Facts("", "test_resnet", said_in=("config.json",))
    (folder / "README.md").write_text(CARD.format("ce"))
    shutil.copytree(folder, tmp_path / "other")
    found = declared(resolve(f"local-dir:{tmp_path / 'other'}", cache))
    assert found == Facts("ce", "test_resnet", ("zh-plus/tiny-imagenet",),
                          said_in=("config.json", "README.md"))  # fmt: skip


def test_the_recipe_goes_before_card_and_config(tmp_path: Path, cache: Path) -> None:
    folder = checkpoint(tmp_path / "mine")
    (folder / "README.md").write_text(CARD.format("ce"))
    shutil.copy(ZOO_FOLDER / "resnet18_narrow.supcon_tin100" / "recipe.toml", folder)
    found = declared(resolve(f"local-dir:{folder}", cache))
    assert (found.objective, found.data) == ("supcon", ("tiny_imagenet",))
    assert found.said_in == ("config.json", "README.md", "recipe.toml")


def test_a_model_of_the_hub_by_its_card(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files | {"README.md": CARD.format("ce+selfsupcon")})
    found = declared(resolve(f"hf-hub:{repo}", cache))
    assert (found.objective, found.data) == ("ce+selfsupcon", ("zh-plus/tiny-imagenet",))
    assert not [path for _, path in hub.requests if path.endswith("recipe.toml")]


def test_without_a_card_its_config_alone_speaks(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    config = json.loads(files["config.json"])  # type: ignore[arg-type]
    config["pretrained_cfg"]["tag"] = "dino"
    hub.add_model(repo, files | {"config.json": json.dumps(config)})
    found = declared(resolve(f"hf-hub:{repo}", cache))
    assert found == Facts("dino", "test_resnet", said_in=("config.json",))


def test_networks_without_files() -> None:
    def named(kind: Any, name: str, spec: str) -> Facts:
        return declared(ResolvedModel(kind, name, spec, spec, "r"))

    assert named("random", "resnet18", "random:resnet18") == Facts("untrained", "resnet18")
    assert named("python", "supcon", "python:supcon") == Facts()
    tv = named("source", "resnet50", "torchvision:resnet50@IMAGENET1K_V2")
    assert (tv.objective, tv.data) == ("supervised", ("imagenet-1k",))
    own = named("source", "resnet50", "torchvision:resnet50@IMAGENET1K_V2?file=/x/y.pth")
    assert (own.objective, own.architecture, own.data) == ("", "resnet50", ())
    assert named("source", "dino.pth", "file:/x/dino.pth") == Facts()


# --------------------------------------------------------------------------- in results


def info(spec: str, revision: str = "r", facts: Facts | None = None) -> ModelInfo:
    return ModelInfo(spec=spec, id=spec, revision=revision, weights_sha256="", params=1,
                     facts=stated(facts) if facts else None)  # fmt: skip


def test_older_results_of_what_ships_are_known_by_its_recipe(cache: Path) -> None:
    model = resolve("zoo:resnet18_narrow.ce_selfsupcon_tin100", cache)
    found = facts_of(info(model.spec, model.revision))
    assert (found.objective, found.data) == ("ce+selfsupcon", ["tiny_imagenet"])
    assert facts_of(info(model.spec, "0" * 40)).objective == ""  # of other weights
    assert facts_of(info("hf-hub:x/resnet18_narrow.ce_tin100", model.revision)).objective == ""
    assert facts_of(info("random:resnet18@3")).objective == "untrained"
    assert facts_named("zoo:../../etc").objective == facts_named("zoo:none").objective == ""


def test_what_a_result_says_counts() -> None:
    facts = Facts("mae", "vit", ("imagenet-1k",), said_in=("README.md",))
    found = info("hf-hub:x/y", facts=facts)
    assert facts_of(found).objective == "mae"
    assert making(found) == "vit on imagenet-1k"
    again = ModelInfo.model_validate_json(found.model_dump_json())
    assert again == found
    assert "facts" not in info("hf-hub:x/y").model_dump()  # as files of before have it
    assert making(info("hf-hub:x/y")) == ""


def test_every_family_is_written_somehow() -> None:
    assert [shown_family(name) for name in FAMILIES] == [f.shown for f in FAMILIES.values()]
    assert shown_family("mae-ft") == "MAE, fine-tuned"
    assert shown_family("ce") == shown_family("") == ""
