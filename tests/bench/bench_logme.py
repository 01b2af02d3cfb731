"""LogME: one eigendecomposition for all classes against the authors' plain NumPy form.

    python tests/bench/bench_logme.py [--size small|middle|large] [--rounds 5]

Both get the same features and labels; agreement is checked before anything is timed. The rival is
the algorithm of github.com/thuml/LogME (`_fit_fixed_point`), written here without numba: singular
vectors of the features, then one class after the other. Its number depends on the features' length:
it gets them at the length that ours brings them to. The two take turns inside one process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.analysis.measures.predictors import log_me
from tests.bench.common import arguments, in_turn, machine

SIZES = {"small": (2000, 256, 10), "middle": (8000, 768, 50), "large": (20_000, 2048, 100)}


def authors_log_me(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The published algorithm on [N, D] and labels 0..C-1; its determinant is over k directions."""
    f = features.astype(np.float64)
    n, d = f.shape
    if n > d:
        _, sigma, vh = np.linalg.svd(f.T @ f)
        s = np.sqrt(sigma)
        rank = int((s > 1e-10).sum())
        u, s = (f @ vh.T)[:, :rank] / s[:rank], s[:rank]
    else:
        u, s, _ = np.linalg.svd(f, full_matrices=False)
    sigma = s**2
    evidences = []
    for label in range(int(labels.max()) + 1):
        y = (labels == label).astype(np.float64)
        along = (u.T @ y) ** 2
        outside = (y**2).sum() - along.sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * along / (t + sigma) ** 2).sum()
            residual = (along / (1 + sigma / t) ** 2).sum() + outside
            alpha = gamma / (m2 + 1e-5)
            beta = (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta)
        evidence -= np.log(alpha + beta * sigma).sum() / 2
        evidence -= beta / 2 * residual + alpha / 2 * m2 + n / 2 * np.log(2 * np.pi)
        evidences.append(evidence / n)
    return float(np.mean(evidences))


def of_one_length(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N, D] features whose squared singular values that are not zero are N on the mean."""
    f = features.astype(np.float64)
    mean = (f**2).sum() / len(f) / np.linalg.matrix_rank(f)
    return np.asarray(f / np.sqrt(mean))


def problem(n: int, d: int, n_classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """ReLU-shaped float32 features [n, d] with a decaying spectrum, and labels [n]."""
    random = np.random.RandomState(0)
    labels = random.randint(n_classes, size=n)
    scale = np.arange(1, d + 1) ** -0.5
    mixing = random.randn(d, d).astype(np.float32) / np.float32(d**0.5)
    centres = random.randn(n_classes, d)
    latent = ((centres[labels] + random.randn(n, d)) * scale).astype(np.float32)
    return np.maximum(latent @ mixing + np.float32(0.05), 0), labels


def main() -> None:
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="large")
    args = parser.parse_args()
    n, d, n_classes = SIZES[args.size]
    features, labels = problem(n, d, n_classes)
    scaled = of_one_length(features)
    ours, theirs = log_me(features, labels), authors_log_me(scaled, labels)
    assert abs(ours - theirs) <= 1e-8 * abs(theirs), f"{ours} and {theirs} disagree"
    seconds = in_turn(
        {
            "log_me": lambda: log_me(features, labels),
            "authors' form, plain NumPy": lambda: authors_log_me(scaled, labels),
        },
        args.rounds,
    )
    threads = max(pool["num_threads"] for pool in threadpool_info())
    print(f"\nLogME of {n} x {d} float32 features, {n_classes} classes, {threads} BLAS thread(s)\n")
    print("| implementation | median s | x ours | LogME |")
    print("|---|---|---|---|")
    for name, value in zip(seconds, (ours, theirs), strict=True):
        ratio = seconds[name] / seconds["log_me"]
        print(f"| {name} | {seconds[name]:.3f} | {ratio:.2f} | {value:.12f} |")
    print(f"\nMedian of {args.rounds}, taking turns. Load {os.getloadavg()[0]:.1f} at the end.")
    print(f"Machine: {machine('numpy', 'scipy')}")


if __name__ == "__main__":
    main()
