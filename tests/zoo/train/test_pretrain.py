"""Training runs: resumed, interrupted, refused, exported."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from eval.common.errors import UserError
from eval.models.objectives import OBJECTIVES, STUDY, parse_objective
from tests.factories import refusal
from tests.zoo.train.runs import SMALL, data_of, recipe_of, store_of
from zoo.train.feed import Feed, Schedule
from zoo.train.learner import build_learner
from zoo.train.pixels import PixelStore, PretrainingData
from zoo.train.pretrain import Finished, Interrupted, Trainer, pretrain, rate_at, stable_rate_at
from zoo.train.recipe import load_recipe
from zoo.train.state import last_state, states


def train(
    out: Path, objective: str = "ce", *overrides: str, resume: bool = False,
    data: PretrainingData | None = None,
) -> Finished:  # fmt: skip
    return pretrain(
        recipe_of(*overrides), parse_objective(objective), data or data_of(), out,
        resume=resume, device="cpu",
    )  # fmt: skip


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """As if Ctrl-C came during that step."""
    monkeypatch.setattr(Trainer, "agree", lambda self, stop: self.step == step)


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# --------------------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    "objective",
    ["ce", "selfsupcon", "supcon+selfsupcon", "ce+selfsupcon", "ce-mlp", "nscl"],
)
@pytest.mark.parametrize("step", [3, 4])  # in the middle of an epoch, and at its end
def test_resumed_run_gives_the_same_bits(
    objective: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = "backbone.model_args={channels=[8,8,16,16],stem_width=8,drop_path_rate=0.2}"
    train(tmp_path / "whole", objective, dropout)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted, match=f"{step} of 8 steps"):
            train(tmp_path / "cut", objective, dropout)
    train(tmp_path / "cut", objective, dropout, resume=True)
    whole, cut = (states(tmp_path / name / "state")[-1] for name in ("whole", "cut"))
    assert whole.name == cut.name == "step-00000008.safetensors"
    expected, found = load_file(whole), load_file(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_resumed_log_has_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Interrupted):
            train(tmp_path / "run")
    states(tmp_path / "run" / "state")[-1].unlink()  # as if the last save had not come through
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "ce"')  # a line cut short by a crash
    train(tmp_path / "run", resume=True)
    train(tmp_path / "whole")
    steps = [line["step"] for line in log_of(tmp_path / "run") if "ce" in line]
    assert steps == [line["step"] for line in log_of(tmp_path / "whole") if "ce" in line] == [4, 8]
    assert [line["knn_top1"] for line in log_of(tmp_path / "run") if "knn_top1" in line] == [
        line["knn_top1"] for line in log_of(tmp_path / "whole") if "knn_top1" in line
    ]


def test_resume_of_a_finished_run_exports_it_again(tmp_path: Path) -> None:
    first = train(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    again = train(tmp_path / "run", resume=True)
    assert again.knn_top1 == pytest.approx(first.knn_top1, abs=1e-3)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_resume_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            train(tmp_path / "run")
    text = refusal(lambda: train(tmp_path / "run", "ce", "train.epochs=5", resume=True))
    assert "recipe.train.epochs was 2, is 5" in text
    text = refusal(lambda: train(tmp_path / "run", "supcon", resume=True))
    assert "objective was 'ce', is 'supcon'" in text
    text = refusal(lambda: train(tmp_path / "run", resume=True, data=data_of(80)))
    assert "data was 'made-up-70-3-0', is 'made-up-80-3-0'" in text
    assert [p.name for p in states(tmp_path / "run" / "state")] == ["step-00000004.safetensors"]


@pytest.mark.parametrize(
    "changed",
    ["probe.every_epochs=1", "save.every_epochs=2", "save.every_minutes=0.001"],
)
def test_a_resumed_run_may_be_looked_at_and_saved_more_or_less_often(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weight hangs on it."""
    before = "probe.every_epochs=2"
    train(tmp_path / "whole", "ce", before)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", "ce", before)
    train(tmp_path / "cut", "ce", before, changed, resume=True)
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    section, key = changed.split("=")[0].split(".")
    recipe = tomllib.loads((tmp_path / "cut" / "recipe.toml").read_text())
    assert str(recipe[section][key]) == changed.split("=")[1]  # what the end of it had


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("save.dtype=float16", "recipe.save.dtype was 'float32', is 'float16'"),
        ("probe.k=3", "recipe.probe.k was 5, is 3"),  # one log, one measure
    ],
)
def test_what_a_resumed_run_stores_and_measures_is_as_it_began(
    changed: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted):
            train(tmp_path / "run")
    text = refusal(lambda: train(tmp_path / "run", "ce", changed, resume=True))
    assert told in text


