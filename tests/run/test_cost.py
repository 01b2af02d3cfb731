"""What a plan counts for the protocols that train."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.data.load import load_task
from eval.protocols import PROTOCOLS
from eval.protocols.finetune import images_to_see
from eval.protocols.linear_sgd import views_to_encode
from eval.run.cost import Cost, render
from eval.settings.protocols import Finetune, LinearSgd
from eval.training.crop_images import stock_of
from tests.factories import Cli, make_task


@pytest.mark.parametrize(
    ("settings", "views"),
    [
        (LinearSgd(), 50 * 1000),  # tuning shares the first 20 epochs' views
        (LinearSgd(tune_epochs=60), 60 * 1000),
        (LinearSgd(views=8), 8 * 1000),
        (LinearSgd(views=8, fractions=(0.1,)), 8 * 1000),
        (LinearSgd(fractions=(0.1, 1.0), subsets=3), 1.3 * 50 * 1000),
    ],
)
def test_views_to_encode(settings: LinearSgd, views: float) -> None:
    assert views_to_encode(settings, 1000) == pytest.approx(views)


@pytest.mark.parametrize(
    ("settings", "evaluated", "trained"),
    [
        (Finetune(), 12 * 0.3 * 1000 + 400, (20 * 0.7 * 12 + 50) * 1000),
        (Finetune(lrs=(0.1,), batch_sizes=(32,), weight_decays=(0.0,), epochs=2), 300 + 400, 2000),
        (Finetune(halving=True), 12 * 0.3 * 1000 + 400, (20 * 0.7 * 12 * 7 / 12 + 50) * 1000),
    ],
)
def test_images_to_see(settings: Finetune, evaluated: float, trained: float) -> None:
    assert images_to_see(settings, 1000, 400) == pytest.approx((evaluated, trained))


def test_protocols_that_train_say_what_it_costs() -> None:
    assert {p.name for p in PROTOCOLS.values() if p.cost} == {
        p.name for p in PROTOCOLS.values() if p.trains
    }


@pytest.mark.slow
def test_training_has_a_column_of_its_own(cli: Cli, tmp_path: object) -> None:
    base = ["plan", "random:test_resnet", "--task", "digits", "--img-size", "32",
            "--precision", "fp32", "--cache", f"{tmp_path}/c"]  # fmt: skip
    plain = cli(*base, "--protocol", "linear")
    assert (plain.code, "training" in plain.out) == (0, False)
    trained = cli(*base, "--protocol", "linear", "finetune", "--grid", "small")
    assert trained.code == 0
    assert "training minutes" in trained.out
    (row,) = cli(*base, "--protocol", "finetune", "--json").json
    assert row["training"] > row["seconds"] > 0


@pytest.mark.slow
def test_decoded_images_are_counted_once(cli: Cli, tmp_path: Path) -> None:
    """Models of one size share them, and so do both protocols; what is there takes no room."""
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    base = ["plan", "random:test_resnet", "random:test_vit", "--task", f"parquet:{data}",
            "--precision", "fp32", "--cache", tmp_path / "c", "--grid", "small",
            "--results", tmp_path / "r", "--protocol", "linear-sgd", "finetune",
            "--img-size"]  # fmt: skip
    size = 36 * 24 * 24 * 3 / 1e6  # as they are
    assert [row["decoded"] for row in cli(*base, "32", "--json").json] == [size, 0]
    told = cli(*base, "32").out
    assert "decoded MB" in told
    assert "Training keeps about 0.1 MB of decoded images." in told
    task = load_task(f"parquet:{data}", tmp_path / "c")
    stock_of(task, 32, (0.2, 1.0), "originals", tmp_path / "c").open(False)
    assert [row["decoded"] for row in cli(*base, "32", "--json").json] == [0, 0]
    assert "decoded" not in cli(*base, "32").out


def test_a_narrow_screen_has_a_table_a_model() -> None:
    costs = [
        Cost(f"zoo:a_rather_long_name_{i}", task, 1, 0, 100, False, 1.0, 60.0, 600.0, 5.0)
        for i in range(2)
        for task in ("digits", "texture")
    ]
    text = render(costs, 64)
    assert max(map(len, text.splitlines())) <= 64
    assert [line for line in text.splitlines() if line.startswith("zoo:")] == [
        "zoo:a_rather_long_name_0", "zoo:a_rather_long_name_1"
    ]  # fmt: skip
    assert text.count("digits") == text.count("texture") >= 2
    assert render(costs).startswith("| model ")
    assert render(costs, 200).startswith("model ")
