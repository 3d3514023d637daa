#!/usr/bin/env bash
# Time every part beside the straightforward way of computing it: bash scripts/benchmark.sh [--json FILE] [--only NAME ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
threads_wait_passively

run_module benchmarks "$@"
