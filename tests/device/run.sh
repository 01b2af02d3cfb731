#!/usr/bin/env bash
# The check of a GPU from a bare checkout: tests/device/README.md. Arguments are those of check.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec python -m tests.device.check "$@"
