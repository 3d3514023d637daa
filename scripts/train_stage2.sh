#!/usr/bin/env bash
# Train stage 2 on pseudo masks with the published settings, by default on RefCOCOg (umd):
#   bash scripts/train_stage2.sh [DATASET SPLIT_BY] [flags of train_stage2.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/stages.sh"

read_data_set "$@"
train_stage 2 --bert_tokenizer clip --pseudo_path "output/$name/ins_seg" --output "./weights/stage2/pseudo_$name"
