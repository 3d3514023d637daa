# Sourced by download_weights.sh and download_data.sh.

fetch() { # URL FILE [SUMS]: fetch FILE unless it is there; an interrupted download resumes from FILE.part
    # SUMS is a file of SHA-256 checksums: FILE is compared with its line there, or gets one.
    local url=$1 file=$2 sums=${3:-} name=${2##*/} size have sum known
    if [ -e "$file" ]; then
        echo "$file is already there"
        return
    fi
    get() { curl -fL --proto-redir '=https' --retry 5 -C - -o "$file.part" "$url"; }
    command -v curl >/dev/null || fail "curl is missing; install it"
    # The size in bytes, where the last answer after redirections gives it; if none comes, curl itself will say why below.
    size=$(curl -fsIL "$url" | tr -d '\r' |
        awk '/^HTTP/ { n = "" } tolower($1) == "content-length:" { n = $2 } END { if (n > 0) print n }') || true
    echo "$file: fetching ${size:+$((size / 1000000)) MB }from $url"
    mkdir -p "$(dirname "$file")"
    have=$(stat -c %s "$file.part" 2>/dev/null || echo 0)
    [ "$have" -le "${size:-$have}" ] || rm "$file.part" # of another file
    if [ "$have" != "$size" ]; then
        get || { [ $? = 33 ] && rm "$file.part" && get; } || # 33: the server cannot resume
            fail "$file could not be fetched, see the message above; run the same command again, it resumes"
    fi
    if [ -n "$sums" ]; then
        sum=$(sha256sum <"$file.part") sum=${sum%% *}
        known=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1; exit }' "$sums" 2>/dev/null) || true
        if [ "${known:-$sum}" != "$sum" ]; then
            rm "$file.part"
            fail "the fetched $name differs from the one in $sums and is removed; try again, or remove its line there"
        fi
        [ -n "$known" ] || echo "$sum  $name" >>"$sums"
    fi
    mv "$file.part" "$file"
}
