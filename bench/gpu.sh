#!/usr/bin/env bash
# Everything that needs a CUDA device, with nothing installed but torch, transformers and scikit-learn:
# parity first, then times. Results go to bench/results/ (and to $OUT where that is set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=.:kernels
if python3 -c "import pytest, hypothesis"; then
    python3 -m pytest -q -m gpu tests/test_gpu.py
else
    echo "no pytest here: the parity tests of tests/test_gpu.py are left out"
fi
python3 bench/selection.py --device cuda
[ -z "${OUT:-}" ] || cp bench/results/*cuda*.json "$OUT"/
