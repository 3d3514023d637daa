#!/usr/bin/env bash
# Run the toy world's pipeline with several seeds, and print each metric's mean and range:
#   bash scripts/seeds.sh [SEED ...]      default: 0 1 2
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/toy_settings.sh"

[[ " $* " != *" --help "* ]] || { usage && exit; }
outputs=()
[ $# -gt 0 ] || set -- 0 1 2
for seed in "$@"; do
    bash "$REPOSITORY/scripts/quickstart.sh" --seed "$seed" || fail "the run with seed $seed failed, see above"
    outputs+=("$(toy_output "$seed")")
done
python "$REPOSITORY/scripts/results_table.py" --mean "${outputs[@]}"
