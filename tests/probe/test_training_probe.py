"""A probe reads what the network knows, and the training does not notice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eval as transfer
from eval.models.in_memory import state_sha256
from eval.probe.training_probe import TrainingProbe
from eval.probe.undisturbed import undisturbed
from tests.factories import Cli, refusal
from tests.probe.loops import TRANSFORM, Small, features, train


def probe(**changes: Any) -> TrainingProbe:
    given: dict[str, Any] = {"every": 2, "features": features, "images": 250}
    return TrainingProbe(["digits"], TRANSFORM, **(given | changes))


# --------------------------------------------------------------------------- undisturbed


@pytest.mark.parametrize(
    "protocols", [None, pytest.param(["knn", "fewshot", "linear"], marks=pytest.mark.slow)]
)
def test_a_training_is_the_same_to_the_bit_with_and_without_it(protocols: Any) -> None:
    reads = probe(protocols=protocols)
    plain_state, plain_losses = train(8)
    state, losses = train(8, reads)
    assert reads.readings == 4
    assert losses == plain_losses
    assert state.keys() == plain_state.keys()
    for name, value in state.items():
        assert torch.equal(value, plain_state[name]), name


def test_modes_and_grads_are_left_as_they_were() -> None:
    net = Small()
    net.body[1].eval()
    net.head.weight.grad = torch.ones_like(net.head.weight)
    modes = [m.training for m in net.modules()]
    state = state_sha256(net)
    probe().read(1, net)
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad for p in net.parameters())
    assert torch.equal(net.head.weight.grad, torch.ones_like(net.head.weight))
    assert state_sha256(net) == state
    assert torch.is_grad_enabled()


class Eager(nn.Module):
    """Counts its calls, draws noise and replaces a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))
        self.switched = 0

    def train(self, mode: bool = True) -> Eager:
        self.switched += 1  # as modules do that merge their weights then
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.last = images.mean()
        return images.flatten(1) + torch.rand(1)


def test_a_module_that_changes_itself_is_put_back_and_never_told() -> None:
    net = Eager()
    before, rng = (net.calls, net.last), torch.get_rng_state()
    with undisturbed(net):
        assert not net.training
        net(torch.rand(2, 3, 4, 4))
    assert (net.calls is before[0], net.last is before[1]) == (True, True)
    assert net.calls.item() == 0
    assert torch.equal(torch.get_rng_state(), rng)
    assert (net.training, net.switched) == (True, 0)


