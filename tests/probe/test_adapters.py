"""The probe in other people's loops: read after each step that is due, and not noticed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import eval as transfer
from eval.probe.training_probe import TrainingProbe
from tests.factories import refusal
from tests.probe.loops import TRANSFORM, Small, features


def probe(**changes: Any) -> TrainingProbe:
    given: dict[str, Any] = {
        "every": 2, "features": features, "images": 60, "protocols": "knn", "results": "probe",
    }  # fmt: skip
    return TrainingProbe(["digits"], TRANSFORM, **(given | changes))


def steps_read() -> list[int]:
    return sorted(r.model.step or -1 for r in transfer.read_results("probe"))


def data() -> TensorDataset:
    made = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.rand(48, 3, 16, 16, generator=made), torch.randint(4, (48,), generator=made)
    )


# --------------------------------------------------------------------------- accelerate


def with_accelerate(reads: TrainingProbe | None, precision: str) -> dict[str, Tensor]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from eval.probe.adapters.accelerate import in_accelerate

    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    net = Small()
    net, optimiser, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), 0.1), DataLoader(data(), 4, shuffle=True)
    )
    read = in_accelerate(reads, accelerator) if reads else lambda step, net: None
    step = 0
    for images, labels in loader:
        with accelerator.accumulate(net):
            accelerator.backward(nn.functional.cross_entropy(net(images).float(), labels))
            optimiser.step()
            optimiser.zero_grad()
        if accelerator.sync_gradients:
            step += 1
            read(step, net)
    AcceleratorState._reset_state(True)
    return net.state_dict()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_loop_of_accelerate(precision: str) -> None:
    plain = with_accelerate(None, precision)
    found = with_accelerate(probe(), precision)
    assert steps_read() == [2, 4, 6]
    for name, value in found.items():
        assert torch.equal(value, plain[name]), name


# --------------------------------------------------------------------------- Lightning


def lightning() -> Any:
    if importlib.util.find_spec("lightning"):
        import lightning.pytorch as module
    else:
        module = pytest.importorskip("pytorch_lightning")
    return module


def with_lightning(reads: TrainingProbe | None) -> dict[str, Tensor]:
    from eval.probe.adapters.lightning import lightning_callback

    pl = lightning()

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Small()

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.net(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    module = Module()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=2,
        callbacks=[lightning_callback(reads)] if reads else [],
    )  # fmt: skip
    trainer.fit(module, DataLoader(data(), 4, shuffle=True))
    return module.state_dict()


@pytest.mark.filterwarnings("ignore")  # of Lightning, about few workers and a logger
def test_a_callback_of_lightning() -> None:
    plain = with_lightning(None)
    found = with_lightning(probe(features=lambda module, images: module.net.body(images)))
    assert steps_read() == [2, 4, 6]
    for name, value in found.items():
        assert torch.equal(value, plain[name]), name


# --------------------------------------------------------------------------- transformers


def with_transformers(reads: TrainingProbe | None, folder: Path) -> dict[str, Tensor]:
    from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

    from eval.probe.adapters.transformers import trainer_callback

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8, num_labels=4,
    )  # fmt: skip
    net = ViTForImageClassification(config)
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=6, per_device_train_batch_size=4, use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = [{"pixel_values": image, "labels": label} for image, label in data()]
    Trainer(
        net, settings, train_dataset=rows,  # type: ignore[arg-type]  # a list is a data set too
        callbacks=[trainer_callback(reads)] if reads else [],
    ).train()  # fmt: skip
    return net.state_dict()


def test_a_callback_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from eval.probe.adapters.transformers import pooled_features

    plain = with_transformers(None, tmp_path / "a")
    found = with_transformers(probe(features=pooled_features), tmp_path / "b")
    assert steps_read() == [2, 4, 6]
    for name, value in found.items():
        assert torch.equal(value, plain[name]), name


def test_pooled_features_are_those_of_the_library() -> None:
    transformers = pytest.importorskip("transformers")
    from eval.probe.adapters.transformers import pooled_features

    images = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    resnet = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    ).eval()
    with torch.no_grad():
        wanted = resnet.resnet(images).pooler_output[:, :, 0, 0]
        assert torch.equal(pooled_features(resnet, images), wanted)


# --------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("place", "extra"),
    [
        ("eval.probe.adapters.lightning:lightning_callback", "lightning"),
        ("eval.probe.adapters.transformers:trainer_callback", "transformers"),
        ("eval.probe.sinks.trackio:trackio_sink", "trackio"),
        ("eval.probe.sinks.wandb:wandb_sink", "wandb"),
        ("eval.probe.sinks.tensorboard:tensorboard_sink", "tensorboard"),
    ],
)
def test_a_library_that_is_missing_is_asked_for_by_name(
    place: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, function = place.partition(":")
    call = getattr(importlib.import_module(module), function)
    nothing = lambda name, *more: None  # noqa: E731
    monkeypatch.setattr("eval.common.extras.find_spec", nothing)
    monkeypatch.setattr("importlib.util.find_spec", nothing)
    monkeypatch.setattr("eval.probe.adapters.lightning.find_spec", nothing)
    said = refusal(call, None)
    assert said.endswith(f"run `pip install 'transferzoo[{extra}]'`")
