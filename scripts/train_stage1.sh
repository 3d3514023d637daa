#!/usr/bin/env bash
# Train stage 1 with the published settings, by default on RefCOCOg (umd):
#   bash scripts/train_stage1.sh [DATASET SPLIT_BY] [flags of train_stage1.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/stages.sh"

read_data_set "$@"
train_stage 1 --negative_samples 3 --output "./weights/$name" --board_folder ./output/board
