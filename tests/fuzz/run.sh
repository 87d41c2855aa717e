#!/bin/bash
# run.sh [NAME...]: builds the fuzz targets (all, or those named, e.g. json_scan) into build-fuzz/ and runs each for
# FUZZ_SECONDS, or for FUZZ_RUNS inputs of a fixed seed (the same every time: what `make test` does). What they find
# worth keeping stays in build-fuzz/corpus, inputs that fail in build-fuzz/found.
set -o pipefail
cd "$(dirname "$0")/../.." || exit 1
cc=${FUZZ_CC:-clang-14}
if [ -n "${FUZZ_RUNS:-}" ]; then
    bound=("-runs=$FUZZ_RUNS" -seed=1)
else
    bound=("-max_total_time=${FUZZ_SECONDS:-20}")
fi
command -v "$cc" >/dev/null || { echo "no $cc here: fuzzing is left out"; exit 0; }
san=address,undefined
archives=()
for folder in gateway adapters scheduler probes pricing core; do
    { compgen -G "$folder/*.c" || compgen -G "$folder/*/*.c"; } >/dev/null && archives+=("build-fuzz/lib$folder.a")
done
make -s BUILD=build-fuzz CC="$cc" WARN=-w OPT='-O1 -g' SAN="-fsanitize=fuzzer-no-link,$san -fno-sanitize-recover=all" \
    "${archives[@]}" || { echo "0 passed, 1 failed"; exit 1; }
mkdir -p build-fuzz/fuzz build-fuzz/found
mhd="-Wl,--wrap=recv,--wrap=epoll_ctl,--wrap=epoll_wait -l:libmicrohttpd.a -lgnutls -lpthread" # as in the Makefile
libraries=$(pkg-config --libs libnghttp2 libcurl jansson hiredis openssl yaml-0.1 expat)
targets=("$@")
[ $# -gt 0 ] || for source in tests/fuzz/fuzz_*.c; do name=${source##*/fuzz_} && targets+=("${name%.c}"); done
passed=0 failed=0
for name in "${targets[@]}"; do
    program=build-fuzz/fuzz/fuzz_$name log=build-fuzz/fuzz/$name.log
    mkdir -p "build-fuzz/corpus/$name"
    # shellcheck disable=SC2086
    if "$cc" -std=c17 -D_GNU_SOURCE -I. -Wall -Wextra -Werror -O1 -g -fsanitize=fuzzer,$san -fno-sanitize-recover=all \
        "tests/fuzz/fuzz_$name.c" "${archives[@]}" $mhd $libraries -lm -o "$program" \
        >"$log" 2>&1 &&
        "$program" "${bound[@]}" -timeout=10 -max_len=2048 -rss_limit_mb=2048 -print_final_stats=1 \
            -dict=tests/fuzz/words.dict -artifact_prefix="build-fuzz/found/$name-" "build-fuzz/corpus/$name" \
            >>"$log" 2>&1; then
        passed=$((passed + 1))
        printf '  ok     %-20s %s runs\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        failed=$((failed + 1))
        printf '  FAILED %s\n' "$name"
        tail -n 40 "$log"
    fi
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
