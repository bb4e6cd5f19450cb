"""Loss curves of torch in f32, under bf16 autocast, and under f16 autocast with a GradScaler, of one small GPT-2 on the same first
weights and batches, for tests/train/mixed.rs. How far rounding takes a run from f32 differs tenfold between series of batches, so
there are some: each begins `first_batch` batches later, and goes round.

usage: autocast.py kjv.txt autocast [layers width heads context batch steps series]
writes autocast.json and autocast.safetensors (`kjv.txt` as examples/char_gpt/fetch-text.sh makes it)
"""
import json, sys, torch, torch.nn.functional as F
from safetensors.torch import save_file
torch.set_num_threads(1)
text, out = open(sys.argv[1]).read(), sys.argv[2]
LAYERS, WIDTH, HEADS, CONTEXT, BATCH, STEPS, SERIES = (int(a) for a in (sys.argv[3:10] or "2 32 2 32 4 40 8".split()))
LR, WARMUP, BETAS, DECAY, CLIP, FIRST, INTERVAL = 4e-3, 8, (0.9, 0.95), 0.1, 1.0, 1024.0, 10
chars = sorted(set(text))
tokens = torch.tensor([chars.index(c) for c in text[:400_000]])
gen = torch.Generator().manual_seed(5)
normal = lambda *s, d=0.02: torch.randn(s, generator=gen) * d
small = 0.02 / (2 * LAYERS) ** 0.5
init = {"wte": normal(len(chars), WIDTH), "wpe": normal(CONTEXT, WIDTH), "lnf.w": torch.ones(WIDTH), "lnf.b": torch.zeros(WIDTH)}
for i in range(LAYERS):
    for name, a, b, d in [("qkv", WIDTH, 3 * WIDTH, 0.02), ("proj", WIDTH, WIDTH, small), ("fc", WIDTH, 4 * WIDTH, 0.02), ("out", 4 * WIDTH, WIDTH, small)]:
        init |= {f"h.{i}.{name}.w": normal(a, b, d=d), f"h.{i}.{name}.b": torch.zeros(b)}
    for name in ["ln1", "ln2"]:
        init |= {f"h.{i}.{name}.w": torch.ones(WIDTH), f"h.{i}.{name}.b": torch.zeros(WIDTH)}
starts = torch.randint(len(tokens) - CONTEXT - 1, (STEPS, BATCH), generator=gen)
x = torch.stack([torch.stack([tokens[s:s + CONTEXT] for s in row]) for row in starts])
y = torch.stack([torch.stack([tokens[s + 1:s + 1 + CONTEXT] for s in row]) for row in starts])

def logits(w, ids):
    norm = lambda h, n: F.layer_norm(h, (WIDTH,), w[n + ".w"], w[n + ".b"], 1e-5)
    linear = lambda h, n: F.linear(h, w[n + ".w"].t(), w[n + ".b"])
    h = F.embedding(ids, w["wte"]) + w["wpe"]
    for i in range(LAYERS):
        p = f"h.{i}."
        q, k, v = (t.view(BATCH, CONTEXT, HEADS, -1).transpose(1, 2) for t in linear(norm(h, p + "ln1"), p + "qkv").split(WIDTH, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(BATCH, CONTEXT, WIDTH)
        h = h + linear(a, p + "proj")
        h = h + linear(F.gelu(linear(norm(h, p + "ln2"), p + "fc"), approximate="tanh"), p + "out")
    return F.linear(norm(h, "lnf"), w["wte"])

def train(dtype, first_batch):
    w = {n: t.clone().requires_grad_(True) for n, t in init.items()}
    groups = [{"params": [t for t in w.values() if t.dim() >= 2], "weight_decay": DECAY}, {"params": [t for t in w.values() if t.dim() < 2], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8)
    scaler = torch.amp.GradScaler("cpu", init_scale=FIRST, growth_interval=INTERVAL, enabled=dtype == torch.float16)
    losses, scales = [], []
    for s in range(STEPS):
        for g in opt.param_groups: g["lr"] = LR * min(1.0, (s + 1) / WARMUP)
        opt.zero_grad()
        at = (first_batch + s) % STEPS
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(logits(w, x[at]).flatten(0, 1), y[at].flatten())
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(w.values(), CLIP)
        scaler.step(opt); scaler.update()
        losses.append(float(loss.detach()))
    return losses, scales

dtypes = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
series = []
for first_batch in range(0, STEPS, -(-STEPS // SERIES)):
    curves = {name: train(dtype, first_batch) for name, dtype in dtypes.items()}
    series.append(dict(first_batch=first_batch, loss={n: c[0] for n, c in curves.items()}, scale=curves["f16"][1]))
sizes = dict(layers=LAYERS, width=WIDTH, heads=HEADS, context=CONTEXT, batch=BATCH, steps=STEPS, vocabulary=len(chars))
rest = dict(peak=LR, warmup=WARMUP, betas=BETAS, decay=DECAY, clip=CLIP, first=FIRST, interval=INTERVAL)
json.dump({**sizes, **rest, "series": series}, open(out + ".json", "w"))
save_file({"x": x, "y": y, **{"init." + n: t.contiguous() for n, t in init.items()}}, out + ".safetensors")
