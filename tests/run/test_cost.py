"""What a plan counts for the protocols that train."""

from __future__ import annotations

import pytest

from eval.run.cost import work_of
from eval.settings.protocols import Finetune, Linear, LinearSgd
from tests.factories import Cli


@pytest.mark.parametrize(
    ("settings", "encoded", "trained"),
    [
        (Linear(), 0, 0),
        (LinearSgd(), 50 * 1000, 0),  # tuning shares the first 20 epochs' views
        (LinearSgd(tune_epochs=60), 60 * 1000, 0),
        (LinearSgd(views=8), 8 * 1000, 0),
        (LinearSgd(views=8, fractions=(0.1,)), 8 * 1000, 0),
        (LinearSgd(fractions=(0.1, 1.0), subsets=3), 1.3 * 50 * 1000, 0),
        (Finetune(), 12 * 0.3 * 1000 + 400, (20 * 0.7 * 12 + 50) * 1000),
        (Finetune(lrs=(0.1,), batch_sizes=(32,), weight_decays=(0.0,), epochs=2), 300 + 400, 2000),
        (Finetune(halving=True), 12 * 0.3 * 1000 + 400, (20 * 0.7 * 12 * 7 / 12 + 50) * 1000),
    ],
)
def test_images_to_see(settings: Linear | LinearSgd | Finetune, encoded: int, trained: int) -> None:
    assert work_of(settings, 1000, 400) == pytest.approx((encoded, trained))


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