def test_a_run_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            train(tmp_path / "run")
    before = states(tmp_path / "run" / "state")[-1].read_bytes()
    text = refusal(train, tmp_path / "run")
    assert "add --resume" in text
    assert states(tmp_path / "run" / "state")[-1].read_bytes() == before


def test_the_last_two_states_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    train(tmp_path / "run", "ce", "train.epochs=3")
    found = states(tmp_path / "run" / "state")
    assert [p.name for p in found] == ["step-00000008.safetensors", "step-00000012.safetensors"]
    found[-1].write_bytes(found[-1].read_bytes()[:100])
    saved = last_state(tmp_path / "run" / "state")
    assert saved is not None
    assert saved.step == 8
    found[0].write_bytes(b"")
    assert "can be read" in refusal(last_state, tmp_path / "run" / "state")


# --------------------------------------------------------------------------- what goes wrong


def test_nan_stops_with_the_last_good_state_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer.take_step

    def spoilt(self: Trainer, feed: Feed) -> dict[str, torch.Tensor]:
        terms = real(self, feed)
        return {**terms, "total": terms["total"] * float("nan")} if self.step == 5 else terms

    monkeypatch.setattr(Trainer, "take_step", spoilt)
    text = refusal(train, tmp_path / "run")
    assert "the loss is not a number" in text
    assert "rate.classification=0.3" in text
    assert "step-00000004.safetensors" in text
    saved = last_state(tmp_path / "run" / "state")
    assert saved is not None
    assert saved.step == 4
    assert all(v.isfinite().all() for v in load_file(saved.path).values() if v.is_floating_point())


def test_a_rate_that_blows_up_is_refused_not_exported(tmp_path: Path) -> None:
    text = refusal(train, tmp_path / "run", "ce", "rate.classification=1e20")
    assert "the loss is not a number" in text
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_keeps_the_last_state(tmp_path: Path) -> None:
    train(tmp_path / "run", "ce", "train.epochs=1")
    trainer = Trainer(recipe_of(), parse_objective("ce"), data_of(), tmp_path / "run", "cpu")
    trainer.step = 6
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # writes fail as on a full disk
    try:
        text = refusal(trainer.save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be saved" in text
    assert "step-00000004.safetensors" in text
    assert [p.name for p in (tmp_path / "run" / "state").iterdir()] == ["step-00000004.safetensors"]


@pytest.mark.parametrize(
    ("objective", "overrides", "says"),
    [
        ("ce", ["train.batch_size=80"], "train.batch_size = 80 is larger than the data, 70"),
        ("ce", ["train.accumulate=3"], "does not split into 1 processes x 3"),
        ("supcon", ["contrastive.queue=10"], "contrastive.queue = 10 is shorter than the 16 keys"),
        ("ce", ["backbone.architecture='resnet10'"], "timm has no model 'resnet10'; did you mean"),
        ("ce", ["backbone.model_args={chanels=[8]}"], "cannot be built with {'chanels': [8]}"),
    ],
)
def test_what_cannot_train_is_said_before_training(
    objective: str, overrides: list[str], says: str, tmp_path: Path
) -> None:
    assert says in refusal(train, tmp_path / "run", objective, *overrides)


def test_an_error_in_the_feed_reaches_the_trainer() -> None:
    store = store_of()
    broken = PixelStore(store.pixels[:10], store.aspect, store.labels, store.classes, "x", "x")
    feed = Feed(broken, Schedule(70, 16, 0), 0, 4)
    with pytest.raises(IndexError):
        list(feed)
    feed.close()


# --------------------------------------------------------------------------- schedules


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 20), st.integers(0, 3)
)
def test_processes_share_each_batch_and_an_epoch_repeats_no_image(
    processes: int, accumulate: int, share: int, spare: int, seed: int
) -> None:
    batch = processes * accumulate * share
    images = 3 * batch + min(spare, batch - 1)
    alone = Schedule(images, batch, seed)
    seen = []
    for step in range(3, 6):  # the second epoch
        order = alone.order(1)
        parts = [
            Schedule(images, batch, seed, accumulate, processes, rank).rows(step, order)
            for rank in range(processes)
        ]
        together = np.concatenate(
            [parts[r][m] for m in range(accumulate) for r in range(processes)]
        )
        assert together.tolist() == np.concatenate(alone.rows(step, order)).tolist()
        seen += together.tolist()
    assert len(set(seen)) == len(seen) == 3 * batch
    assert not np.array_equal(alone.order(0), alone.order(1)) or images < 4