def test_what_is_raised_inside_leaves_everything_as_it_was() -> None:
    net, rng = Small(), torch.get_rng_state()

    def broken() -> None:
        with undisturbed(net):
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert net.training
    assert net.body[1].training
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.slow
def test_it_may_be_called_within_autocast() -> None:
    """Whose cache must not keep weights that were cast without gradients."""
    net, images = Small().eval(), torch.rand(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        probe().read(1, net)
        net(images).float().sum().backward()
    assert net.head.weight.grad is not None
    assert net.body[0].weight.grad is not None  # type: ignore[union-attr]


# --------------------------------------------------------------------------- readings


def test_a_reading_is_what_evaluate_says_of_the_network_then() -> None:
    """On the same images: --limit takes the same ones."""
    torch.manual_seed(3)
    net = Small()
    settings = {"knn": {}, "fewshot": {"shots": (5,)}, "linear": {}}
    found = probe(protocols=settings).read(7, net)
    mine = transfer.backbone(net.body, TRANSFORM, name="now")
    wanted = transfer.evaluate(mine, "digits", settings, limit=250)
    for read, result in zip(found, wanted, strict=True):
        assert read.protocol == result.protocol
        assert read.task == result.task
        # features differ by rounding where batches or memory layouts do
        for a, b in zip(read.scores, result.scores, strict=True):
            assert a.name == b.name
            assert a.value == pytest.approx(b.value, abs=0.01)


def test_readings_are_files_on_a_step_axis(cli: Cli) -> None:
    reads = probe(name="run-1")
    train(6, reads)
    results = transfer.read_results("probe")
    assert sorted({(r.model.id, r.model.step) for r in results}) == [
        ("python:run-1@2", 2), ("python:run-1@4", 4), ("python:run-1@6", 6),
    ]  # fmt: skip
    assert {r.protocol.name for r in results} == {"knn", "fewshot"}
    assert {r.limit for r in results} == {250}
    assert sorted(results.to_frame().step.unique()) == [2, 4, 6]
    drawn = cli("curves", "--x", "step", "--results", "probe", "--out", "c.svg", "--json")
    assert drawn.code == 0, drawn.err
    assert Path("c.svg").read_text().count("<svg") == 1
    found = {(c["model"], c["score"]): c["readings"] for c in drawn.json}
    assert found.keys() == {("python:run-1", "top1"), ("python:run-1", "top1_5shot")}
    for (_, score), readings in found.items():
        for reading in readings:
            (value,) = (
                s.value for r in results if r.model.step == reading["step"]
                for s in r.scores if s.name == score
            )  # fmt: skip
            assert reading["value"] == value
    ran = cli("leaderboard", "--results", "probe", "--protocol", "knn")
    assert "python:run-1@4" in ran.out


def test_a_step_read_again_counts_as_it_was_read_last() -> None:
    from eval.analysis.step_curves import step_curves

    first = probe().read(2, Small())
    older = [
        r.model_copy(update={"created": "2000-01-01T00:00:00+00:00", "scores": [
            s.model_copy(update={"value": 0.0}) for s in r.scores]})
        for r in first
    ]  # fmt: skip
    for results in ([*older, *first], [*first, *older]):
        curves = step_curves(results)
        assert [len(c.readings) for c in curves] == [1, 1]
        assert all(c.readings[0].value > 0 for c in curves)


def test_curves_without_readings_are_a_sentence(cli: Cli) -> None:
    transfer.evaluate("random:test_resnet", "digits", "knn", limit=60, img_size=32)
    ran = cli("curves", "--x", "step", "--out", "c.svg")
    assert ran.code == 2
    assert "no result here was read at a step of a training" in ran.err


def test_sinks_get_main_scores() -> None:
    got: list[tuple[int, Mapping[str, float]]] = []
    reads = probe(sinks=[lambda step, values: got.append((step, values))])
    found = reads.read(5, Small())
    ((step, values),) = got
    assert step == 5
    assert values == {
        "probe/digits/knn/top1": found[0].score("top1").value,  # type: ignore[union-attr]
        "probe/digits/fewshot/top1_5shot": found[1].score("top1_5shot").value,  # type: ignore[union-attr]
    }
    json.dumps(values)


def test_between_readings_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = probe(every=1000)
    monkeypatch.setattr(reads, "_read", None)
    assert list(reads(999, Small())) == []
    assert (reads.readings, reads.seconds) == (0, 0.0)


def test_timm_networks_are_read_before_their_classifier() -> None:
    import timm

    net = timm.create_model("test_resnet", num_classes=10)
    (read,) = probe(features=None, protocols="knn").read(1, net)
    headless = timm.create_model("test_resnet", num_classes=0)
    headless.load_state_dict(net.state_dict(), strict=False)
    (wanted,) = probe(features=None, protocols="knn").read(1, headless)
    assert read.samples == wanted.samples


def test_helping_processes_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    reads = probe()
    assert list(reads.read(2, Small())) == []
    assert not Path("probe").exists()


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"every": 0}, "every must be at least 1 step, got 0"),
        ({"every": 2.5}, "every must be at least 1 step, got 2.5"),
        ({"name": "a/b"}, "must be 1 to 80 letters"),
        ({"pool": "mean"}, "pool must be 'avg', 'max' or left out"),
        ({"protocols": "finetune"}, "a probe takes those on features: knn, fewshot, linear"),
        ({"protocols": "knnn"}, "did you mean 'knn'"),
        ({"images": 0}, "limit must be at least 1, got 0"),
        ({"images": 60}, "5-shot needs 5 classes of 5 + 15 different images"),
    ],
)
def test_mistakes_are_told_before_the_training(change: Any, said: str) -> None:
    assert said in refusal(lambda: probe(**change))
    assert not Path("probe").exists()


def test_a_transform_is_looked_at_before_the_training() -> None:
    said = refusal(lambda: TrainingProbe("digits", lambda image: image))
    assert "python:training: its transform returns a Image" in said


def test_the_first_reading_raises_and_later_ones_warn() -> None:
    reads, net = probe(), Small()
    broken = Small()
    with torch.no_grad():
        broken.body[0].weight.fill_(float("nan"))  # type: ignore[union-attr]
    assert "features that are not finite" in refusal(reads.read, 2, broken)
    reads.read(4, net)
    with pytest.warns(UserWarning, match="no reading at step 6: python:training gives features"):
        assert list(reads.read(6, broken)) == []
    assert broken.training
    other = nn.Conv2d(3, 4, 1)  # which has no body
    with pytest.warns(UserWarning, match="no reading at step 8: 'Conv2d' object has no attribute"):
        assert list(reads.read(8, other)) == []
    assert reads.readings == 1


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Small().half(), "has weights of torch.float16; a probe takes float32 or bfloat16"),
        (nn.Conv2d(3, 4, 1), "returns maps [100, 4, 16, 16]; say how they become one vector"),
    ],
)
def test_a_network_without_features_is_refused_at_the_first_reading(
    net: nn.Module, said: str
) -> None:
    told = refusal(probe(features=lambda n, x: n(x)).read, 2, net)
    assert told.startswith("python:training ")
    assert said.partition("[100")[0] in told
