#!/usr/bin/env bash
# Examine data sets and say what to do about each fault: bash scripts/check_data.sh [DATASET SPLIT_BY [flags]]
# Without a data set all that are in data/ are examined. Exit status: 0 nothing is wrong, 1 something is, 2 not examined.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

check() {
    echo "== $1 ($2)"
    local root=./data
    [ "$1" = referit ] && root=./data/referit
    python validate.py --check_data --refer_data_root "$root" --dataset "$1" --splitBy "$2" "${@:3}"
}

if [ $# -gt 0 ]; then
    check "$1" "${2:--}" "${@:3}"
    exit
fi

worst=2 # nothing examined
for file in data/refer/*/refs*.p data/referit/annotations/train.pickle; do
    [ -e "$file" ] || continue
    name=$(basename "$(dirname "$file")") by=${file##*refs(}
    [ "$name" = annotations ] && name=referit by=-.
    [ "$worst" = 2 ] && worst=0
    check "$name" "${by%%[).]*}" || worst=1
done
[ "$worst" = 2 ] && echo "check_data.sh: data/ holds no data set; data/README.md shows what goes where" >&2
exit "$worst"
