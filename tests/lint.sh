#!/bin/bash
# Checks that need no running program: a second compiler, the formatter, the layers, the scripts, the names in files.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
passed=0 failed=0 skipped=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mapfile -t sources < <(git ls-files '*.c')
mapfile -t c_files < <(git ls-files '*.c' '*.h')
mapfile -t scripts < <(git ls-files '*.sh' '.ci/run')

# check NAME COMMAND...: passes when the command says nothing and exits 0.
check() {
    local name=$1 status=0
    shift
    "$@" >"$work/out" 2>&1 || status=$?
    if [ $status = 0 ] && [ ! -s "$work/out" ]; then
        printf 'ok    %s\n' "$name"
        passed=$((passed + 1))
    else
        printf 'FAIL  %s\n' "$name"
        head -60 "$work/out" | sed 's/^/      /'
        failed=$((failed + 1))
    fi
}

skip() {
    printf 'skip  %s: %s\n' "$1" "$2"
    skipped=$((skipped + 1))
}

compile_with_clang() {
    local flags
    flags="-std=c17 -D_GNU_SOURCE -I. -Wall -Wextra -Wshadow -Wconversion -Werror $(pkg-config --cflags libnghttp2 libcurl jansson hiredis openssl yaml-0.1 expat)"
    # shellcheck disable=SC2086
    printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 8 "$1" $flags -fsyntax-only
}

# Layers of the design; an include may only point to what the right-hand side lists (and to its own folder).
includes_point_down() {
    local folder allowed found bad=0
    while read -r folder allowed; do
        found=$(git ls-files "$folder/*.c" "$folder/*.h" | xargs -r grep -HnE '^#include "(core|pricing|probes|scheduler|adapters|gateway|tests)/' |
            grep -vE "#include \"($allowed)/")
        if [ -n "$found" ]; then
            printf '%s\n' "$found"
            bad=1
        fi
    done <<'LAYERS'
core core
pricing core|pricing
probes core|probes
scheduler core|pricing|probes|scheduler
adapters core|scheduler|adapters|probes|pricing
gateway core|pricing|probes|scheduler|adapters|gateway
LAYERS
    return $bad
}

no_registry_hosts() {
    ! git grep -nIE '(pypi|npmjs|pythonhosted|debian|ubuntu|crates|maven|golang)\.(org|io|com|dev)' -- ':!LICENSE'
}

scripts_parse() {
    local script bad=0
    for script in "${scripts[@]}"; do bash -n "$script" || bad=1; done
    return $bad
}

python_compiles() {
    git ls-files '*.py' | xargs -r python3 -c 'import ast, sys
for name in sys.argv[1:]: ast.parse(open(name, encoding="utf-8").read(), name)'
}

# Redis's own float arithmetic would round money.
no_floats_in_lua() {
    ! git grep -nE 'INCRBYFLOAT' -- '*.lua'
}

for clang in clang-14 clang; do command -v $clang >/dev/null && break; done
if command -v "$clang" >/dev/null; then
    check "$clang compiles every file without a warning" compile_with_clang "$clang"
else
    skip "clang" "not installed"
fi
for formatter in clang-format-14 clang-format; do command -v $formatter >/dev/null && break; done
if [ "$formatter" = clang-format-14 ]; then
    check "clang-format-14 has nothing to change" clang-format-14 --dry-run -Werror "${c_files[@]}"
else
    skip "formatter" "clang-format-14 is not installed, and other versions disagree with it"
fi
check "no include points up" includes_point_down
check "shell scripts parse" scripts_parse
check "Python files parse" python_compiles
check "no Lua script lets Redis add floats" no_floats_in_lua
check "no file names a registry's host" no_registry_hosts
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed = 0 ]
