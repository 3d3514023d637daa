#!/usr/bin/env bash
# Every part beside the straightforward way of computing it: bash scripts/benchmark.sh [--json FILE] [--only NAME ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # beside other work, waiting threads would steal its cores
exec python -m benchmarks "$@"
