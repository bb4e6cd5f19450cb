"""Our benches beside the peers' scripts, in turn; see compare-peers.sh. Ratios are those of one sitting."""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile

SCRIPTS = {"gemm": "gemm.py", "elementwise": "elementwise.py", "attention": "attention.py", "gpt2": "gpt2_forward.py",
           "encoder": "encoder.py", "llm": "llm_decode.py"}
# f32 in every product: the peers that a row may be compared with.
PEERS = {"gemm": "torch,numpy,jax,onnxruntime", "elementwise": "torch,torch.compile,jax", "attention": "torch,torch.compile,jax",
         "gpt2": "torch,torch.compile,jax,onnxruntime", "encoder": "torch,torch.compile,onnxruntime",
         "llm": "llama.cpp,llama.cpp-fa,transformers"}
GEMMS = ["256x256x256", "512x512x512", "1024x1024x1024", "2048x2048x2048", "1x768x3072", "8x768x3072", "128x768x3072",
         "512x768x3072", "512x3072x768", "128x768x50257"]
QUIET = 0.1


def rows_of(command, environment=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        print(f"failed: {' '.join(map(str, command))}\n{done.stderr[-600:]}", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ours(bench, args):
    tool = ["target/release/tilewright", "bench", bench, "--json", "--threads", str(args.threads)]
    if bench == "gemm":
        sizes = [dict(zip("mkn", shape.split("x"))) for shape in GEMMS]
        return [row for s in sizes for row in rows_of([*tool, *(x for k, v in s.items() for x in (f"--{k}", v))])]
    model = {"encoder": args.minilm, "llm": args.gguf}.get(bench)
    return rows_of([*tool, *(["--model", model] if model else [])])


def peers(bench, args):
    command = [sys.executable, SCRIPTS[bench], "--peers", args.peers or PEERS[bench]]
    command += {"encoder": ["--model", os.path.abspath(args.minilm)], "llm": ["--gguf", os.path.abspath(args.gguf)]}.get(bench, [])
    here = os.getcwd()
    os.chdir(args.folder)
    try:
        return rows_of(command, {**os.environ, "THREADS": str(args.threads)})
    finally:
        os.chdir(here)


def svg(table):
    """A bar per shape: the best peer's time over ours; 1 is a draw."""
    height, bars = 22 * len(table) + 40, []
    scale = 420 / max(2.0, *(row["ratio"] for row in table))
    for i, row in enumerate(table):
        y, width = 30 + 22 * i, row["ratio"] * scale
        colour = "#2a7" if row["ratio"] >= 1 else "#c84"
        label = f'{row["bench"]} {row["shape"]}'.replace("&", "&amp;").replace("<", "&lt;")
        bars.append(f'<text x="250" y="{y + 13}" text-anchor="end">{label}</text><rect x="258" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>'
                    f'<text x="{262 + width:.1f}" y="{y + 13}">{row["ratio"]:.2f} ({row["best"]})</text>')
    line = 258 + scale
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{height}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/><text x="10" y="18">time of the best peer / time of Tilewright</text>'
            f'{"".join(bars)}<line x1="{line:.1f}" x2="{line:.1f}" y1="24" y2="{height - 8}" stroke="black" stroke-dasharray="3"/></svg>\n')


def write(path, text):
    """By a temporary name, so that nothing half-written is left."""
    path = pathlib.Path(path)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as f:
        f.write(text)
    os.replace(f.name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--benches", default=",".join(SCRIPTS))
    parser.add_argument("--peers", help="for every bench, instead of those in f32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gguf", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--minilm", default="models/minilm")
    parser.add_argument("--svg", help="write a chart here")
    parser.add_argument("--json", help="write all rows here")
    args = parser.parse_args()
    chosen = args.benches.split(",")
    if unknown := [b for b in chosen if b not in SCRIPTS]:
        parser.error(f"unknown bench {unknown[0]}, expected some of {','.join(SCRIPTS)}")
    rows = []
    for turn in range(args.rounds):
        for bench in chosen:
            print(f"round {turn + 1} of {args.rounds}: {bench}", file=sys.stderr)
            rows += ours(bench, args) + peers(bench, args)
    times, loud = {}, 0
    for row in rows:
        loud += row.get("other_cores", 0) > QUIET
        times.setdefault((row["bench"], row["shape"]), {}).setdefault(row["peer"], []).append(row["median_s"])
    table = []
    for (bench, shape), by_peer in times.items():
        medians = {peer: statistics.median(t) for peer, t in by_peer.items()}
        mine = medians.pop("tilewright", None)
        if mine is None or not medians:
            continue
        best = min(medians, key=medians.get)
        table.append({"bench": bench, "shape": shape, "ours": mine, "best": best, "theirs": medians[best], "ratio": medians[best] / mine})
    print(f"{'bench':<18}{'shape':<26}{'ours ms':>10}{'best ms':>10}{'ratio':>7}  best peer")
    for r in table:
        print(f"{r['bench']:<18}{r['shape']:<26}{r['ours'] * 1e3:>10.3f}{r['theirs'] * 1e3:>10.3f}{r['ratio']:>7.2f}  {r['best']}")
    if loud:
        print(f"{loud} of {len(rows)} rows were measured while others used more than {QUIET} cores")
    if args.json:
        write(args.json, "".join(json.dumps(row) + "\n" for row in rows))
    if args.svg and table:
        write(args.svg, svg(table))


main()
