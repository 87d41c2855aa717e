#!/bin/bash
# run.sh BUILD: every attack of this folder against the verifier, two programs at a time. ATTACK_TRIALS: sessions for a
# rate that must be counted (200); ATTACK_ADMISSIONS: honest admissions with real times (1000).
set -uo pipefail
build=${1:-build}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
failed=0

run() {
    local name start
    name=$(basename "$1") start=$(date +%s%N)
    "$1" >"$work/$name" 2>&1
    local status=$?
    printf '%s: %s in %d ms\n' "$name" "$([ $status = 0 ] && echo ok || echo FAILED)" \
        $((($(date +%s%N) - start) / 1000000)) >>"$work/$name"
    return $status
}

(run "$build/attacks/attack_memory" && run "$build/attacks/attack_chain") &
first=$!
run "$build/attacks/attack_rates" && run "$build/attacks/attack_frames" || failed=1
wait $first || failed=1
run "$build/attacks/attack_honest" || failed=1 # alone, for it loads both CPUs itself
for name in memory chain rates frames honest; do
    cat "$work/attack_$name" || failed=1
done
[ $failed = 0 ]
