#!/usr/bin/env bash
# Everything that needs a CUDA device, with nothing installed but torch, transformers, sentence-transformers and
# scikit-learn: parity first, then times. Results go to bench/results/, and after each step to $OUT where that is set.
#
#   bench/gpu.sh                     all steps but svm and selection, whose peers take their time on the CPU
#   bench/gpu.sh parity kernels      some of them
#
# A step that fails does not stop the others; the failed ones are named at the end, and the exit status is 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=.:kernels PYTHONUNBUFFERED=1
unset TRITON_INTERPRET

parity() {
    python3 -c "import pytest" || { echo "no pytest here: the parity tests are left out"; return 0; }
    timeout 200 python3 -m pytest -q -p no:cacheprovider --continue-on-collection-errors -m gpu tests/test_gpu.py tests/test_stages.py \
        tests/kernels/test_gpu_kernels.py tests/selectors/test_{base,kmeans,svm,mlp,knn_bins}.py \
        tests/training/test_{smo,estimate,mlp}.py
}
kernels() { timeout 110 python3 bench/kernels.py --device cuda; }
selection() { timeout 90 python3 bench/selection.py --device cuda; }
knn() { timeout 200 python3 bench/knn.py --device cuda; }
end_to_end() { timeout 400 python3 bench/end_to_end.py --device cuda; }
svm() { timeout 200 python3 bench/svm.py --device cuda --repeats 1 --widths 4; }
determinism() { timeout 120 python3 bench/determinism.py --device cuda; }

all=(parity kernels end_to_end knn determinism svm selection)
[ $# -gt 0 ] || set -- "${all[@]:0:5}"
failed=()
for step in "$@"; do
    case " ${all[*]} " in *" $step "*) ;; *) echo "bench/gpu.sh: expected steps out of ${all[*]}, got $step" >&2; exit 2 ;; esac
    printf '\n== %s\n' "$step"
    start=$SECONDS
    "$step" || failed+=("$step")
    echo "($step: $((SECONDS - start)) s)"
    [ -z "${OUT:-}" ] || cp bench/results/*-cuda.json "$OUT"/ 2> /dev/null
done
printf '\n== results\n'
python3 bench/report.py --table cuda || failed+=(report)
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
