#!/usr/bin/env bash
# Fetch data sets into data/ and unpack them:
#   bash scripts/download_data.sh [NAME ...]      coco (13 GB of photos), refcoco, refcoco+, refcocog, referit; default: these
# and on demand coco-val (6 GB of photos, which Ref-ZOM needs besides).
# An interrupted download resumes when the same command is run again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/fetch.sh"

# Over plain HTTP because the certificate of images.cocodataset.org does not cover that name; the checksum makes up for it.
coco=http://images.cocodataset.org/zips
declare -A md5=([train2014]=0da8c0bd3d6becc4dcb32757491aca88 [val2014]=a3d79f5ed8d289b7a7554ce06a5782b3)
# The annotations' own host is gone; these are the Internet Archive's snapshots of it.
archive=https://web.archive.org/web
unc=bvisionweb1.cs.unc.edu/licheng/referit/data
declare -A snapshot=([refcoco]=20220413011718 [refcoco+]=20220413011656 [refcocog]=20220413012904)
referit_annotations=https://github.com/fawnliu/storage/releases/download/v1.0.2/referit_annotations.zip
referit_photos=$archive/20220515000000/http://$unc/images/saiapr_tc-12.zip

holds() { # FOLDER PATTERN ...: whether FOLDER holds a file of each name
    local pattern
    for pattern in "${@:2}"; do [ -n "$(find "$1/" -name "$pattern" -print -quit 2>/dev/null)" ] || return 1; done
}

place() { # URL ZIP FOLDER PATTERN ...: fetch an archive and move its files of these names, wherever they lie, to FOLDER
    local url=$1 zip=$2 folder=$3 patterns=("${@:4}") pattern
    # The archive is removed only when everything in it is in place.
    [ -e "$zip" ] || ! holds "$folder" "${patterns[@]}" || { echo "$folder is already there" && return; }
    fetch "$url" "$zip"
    local sum=${md5[$(basename "$url" .zip)]:-}
    if [ "$sum" ] && ! echo "$sum  $zip" | md5sum --status -c -; then
        rm "$zip"
        fail "$zip had another checksum than $sum and is removed; run the same command again"
    fi
    command -v unzip >/dev/null || fail "unzip is missing; install it"
    rm -rf "$zip.unpacked"
    # unzip itself drops any "../" and "/" before a name.
    unzip -q "$zip" -d "$zip.unpacked" </dev/null || fail "$zip is damaged; remove it and run the same command again"
    mkdir -p "$folder"
    for pattern in "${patterns[@]}"; do # SAIAPR draws its segments into pictures of the photos' names: not those
        find "$zip.unpacked" -type f -name "$pattern" -not -path '*/segmented_images/*' -not -path '*/__MACOSX/*' \
            -exec mv -t "$folder" {} +
        holds "$folder" "$pattern" || fail "$zip holds no $pattern; see data/README.md for what is needed"
    done
    rm -rf "$zip" "$zip.unpacked"
    echo "$folder is in place"
}

[[ " $* " != *" --help "* ]] || { usage && exit; }
known=(coco refcoco refcoco+ refcocog referit)
for name in "$@"; do
    [[ " ${known[*]} coco-val " = *" $name "* ]] || fail "unknown data set '$name'; known are ${known[*]} coco-val"
done
for name in "${@:-"${known[@]}"}"; do
    case $name in
        coco) place "$coco/train2014.zip" data/train2014.zip data/train2014 '*.jpg' ;;
        coco-val) place "$coco/val2014.zip" data/val2014.zip data/val2014 '*.jpg' ;;
        referit)
            place "$referit_annotations" data/referit_annotations.zip data/referit/annotations train.pickle test.pickle
            place "$referit_photos" data/saiapr_tc-12.zip data/referit/images '*.jpg'
            ;;
        *)
            url=$archive/${snapshot[$name]}/https://$unc/$name.zip
            place "$url" "data/$name.zip" "data/refer/$name" 'refs(*).p' instances.json
            ;;
    esac
done
