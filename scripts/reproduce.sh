#!/usr/bin/env bash
# From a fresh machine with a GPU to rows of docs/results.md: fetch a data set, check it, train, evaluate, compare.
#   bash scripts/reproduce.sh DATASET SPLIT_BY [OUTPUT] [--dry] [flags of run_pipeline.sh]
#   bash scripts/reproduce.sh refcoco unc      refcoco+ unc, refcocog umd, refcocog google, referit - too
# OUTPUT (default: output/DATASET_SPLITBY) then holds everything, and results.md the rows. If interrupted, the same
# command resumes. --dry prints the steps, their sizes and an estimate of time and disk, and does nothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[[ " $* " != *" --help "* ]] || { usage && exit; }
call=$(printf '%q ' bash scripts/reproduce.sh "$@") dry="" flags=()
case "${1:-} ${2:-}" in
    "refcoco unc" | "refcoco+ unc") photos=coco size="13.5 GB" splits=val,testA,testB published=stage2_$1 ;;
    "refcocog umd") photos=coco size="13.5 GB" splits=val,test published=stage2_refcocog_umd ;;
    "refcocog google") photos=coco size="13.5 GB" splits=val published=stage2_refcocog_google ;;
    "referit -") photos="" size="photos and annotations" splits=test published=stage2_referit ;;
    *) fail "give refcoco unc, refcoco+ unc, refcocog umd, refcocog google or referit -; for others use run_pipeline.sh" ;;
esac
dataset=$1 split_by=$2 output=output/${1}_$2
output=${output%_-}
shift 2
if [[ $# -gt 0 && $1 != -* ]]; then output=$1 && shift; fi
for word in "$@"; do [ "$word" = --dry ] && dry=yes || flags+=("$word"); done

step() { # WHAT_IT_TAKES COMMAND ...
    printf '%q ' "${@:2}" && echo "  # $1"
    [ -n "$dry" ] || "${@:2}"
}

script() { # WHAT_IT_TAKES SCRIPT ...
    step "$1" bash "$REPOSITORY/scripts/$2" "${@:3}"
}

if [ -n "$dry" ]; then
    echo "Disk: 45 GB at the most, 30 in the end (with COCO's photos). Time: that of the downloads and, on one H100, about"
    echo "1.5 hours in float32, 40 minutes with --common '--amp bf16', estimated from operations (docs/speed.md)."
fi
step "7 GB, 2 minutes" need_environment requirements.txt
script "$size" download_data.sh $photos "$dataset"
script "minutes" check_data.sh "$dataset" "$split_by"
script "0.6 GB" download_weights.sh "$published"
[ -e "$output/published.json" ] || script "minutes; what the published checkpoint gives here" \
    validate_stage2.sh "$dataset" "$split_by" --test_split "$splits" --json "$output/published.json"
script "trainings and their evaluation" run_pipeline.sh "$dataset" "$split_by" "$output" "${flags[@]}"
[ -z "$dry" ] || exit 0
rows=$(python "$REPOSITORY/scripts/results_table.py" --rows "${call% }" "$output")
echo "$rows" | tee "$output/results.md"
echo "These rows are in $output/results.md; docs/results.md says how to add them."