def test_rate_warms_up_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_objectives_start_from_one_backbone() -> None:
    drawn = [build_learner(recipe_of(), parse_objective(name), 3).backbone for name in STUDY]
    first = drawn[0].state_dict()
    for other in drawn[1:]:
        assert all(torch.equal(first[key], value) for key, value in other.state_dict().items())


def test_accumulated_steps_take_the_gradient_of_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch norm frozen and one fixed view, 1 x 16 and 2 x 8 images give one gradient."""
    found = []
    for parts in (1, 2):
        recipe = recipe_of(f"train.accumulate={parts}", "image.scale=[1.0,1.0]")
        run = Trainer(recipe, parse_objective("ce"), data_of(), tmp_path, "cpu")
        run.learner.eval()
        monkeypatch.setattr(run.learner, "train", lambda: None)
        # flips are drawn batch by batch: mirrored images make them harmless
        pixels = run.data.train.pixels
        pixels[:] = np.maximum(pixels, pixels[:, :, ::-1])
        feed = Feed(run.data.train, run.schedule, 0, 1)
        run.take_step(feed)
        feed.close()
        found.append(run.learner.state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_exported_folder_is_the_trained_query_backbone(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Trainer] = []
    real = Trainer.finish

    def keep(self: Trainer, rate: float) -> Finished:
        kept.append(self)
        return real(self, rate)

    monkeypatch.setattr(Trainer, "finish", keep)
    done = train(tmp_path / "run", objective)
    learner = kept[0].learner.eval()
    images = torch.rand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = learner.backbone(images)
        net = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True, num_classes=0)
        net.eval().to(memory_format=torch.channels_last)
        assert torch.equal(net(images), expected)
        assert done.exported.difference == 0.0
        classifier = learner.objective.classifier
        assert (classifier is not None) == (objective.split("+")[0] in ("ce", "ce-strong"))
        whole = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
        if classifier is None:
            assert whole.num_classes == 0
        else:
            torch.testing.assert_close(whole(images), classifier(expected))
            assert json.loads((tmp_path / "run" / "config.json").read_text())["label_names"] == [
                "class0", "class1", "class2",
            ]  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.json", "log.jsonl", "model.safetensors", "recipe.toml", "state",
    ]  # fmt: skip


def test_timm_prepares_images_as_the_recipe_says(tmp_path: Path) -> None:
    train(tmp_path / "run")
    net = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)
    found = timm.data.resolve_data_config({}, model=net)
    assert tuple(found["input_size"]) == (3, 16, 16)
    assert found["crop_mode"] == "squash"
    assert found["crop_pct"] == pytest.approx(224 / 257)
    assert tuple(found["mean"]) == (0.485, 0.456, 0.406)


def test_half_precision_is_within_its_rounding(tmp_path: Path) -> None:
    done = train(tmp_path / "run", "ce", "save.dtype=float16")
    assert 0 < done.exported.difference < 5e-3
    assert all(
        v.dtype == torch.float16
        for v in load_file(tmp_path / "run" / "model.safetensors").values()
        if v.is_floating_point()
    )


def test_the_recipe_of_a_checkpoint_trains_it_again(tmp_path: Path) -> None:
    train(tmp_path / "run", "supcon")
    again = load_recipe(str(tmp_path / "run" / "recipe.toml"))
    assert again == recipe_of()
    pretrain(again, parse_objective("supcon"), data_of(), tmp_path / "again", device="cpu")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


def test_log_tells_terms_rate_queue_gradient_and_speed(tmp_path: Path) -> None:
    train(tmp_path / "run", "supcon+selfsupcon")
    lines = [line for line in log_of(tmp_path / "run") if "total" in line]
    for line in lines:
        assert line["total"] == pytest.approx(line["supcon"] + line["selfsupcon"], rel=1e-5)
        assert line["grad_norm"] > 0
        assert line["images_per_s"] > 0
        assert 0 <= line["waiting"] <= 1
    assert [line["queue_fill"] for line in lines] == [1.0, 1.0]  # 64 keys into 40 slots
    assert lines[0]["lr"] > lines[-1]["lr"] > 0


def test_unlabelled_data_train_and_are_not_probed(tmp_path: Path) -> None:
    done = train(tmp_path / "run", "selfsupcon", data=data_of(labelled=False))
    assert done.knn_top1 is None
    assert not [line for line in log_of(tmp_path / "run") if "knn_top1" in line]


# --------------------------------------------------------------------------- the command


def pretrain_args(real_data: Path, out: Path, cache: Path, objective: str = "ce") -> list[str]:
    sets = [f for override in SMALL for f in ("--set", override)]
    return [
        "pretrain", "tiny", "--objective", objective, "--data", str(real_data / "tiny_imagenet"),
        "--out", str(out), "--cache", str(cache), "--limit", "640", "--device", "cpu", *sets,
        "--set", "train.epochs=3", "--set", "probe.every_epochs=0",
    ]  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_in_the_same_weights(
    real_data: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.__main__ import main

    assert main(pretrain_args(real_data, tmp_path / "whole", cache, "ce+selfsupcon")) == 0
    assert "timm.create_model('local-dir:" in capsys.readouterr().out

    args = pretrain_args(real_data, tmp_path / "cut", cache, "ce+selfsupcon")
    process = subprocess.Popen([sys.executable, "-m", "zoo", *args], stderr=subprocess.PIPE)
    log = tmp_path / "cut" / "log.jsonl"
    end = time.monotonic() + 120
    while not (log.is_file() and log.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.decode().count("\n") == 1
    assert "--resume goes on" in errors.decode()
    saved = last_state(tmp_path / "cut" / "state")
    assert saved is not None
    assert 0 < saved.step < 120
    assert main([*args, "--resume"]) == 0, capsys.readouterr().err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_train_one_model(real_data: Path, tmp_path: Path, cache: Path) -> None:
    args = pretrain_args(real_data, tmp_path / "run", cache, "supcon+selfsupcon")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", "-m", "zoo", *args, "--set", "train.accumulate=2"],
        capture_output=True, text=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in log_of(tmp_path / "run") if "total" in line]
    assert lines[-1]["supcon"] < lines[1]["supcon"]  # of real images, in 120 steps
    assert "processes = 2" in (tmp_path / "run" / "recipe.toml").read_text()
    timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pretrain", "tiny", "--objective", "supcom", "--data", "."], "did you mean 'supcon'"),
        (["pretrain", "tinny", "--objective", "ce", "--data", "."], "did you mean 'tiny'"),
        (["pretrain", "tiny", "--objective", "ce", "--data", ".", "--set", "train.epoch=3"],
         "unknown key 'train.epoch'; did you mean 'epochs'"),
        (["pretrain", "tiny", "--objective", "ce", "--data", "nowhere"], "'nowhere'"),
        (["pretrian"], "did you mean 'pretrain'"),
        (["pretrain", "tiny", "--objective", "ce", "--data", ".", "--limit", "1"], "--limit 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_two(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.__main__ import main

    if args[0] == "pretrain":
        args = [*args, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_objectives_that_need_labels_say_so_and_selfsupcon_trains_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from zoo.__main__ import main

    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(
            tmp_path / "photos" / f"{i}.png"
        )
    common = ["--data", str(tmp_path / "photos"), "--cache", str(tmp_path / "cache")]
    sets = [f for override in SMALL for f in ("--set", override)]
    for objective in ("ce", "supcon", "ce+selfsupcon"):
        args = ["pretrain", "tiny", "--objective", objective, *common, "--out", str(tmp_path / "x")]
        assert main([*args, *sets]) == 2
        assert "label" in capsys.readouterr().err
    args = ["pretrain", "tiny", "--objective", "selfsupcon", *common, "--out", str(tmp_path / "y")]
    assert main([*args, *sets]) == 0
    assert "SelfSupCon: 2 epochs" in capsys.readouterr().out
    same_class = ["--set", "contrastive.same_class_negatives_only=true"]
    args[-1] = str(tmp_path / "z")
    assert main([*args, *sets, *same_class]) == 2
    assert "label" in capsys.readouterr().err


def test_listing_names_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.__main__ import main

    assert main(["list", "objectives", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["objective"] for row in rows] == list(OBJECTIVES)
    assert main(["list", "recipes"]) == 0
    assert "mini_imagenet" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_help_does_not_import_torch() -> None:
    code = "import sys; from zoo.__main__ import main; sys.argv=['x']\ntry: main(['--help'])\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown --device 'tpuu'"):
        pretrain(recipe_of(), parse_objective("ce"), data_of(), tmp_path / "run", device="tpuu")


# --------------------------------------------------------------------------- budgets from one run


WSD = ("train.epochs=4", "train.schedule=wsd", "train.cooldown=0.25")
BRANCHES = (*WSD, "train.branches=[2,3]")


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("objective", ["ce-mlp", "ce-mlp+selfsupcon", "supcon"])
@pytest.mark.slow
def test_a_branch_is_the_run_of_that_many_epochs(objective: str, tmp_path: Path) -> None:
    train(tmp_path / "run", objective, *BRANCHES)
    for epochs, folder in ((2, "epochs-2"), (3, "epochs-3"), (4, ".")):
        alone = tmp_path / f"alone-{epochs}"
        train(alone, objective, *WSD, f"train.epochs={epochs}")
        assert weights_of(tmp_path / "run" / folder) == weights_of(alone)
        assert load_recipe(str(tmp_path / "run" / folder / "recipe.toml")).train.epochs == epochs
        lines = [line for line in log_of(tmp_path / "run" / folder) if "knn_top1" in line]
        assert lines == [line for line in log_of(alone) if "knn_top1" in line]


@pytest.mark.parametrize("step", [4, 6, 7, 9, 11, 15])  # of the trunk, of branches, at a fork
@pytest.mark.slow
def test_a_resumed_run_with_branches_gives_the_same_bits(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", "ce+selfsupcon", *BRANCHES)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", "ce+selfsupcon", *BRANCHES)
    train(tmp_path / "cut", "ce+selfsupcon", *BRANCHES, resume=True)
    for folder in ("epochs-2", "epochs-3", "."):
        assert weights_of(tmp_path / "cut" / folder) == weights_of(tmp_path / "whole" / folder)


def test_a_run_can_end_at_a_branch_and_go_on(tmp_path: Path) -> None:
    def until(epochs: int | None) -> Finished:
        return pretrain(
            recipe_of(*BRANCHES), parse_objective("ce"), data_of(), tmp_path / "run",
            resume=True, device="cpu", until=epochs,
        )  # fmt: skip

    assert "until = 5 is not a branch of the recipe" in refusal(until, 5)
    assert until(2).exported.folder == tmp_path / "run" / "epochs-2"
    assert not (tmp_path / "run" / "epochs-3").exists()
    first = (tmp_path / "run" / "epochs-2" / "model.safetensors").stat().st_mtime_ns
    assert until(3).exported.folder == tmp_path / "run" / "epochs-3"
    assert until(None).exported.folder == tmp_path / "run"
    assert (tmp_path / "run" / "epochs-2" / "model.safetensors").stat().st_mtime_ns == first
    train(tmp_path / "whole", "ce", *BRANCHES)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("steps", "warmup", "cooldown"), [(100, 10, 10), (40, 0, 4), (17, 3, 5), (10, 2, 8)]
)
def test_stable_rate_warms_up_stays_and_falls_to_zero(
    steps: int, warmup: int, cooldown: int
) -> None:
    rates = [stable_rate_at(step, steps, warmup, cooldown) for step in range(steps + 1)]
    assert rates[:warmup] == [rate_at(step, steps, warmup) for step in range(warmup)]
    assert set(rates[warmup : steps - cooldown + 1]) == {1.0}
    assert rates[steps - cooldown :] == pytest.approx(list(np.linspace(1, 0, cooldown + 1)))


def test_a_state_is_saved_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    save = Trainer.save
    monkeypatch.setattr(Trainer, "save", lambda self: (saved.append(self.step), save(self))[1])
    train(tmp_path / "run", "ce", "save.every_minutes=1e-9")
    assert saved == list(range(1, 9))


def test_a_run_of_before_new_settings_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its state does not name had the default's meaning then."""
    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        init = Trainer.__init__

        def older(self: Trainer, *args: object, **kwargs: object) -> None:
            init(self, *args, **kwargs)  # type: ignore[arg-type]
            for section, key in (("train", "schedule"), ("contrastive", "head_hidden")):
                del self.asked["recipe"][section][key]
            del self.asked["recipe"]["projector"]

        patch.setattr(Trainer, "__init__", older)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut")
    train(tmp_path / "cut", resume=True)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
