#!/bin/bash
# run.sh BUILD: every attack of this folder against the verifier. ATTACK_TRIALS: sessions for a rate (200).
set -uo pipefail
build=${1:-build}
failed=0
for program in "$build"/attacks/attack_*; do
    [ -x "$program" ] && [[ $program != *.[od] ]] || continue
    start=$(date +%s%N)
    "$program" 2>&1
    status=$?
    [ "$status" = 0 ] || failed=$((failed + 1))
    printf '%s: %s in %d ms\n' "$(basename "$program")" "$([ "$status" = 0 ] && echo ok || echo FAILED)" \
        $((($(date +%s%N) - start) / 1000000))
done
[ "$failed" = 0 ]
