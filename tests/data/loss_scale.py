"""Expected numbers for tests/train/scale.rs.  usage: loss_scale.py > loss_scale.json

torch.amp.GradScaler over 14 steps of AdamW on `mean((tanh(x w + b) * f - y)^2)` in f64, where f is 1, or at some steps so large
that gradients overflow f32 in which the scaler's numbers are; growth 2, backoff 0.5, interval 3.
"""
import json, torch
torch.set_num_threads(1)
gen = torch.Generator().manual_seed(11)
r = lambda *s: torch.randn(s, generator=gen, dtype=torch.float64)
x, y, w0, b0 = r(6, 4), r(6, 3), r(4, 3), r(3)
FACTORS = [1, 1, 1, 1, 1e308, 1e308, 1, 1, 1, 1, 1e308, 1, 1, 1]
w, b = w0.clone().requires_grad_(True), b0.clone().requires_grad_(True)
groups = [{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}]
opt = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.99), eps=1e-8)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=3)
out = {"x": x.flatten().tolist(), "y": y.flatten().tolist(), "w0": w0.flatten().tolist(), "b0": b0.tolist(),
       "factors": FACTORS, "scale": [], "good": [], "w": [], "b": [], "m": [], "updates": []}
for f in FACTORS:
    opt.zero_grad()
    loss = ((torch.tanh(x @ w + b) * f - y) ** 2).mean()
    out["scale"].append(scaler.get_scale())
    scaler.scale(loss).backward()
    scaler.step(opt)
    scaler.update()
    state = opt.state.get(w, {})
    out["good"].append(scaler._get_growth_tracker())
    out["w"].append(w.detach().flatten().tolist())
    out["b"].append(b.detach().tolist())
    out["m"].append(state["exp_avg"].flatten().tolist() if state else [0.0] * 12)
    out["updates"].append(int(state["step"]) if state else 0)
out["last"] = scaler.get_scale()
print(json.dumps(out))
