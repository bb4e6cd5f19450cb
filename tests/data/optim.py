"""Expected weights for tests/train/optim.rs.  usage: optim.py > optim.json

Six steps of torch's optimisers in f64 on `mean((tanh(x w + b) - y)^2)`; Muon follows KellerJordan/Muon in f64, as torch's runs in bf16.
"""
import json, math, torch
torch.set_num_threads(1)
gen = torch.Generator().manual_seed(7)
r = lambda *s: torch.randn(s, generator=gen, dtype=torch.float64)
x, y, w0, b0 = r(6, 4), r(6, 3), r(4, 3), r(3)
STEPS = 6
class Muon(torch.optim.Optimizer):
    def __init__(self, ps, lr, momentum=0.95, nesterov=True, steps=5, wd=0.0):
        super().__init__(ps, dict(lr=lr, momentum=momentum, nesterov=nesterov, steps=steps, wd=wd))
    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            for p in g["params"]:
                s = self.state[p]
                buf = s.setdefault("b", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - g["momentum"])
                u = p.grad.lerp(buf, g["momentum"]) if g["nesterov"] else buf
                tall = u.size(0) > u.size(1)
                X = u.T if tall else u
                X = X / (X.norm() + 1e-7)
                for _ in range(g["steps"]):
                    A = X @ X.T
                    X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
                X = (X.T if tall else X) * max(1, p.size(1) / p.size(0)) ** 0.5  # stored [in, out]
                p.mul_(1 - g["lr"] * g["wd"])
                p.add_(X, alpha=-g["lr"])
def run(make, clip=None, sched=lambda s: 1.0):
    w, b = w0.clone().requires_grad_(True), b0.clone().requires_grad_(True)
    opts = make(w, b)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    losses, norms = [], []
    for s in range(STEPS):
        for o, l in zip(opts, base):
            for g, lr in zip(o.param_groups, l): g["lr"] = lr * sched(s)
            o.zero_grad()
        loss = ((torch.tanh(x @ w + b) - y) ** 2).mean(); loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([w, b], clip if clip else 1e9)))
        if clip and norms[-1] > clip:  # torch divides by norm + 1e-6; the formula is clip / norm
            for p in (w, b): p.grad.mul_((norms[-1] + 1e-6) / norms[-1])
        for o in opts: o.step()
        losses.append(float(loss.detach()))
    return {"w": w.detach().flatten().tolist(), "b": b.detach().tolist(), "loss": losses, "norm": norms}
T = torch.optim
groups = lambda w, b, wd: [{"params": [w], "weight_decay": wd}, {"params": [b], "weight_decay": 0.0}]
out = {"x": x.flatten().tolist(), "y": y.flatten().tolist(), "w0": w0.flatten().tolist(), "b0": b0.tolist(), "runs": {
    "sgd": run(lambda w, b: [T.SGD([w, b], lr=0.1)]),
    "momentum": run(lambda w, b: [T.SGD(groups(w, b, 0.05), lr=0.1, momentum=0.9)]),
    "nesterov": run(lambda w, b: [T.SGD(groups(w, b, 0.05), lr=0.1, momentum=0.9, nesterov=True)]),
    "adam": run(lambda w, b: [T.Adam(groups(w, b, 0.05), lr=0.05, betas=(0.9, 0.99), eps=1e-8)]),
    "adamw": run(lambda w, b: [T.AdamW(groups(w, b, 0.1), lr=0.05, betas=(0.9, 0.99), eps=1e-8)]),
    "adamw_clipped": run(lambda w, b: [T.AdamW(groups(w, b, 0.1), lr=0.05, betas=(0.9, 0.99), eps=1e-8)], clip=0.2),
    "muon": run(lambda w, b: [Muon([w], lr=0.05, wd=0.1), T.AdamW([b], lr=0.01, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)]),
}}
def sched_table():
    w, steps, peak, least, decay = 4, 20, 0.01, 0.001, 6
    p = torch.nn.Parameter(torch.zeros(1)); t = {}
    warm = lambda s: (s + 1) / w
    cos = [peak * warm(s) if s < w else least + 0.5 * (peak - least) * (1 + math.cos(math.pi * (s - w) / (steps - w))) for s in range(steps)]
    lin = [peak * warm(s) if s < w else peak + (least - peak) * (s - w) / (steps - w) for s in range(steps)]
    wsd = [peak * warm(s) if s < w else (peak if s < steps - decay else peak + (least - peak) * (s - (steps - decay)) / decay) for s in range(steps)]
    con = [peak * warm(s) if s < w else peak for s in range(steps)]
    # torch's own cosine and linear schedules give the same after the warm-up
    o = T.SGD([p], lr=peak); sc = T.lr_scheduler.CosineAnnealingLR(o, steps - w, least); got = []
    for _ in range(steps - w): got.append(o.param_groups[0]["lr"]); o.step(); sc.step()
    assert max(abs(a - b) for a, b in zip(got, cos[w:])) < 1e-12
    o = T.SGD([p], lr=peak); sc = T.lr_scheduler.LinearLR(o, 1.0, least / peak, steps - w); got = []
    for _ in range(steps - w): got.append(o.param_groups[0]["lr"]); o.step(); sc.step()
    assert max(abs(a - b) for a, b in zip(got, lin[w:])) < 1e-12
    return {"constant": con, "cosine": cos, "linear": lin, "wsd": wsd}
out["schedules"] = sched_table()
print(json.dumps(out))
