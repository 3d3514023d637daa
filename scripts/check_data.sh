#!/usr/bin/env bash
# Check data sets and say what to do about each fault: bash scripts/check_data.sh [DATASET SPLIT_BY [flags]]
# Without arguments: all data sets in data/. Exit status: 0 nothing is wrong, 1 something is, 2 nothing was checked.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[[ " $* " != *" --help "* ]] || { usage && python "$REPOSITORY/scripts/check_data.py" --help && exit; }

check() {
    echo "== $1 ($2)"
    local root=./data
    [ "$1" = referit ] && root=./data/referit
    python "$REPOSITORY/scripts/check_data.py" --dataset "$1" --splitBy "$2" --refer_data_root "$root" "${@:3}"
}

if [ $# -gt 0 ]; then
    check "$1" "${2:--}" "${@:3}"
    exit
fi

status=2
for file in data/refer/*/{refs,grefs}*.{p,json} data/phrasecut/refer_val.json data/referit/annotations/train.pickle; do
    [ -e "$file" ] || continue
    [ "$status" = 2 ] && status=0
    case $file in
        *.pickle) check referit - || status=1 ;;
        data/phrasecut/*) check phrasecut - || status=1 ;;
        *) split_by=${file##*refs(} && check "$(basename "$(dirname "$file")")" "${split_by%).*}" || status=1 ;;
    esac
done
[ "$status" = 2 ] && echo "check_data.sh: data/ holds no data set; see data/README.md" >&2
exit "$status"
