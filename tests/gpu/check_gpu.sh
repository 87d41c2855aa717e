#!/bin/bash
# check_gpu.sh: what only a machine with a GPU can show: kernels as nvcc compiles them against the CPU by every route,
# under compute-sanitizer, whole admissions with their times, and rows for the catalogue. Logs lie in $OUT (build/gpu).
# COUNT: admissions (100). GPU_CHECK: options of the large check (--full). PREBUILT=1: its programs were built elsewhere.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-build/gpu}
COUNT=${COUNT:-100}
GPU_CHECK=${GPU_CHECK---full}
ADMISSION_MS=3000 SPOT_MS=300
failed=0

nvidia-smi -L >/dev/null 2>&1 || { echo "check-gpu: no GPU here (nvidia-smi finds none)"; exit 1; }
mkdir -p "$OUT"
[ -n "${PREBUILT:-}" ] || make -s build/sluice-probe build/admit build/tests/kernels_on_gpu || exit 1
build/sluice-probe claims --backend cuda || {
    echo "check-gpu: the GPU cannot be used: no driver, or no nvcc when this was built (deploy/deps.sh --cuda)"
    exit 1
}

# step NAME COMMAND...: runs it, keeps its output, says how it ended.
step() {
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$OUT/$name.log" 2>&1; then
        printf '  ok     %-24s %4d s\n' "$name" $((SECONDS - start))
    else
        printf '  FAILED %-24s %4d s  (%s)\n' "$name" $((SECONDS - start)) "$OUT/$name.log"
        tail -n 15 "$OUT/$name.log"
        failed=1
    fi
}

step kernels build/tests/kernels_on_gpu
step check build/sluice-probe check --backend cuda $GPU_CHECK
for route in mma_s8 cublaslt_s8 dp4a; do
    step "check_$route" env SLUICE_CUDA_ROUTE=$route build/sluice-probe check --backend cuda $GPU_CHECK
    grep -q "^  chain .* $route " "$OUT/check_$route.log" || echo "         no product went by $route: not for this GPU, or not installed"
done
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        step "sanitizer_$tool" compute-sanitizer --tool $tool --error-exitcode 9 build/sluice-probe check --backend cuda --gpu 0
    done
else
    echo "  left out: compute-sanitizer is not installed"
fi
step bench build/sluice-probe bench --backend cuda --full
cat "$OUT/bench.log"
step bench_json build/sluice-probe bench --backend cuda --json
step admissions build/admit cuda "$COUNT"
cat "$OUT/admissions.log"
# bar PURPOSE MS: every session of that purpose passed within the time.
bar() {
    local max
    max=$(sed -n "s/^{\"purpose\": \"$1\".*\"ms_max\": \([0-9]*\).*/\1/p" "$OUT/admissions.log")
    if [ -n "$max" ] && [ "$max" -lt "$2" ]; then
        printf '  ok     %s: at most %d ms, bar %d\n' "$1" "$max" "$2"
    else
        printf '  FAILED %s: %s ms, bar %d\n' "$1" "${max:-no}" "$2"
        failed=1
    fi
}
bar admission $ADMISSION_MS
bar spot $SPOT_MS
step row build/sluice-probe bench --backend cuda --row
echo "For the catalogue's file:"
cat "$OUT/row.log"
[ $failed = 0 ] && echo "check-gpu: all passed" || echo "check-gpu: something failed"
exit $failed
