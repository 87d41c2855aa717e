#!/bin/bash
# run_units.sh BINARY...: runs each unit test, a line each with its time; shows a test's output only when it fails.
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for test in "$@"; do
    start=$(date +%s%N)
    if timeout "${UNIT_TIMEOUT:-120}" "$test" >"$log" 2>&1; then
        verdict=ok passed=$((passed + 1))
    else
        verdict=FAILED failed=$((failed + 1))
    fi
    printf '  %-6s %-28s %6d ms\n' "$verdict" "$(basename "$test")" $((($(date +%s%N) - start) / 1000000))
    [ "$verdict" = ok ] || tail -n 60 "$log"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
