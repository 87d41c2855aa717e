#!/bin/bash
# `make bench`: what ranking and proofs cost inside the process, then gateway, nginx and HAProxy side by side over the
# same upstream. BENCH_SECONDS (2) a run, BENCH_ROUNDS (3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash deploy/deps.sh --bench
build/bench/bench_rank
build/bench/bench_networks
build/bench/bench_verify
exec .venv/bin/python tests/bench/compare.py
