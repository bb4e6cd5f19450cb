"""The run of `tilewright train char_gpt.toml` in torch: the same text, first weights, batches, optimiser and schedule.

usage: char_gpt_torch.py char_gpt.toml FIRST LOG [--threads N] [--until STEP] [--compile]
FIRST is the checkpoint that `tilewright train char_gpt.toml --until 0` writes; LOG gets a line of JSON a step.
needs torch and safetensors
"""
import argparse, json, math, pathlib, time, tomllib
import torch, torch.nn.functional as F
from safetensors.torch import load_file

args = argparse.ArgumentParser()
for name in ["config", "first", "log"]: args.add_argument(name)
for name in ["--threads", "--until"]: args.add_argument(name, type=int)
args.add_argument("--compile", action="store_true")
args = args.parse_args()
if args.threads: torch.set_num_threads(args.threads)
config = tomllib.load(open(args.config, "rb"))
model, train, schedule, save = config["model"], config["train"], config["schedule"], config["save"]
LAYERS, WIDTH, HEADS, CONTEXT = model["layers"], model["width"], model["heads"], model["context"]
STEPS, BATCH, SEED = train["steps"], train["batch"], config["seed"]

# A token a character, in the order of the characters. The end of the text is for validation.
text = "".join((pathlib.Path(args.config).parent / p).read_text() for p in config["data"]["text"])
number = {c: i for i, c in enumerate(sorted(set(text)))}
tokens = torch.tensor([number[c] for c in text])
at = int((1.0 - config["data"]["validation"]) * len(tokens))
tokens, tested = tokens[:at], tokens[at:]


# The order of the windows: see `Batches` in src/train/data.rs.
def mix(x):
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


def permuted(x, count, key):
    bits = -(-(max(count, 2) - 1).bit_length() // 2)
    while True:
        left, right = x >> bits, x & ((1 << bits) - 1)
        for round in range(4):
            left, right = right, left ^ (mix(right ^ mix((key + round) % 2**64)) & ((1 << bits) - 1))
        x = left << bits | right
        if x < count: return x


def start(place):
    windows = (len(tokens) - 1) // CONTEXT - 1
    epoch, place = divmod(place, windows)
    return permuted(place, windows, (mix(SEED) + epoch) % 2**64) * CONTEXT + mix(SEED ^ mix(epoch)) % CONTEXT


def windows(data, starts):
    rows = torch.stack([data[s:s + CONTEXT + 1] for s in starts])
    return rows[:, :-1], rows[:, 1:]


def validation():
    count = (len(tested) - 1) // CONTEXT
    n = min(count // BATCH, 16) * BATCH
    starts = [i * count // n * CONTEXT for i in range(n)]
    with torch.no_grad():
        return sum(float(loss(*windows(tested, starts[i:i + BATCH]))) for i in range(0, n, BATCH)) / (n // BATCH)


first = load_file(args.first)
w = {name[2:]: t.clone().requires_grad_(True) for name, t in first.items() if name.startswith("w.")}


def loss(ids, targets):
    norm = lambda x, n: F.layer_norm(x, (WIDTH,), w[n + ".weight"], w[n + ".bias"], 1e-5)
    linear = lambda x, n: F.linear(x, w[n + ".weight"].t(), w[n + ".bias"])
    x = F.embedding(ids, w["wte.weight"]) + w["wpe.weight"][:CONTEXT]
    for i in range(LAYERS):
        h = f"h.{i}."
        qkv = linear(norm(x, h + "ln_1"), h + "attn.c_attn").split(WIDTH, -1)
        q, k, v = (t.view(*ids.shape, HEADS, -1).transpose(1, 2) for t in qkv)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(a, h + "attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, h + "ln_2"), h + "mlp.c_fc"), approximate="tanh"), h + "mlp.c_proj")
    logits = F.linear(norm(x, "ln_f"), w["wte.weight"])
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rate(step):
    peak, least, warmup = schedule["peak"], schedule["least"], schedule["warmup"]
    if step < warmup: return peak * (step + 1) / warmup
    return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


decay = [t for t in w.values() if t.dim() > 1], config["optimiser"]["decay"]
groups = [{"params": p, "weight_decay": d} for p, d in [decay, ([t for t in w.values() if t.dim() == 1], 0.0)]]
optimiser = torch.optim.AdamW(groups, betas=config["optimiser"]["betas"], eps=1e-8, fused=True)
if args.compile: loss = torch.compile(loss, dynamic=False)
log = open(args.log, "w")
for step in range(args.until or STEPS):
    begin = time.perf_counter()
    value = loss(*windows(tokens, [start(step * BATCH + i) for i in range(BATCH)]))
    optimiser.zero_grad()
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(w.values(), train.get("clip", 1.0))
    for group in optimiser.param_groups: group["lr"] = rate(step)
    optimiser.step()
    line = {"step": step + 1, "loss": value.item(), "norm": norm.item(), "rate": rate(step)}
    line["tokens_per_s"] = BATCH * CONTEXT / (time.perf_counter() - begin)
    if (step + 1) % save.get("validation", 100) == 0 or step + 1 == STEPS: line["validation"] = validation()
    print(json.dumps(line), file=log, flush=True)
