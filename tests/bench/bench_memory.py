"""Peak memory of encoding 2,000 and 20,000 images, each in a fresh process.

python -m tests.bench.bench_memory
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.common import arguments, machine

SCRIPT = """
import json, resource, sys
from pathlib import Path
from eval.data.load import load_task
from eval.features.encode import encode
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.common.distributed import Workers
cache, data, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
task = load_task("tiny_imagenet", cache, data, limit)
backbone = load(resolve("random:resnet10t", cache, 64))
workers = Workers("cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = encode(backbone, task, cache, workers)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([done.images, before / 1024, after / 1024]))
"""


def main() -> None:
    args = arguments(__doc__).parse_args()
    print(f"resnet10t at 64 px on Tiny-ImageNet; {machine('torch', 'pyarrow')}")
    print("| images | before encoding, MiB | peak, MiB |")
    print("| ---: | ---: | ---: |")
    for limit in (1000, 15000):  # of each split: 2,000 and 20,000 images
        with tempfile.TemporaryDirectory() as cache:
            out = subprocess.run(
                [sys.executable, "-c", SCRIPT, cache, str(args.data), str(limit)],
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
            )
        images, before, after = json.loads(out.stdout.splitlines()[-1])
        print(f"| {images:,} | {before:.0f} | {after:.0f} |")


if __name__ == "__main__":
    main()
