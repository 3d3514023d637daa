#!/usr/bin/env bash
# Fetch the published checkpoints into weights/:
#   bash scripts/download_weights.sh [NAME ...]      refcocog_umd: both stages; stage2_refcocog_umd: one; default: all
# The first time, each file's checksum is noted in weights/SHA256SUMS; a copy of that makes other machines compare.
# An interrupted download resumes when the same command is run again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/fetch.sh"

trained_on=(referit refcoco refcoco+ refcocog_google refcocog_umd)
releases=https://github.com/fawnliu/storage/releases/download
declare -A release=([stage1]=v1.0.4 [stage2]=v1.0.1)

[[ " $* " != *" --help "* ]] || { usage && exit; }
files=()
for name in "${@:-"${trained_on[@]}"}"; do
    stages="stage1 stage2" data=$name
    [[ $name != stage[12]_* ]] || { stages=${name%%_*} data=${name#*_}; }
    [[ " ${trained_on[*]} " = *" $data "* ]] ||
        fail "unknown checkpoint '$name'; known are ${trained_on[*]}, and each with stage1_ or stage2_ before it"
    for stage in $stages; do files+=("${stage}_$data.pth"); done
done
for file in "${files[@]}"; do
    fetch "$releases/${release[${file%%_*}]}/$file" "weights/$file" weights/SHA256SUMS
done
