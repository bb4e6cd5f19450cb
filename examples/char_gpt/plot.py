"""Draws the losses of a run over its steps; of two runs, and how far they are apart.

usage: plot.py OURS.jsonl [TORCH.jsonl] OUT.svg
"""
import json, math, sys

WIDTH, LEFT, RIGHT, TOP, LOSS, BELOW, APART = 720, 56, 16, 16, 320, 48, 90
ours, torch = ([json.loads(l) for l in open(p)] for p in [sys.argv[1], sys.argv[-2]])
points = lambda lines, key: {l["step"]: l[key] for l in lines if l.get(key) is not None}
a, b = points(ours, "loss"), points(torch, "loss")
both = len(sys.argv) > 3
steps = sorted(a.keys() & b.keys())
last = steps[-1]
b = {s: v for s, v in b.items() if s <= last}
x = lambda step: LEFT + step / last * (WIDTH - LEFT - RIGHT)
low, high = math.floor(2 * min(a.values())) / 2, math.ceil(2 * max(a.values())) / 2
y = lambda loss: TOP + (high - loss) / (high - low) * LOSS
far = {s: max(abs(a[s] - b[s]), 1e-8) for s in steps}
least, most = (f(math.log10(v) for v in far.values()) for f in (min, max))
least, most = math.floor(least), math.ceil(most)
bottom = TOP + LOSS + BELOW
z = lambda d: bottom + (most - math.log10(d)) / (most - least) * APART
height = bottom + APART + BELOW if both else bottom
out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
       f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
text = lambda px, py, s, anchor="middle", colour="black": out.append(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" fill="{colour}">{s}</text>')
rule = lambda py: out.append(f'<path d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')


def line(values, at, colour, width):
    path = " ".join(f"{x(s):.1f},{at(v):.1f}" for s, v in sorted(values.items()))
    out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')


for i in range(round((high - low) / 0.5) + 1):
    rule(y(low + i / 2))
    text(LEFT - 8, y(low + i / 2) + 4, f"{low + i / 2:.1f}", "end")
for i in range(6):
    text(x(last * i / 5), TOP + LOSS + 18, round(last * i / 5))
text((LEFT + WIDTH - RIGHT) / 2, TOP + LOSS + 34, "step (loss)")
if both:
    for power in range(least, most + 1):
        rule(z(10 ** power))
        text(LEFT - 8, z(10 ** power) + 4, f"1e{power}", "end")
    for i in range(6):
        text(x(last * i / 5), bottom + APART + 18, round(last * i / 5))
    text((LEFT + WIDTH - RIGHT) / 2, bottom + APART + 34, "step (distance of the losses)")
    line(far, z, "#5a8f3c", 1.5)
    line(b, y, "#d08030", 3)
line(a, y, "#1f5f99", 1.2)
named = [("#d08030", "torch (dots: validation)", torch, 5)] * both + [("#1f5f99", "tilewright (dots: validation)", ours, 3)]
for i, (colour, name, lines, size) in enumerate(named):
    dots = sorted(points(lines, "validation").items())
    out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="{size}" fill="{colour}"/>' for s, v in dots if s <= last]
    out.append(f'<rect x="{WIDTH - 240}" y="{TOP + 12 + 20 * i}" width="14" height="4" fill="{colour}"/>')
    text(WIDTH - 220, TOP + 18 + 20 * i, name, "start")
open(sys.argv[-1], "w").write("\n".join(out) + "\n</svg>\n")
