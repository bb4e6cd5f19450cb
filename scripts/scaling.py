"""Graphs of many sizes through `tilewright compile`: seconds, peak memory, and hashes of what is printed. See scaling.sh."""

import argparse
import hashlib
import os
import random
import resource
import subprocess
import tempfile

TILEWRIGHT = os.path.join(os.path.dirname(__file__), "..", "target", "release", "tilewright")


class Graph:
    """A function in the text format, op by op; values know their shapes."""

    def __init__(self, name="main"):
        self.name, self.params, self.lines, self.shapes = name, [], [], {}

    def param(self, name, shape, weight=False):
        self.params.append(f"{'weight ' if weight else ''}%{name}: f32{shape}")
        self.shapes["%" + name] = shape
        return "%" + name

    def op(self, text, shape):
        value = f"%{len(self.lines)}"
        self.lines.append(f"  {value} = {text}")
        self.shapes[value] = shape
        return value

    def map(self, op, *args):
        return self.op(f"{op} {', '.join(args)}", self.shapes[args[0]])

    def broadcast(self, value, shape, dims):
        return self.op(f"broadcast {value} shape={shape} dims={dims}", shape)

    def number(self, value, shape):
        return self.broadcast(self.op(f"constant f32[] = {value}", []), shape, [])

    def reduce(self, op, value, axis):
        shape = self.shapes[value]
        return self.op(f"{op} {value} axes=[{axis}]", shape[:axis] + shape[axis + 1 :])

    def text(self, results):
        types = ", ".join(f"f32{self.shapes[r]}" for r in results)
        types = types if len(results) == 1 else f"({types})"
        body = "\n".join(self.lines)
        return f"func @{self.name}({', '.join(self.params)}) -> {types} {{\n{body}\n  return {', '.join(results)}\n}}\n"


def norm(g, x, prefix):
    rows, width = g.shapes[x]
    mean = g.map("div", g.reduce("sum", x, 1), g.number(float(width), [rows]))
    centred = g.map("sub", x, g.broadcast(mean, [rows, width], [0]))
    variance = g.map("div", g.reduce("sum", g.map("mul", centred, centred), 1), g.number(float(width), [rows]))
    scale = g.map("rsqrt", g.map("add", variance, g.number(1e-5, [rows])))
    y = g.map("mul", centred, g.broadcast(scale, [rows, width], [0]))
    y = g.map("mul", y, g.broadcast(g.param(prefix + "w", [width], True), [rows, width], [1]))
    return g.map("add", y, g.broadcast(g.param(prefix + "b", [width], True), [rows, width], [1]))


def linear(g, x, name, wide):
    rows, width = g.shapes[x]
    y = g.op(f"dot {x}, {g.param(name, [width, wide], True)} contract=[1]x[0]", [rows, wide])
    return g.map("add", y, g.broadcast(g.param(name + "_b", [wide], True), [rows, wide], [1]))


def attention(g, q, k, v, heads):
    rows, width = g.shapes[q]
    depth, scores = width // heads, [heads, rows, rows]

    def split(x):
        x = g.op(f"reshape {x} shape={[rows, heads, depth]}", [rows, heads, depth])
        return g.op(f"transpose {x} perm=[1, 0, 2]", [heads, rows, depth])

    s = g.op(f"dot {split(q)}, {split(k)} batch=[0]x[0] contract=[2]x[2]", scores)
    s = g.map("mul", s, g.number(depth**-0.5, scores))
    i, j = (g.op(f"iota axis={a} shape={scores} dtype=i64", scores) for a in (1, 2))
    s = g.op(f"select {g.map('le', j, i)}, {s}, {g.number('-inf', scores)}", scores)
    e = g.map("exp", g.map("sub", s, g.broadcast(g.reduce("reduce_max", s, 2), scores, [0, 1])))
    p = g.map("div", e, g.broadcast(g.reduce("sum", e, 2), scores, [0, 1]))
    o = g.op(f"dot {p}, {split(v)} batch=[0]x[0] contract=[2]x[1]", [heads, rows, depth])
    o = g.op(f"transpose {o} perm=[1, 0, 2]", [rows, heads, depth])
    return g.op(f"reshape {o} shape={[rows, width]}", [rows, width])


def gelu(g, x):
    shape = g.shapes[x]
    cube = g.map("mul", g.map("mul", x, g.map("mul", x, x)), g.number(0.044715, shape))
    t = g.map("tanh", g.map("mul", g.map("add", x, cube), g.number(0.7978845608, shape)))
    return g.map("mul", g.map("mul", x, g.number(0.5, shape)), g.map("add", t, g.number(1.0, shape)))


def layer(g, x, prefix, heads):
    width = g.shapes[x][1]
    h = norm(g, x, prefix + "n1")
    q, k, v = (linear(g, h, prefix + n, width) for n in "qkv")
    x = g.map("add", x, linear(g, attention(g, q, k, v, heads), prefix + "o", width))
    h = gelu(g, linear(g, norm(g, x, prefix + "n2"), prefix + "f", 4 * width))
    return g.map("add", x, linear(g, h, prefix + "p", width))


def unrolled(layers, rows=128, width=768, heads=12):
    g = Graph()
    x = g.param("x", [rows, width])
    for i in range(layers):
        x = layer(g, x, f"l{i}", heads)
    return g.text([x])


def called(layers, rows=128, width=768, heads=12):
    block, main = Graph("block"), Graph()
    shape = [rows, width]
    block_text = block.text([layer(block, block.param("x", shape), "l", heads)])
    x = main.param("x", shape)
    for i in range(layers):
        args = [x]
        for param in block.params[1:]:
            name = param.removeprefix("weight %").split(":")[0]
            args.append(main.param(f"{name}{i}", block.shapes["%" + name], True))
        x = main.op(f"call {', '.join(args)} function=@block", shape)
    return block_text + main.text([x])


def scattered(count, seed=1):
    """Random elementwise ops and sums over 1,024 numbers; the last values are results."""
    draw, g = random.Random(seed), Graph()
    values = [g.param(f"x{i}", [32, 32]) for i in range(4)]
    while len(g.lines) < count:
        a, b = draw.choice(values[-40:]), draw.choice(values)
        if draw.random() < 0.1:
            values.append(g.broadcast(g.reduce("sum", a, 1), [32, 32], [0]))
        elif draw.random() < 0.3:
            values.append(g.map(draw.choice(["tanh", "exp", "abs", "neg"]), a))
        else:
            values.append(g.map(draw.choice(["add", "sub", "mul", "max"]), a, b))
    return g.text(values[-8:])


def compile_once(path, threads, stage="kernel", target="cpu"):
    """Seconds of the processor, peak MB, and the hash of what is printed."""
    command = [TILEWRIGHT, "compile", path, "--emit", stage, "--target", target, "--threads", str(threads)]
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
        _, errors = child.communicate()
        out.seek(0)
        digest = hashlib.sha256(out.read()).hexdigest()[:12]
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{errors.decode()}")
    warned = "level-limit" in errors.decode()
    return digest, warned


def measured(path, **how):
    """The same with what the process took; a fork of its own, since the system keeps the peak of all children."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        digest, warned = compile_once(path, 1, **how)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(write, f"{usage.ru_utime + usage.ru_stime} {usage.ru_maxrss / 1024} {digest} {int(warned)}".encode())
        os._exit(0)
    os.close(write)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("a compilation failed")
    seconds, megabytes, digest, warned = os.read(read, 200).decode().split()
    os.close(read)
    return float(seconds), float(megabytes), digest, warned == "1"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    graphs = [("GPT-2 block", unrolled(1))]
    graphs += [(f"{n} layers, unrolled", unrolled(n)) for n in (8, 12, 24, 32)]
    graphs += [(f"{n} layers, calls of one block", called(n)) for n in (12, 96)]
    graphs += [(f"{n} layers, unrolled", unrolled(n)) for n in (96,)]
    graphs += [("random, 1,000 operations", scattered(1000)), ("random, 10,000 operations", scattered(10000))]
    print("| graph | operations | CPU: ms, peak MB | H100: ms, peak MB | all at level 2 |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (name, text) in enumerate(graphs):
            path = os.path.join(folder, f"{number}.tw")
            with open(path, "w") as out:
                out.write(text)
            paths.append(path)
            cells = []
            for target in ("cpu", "sm_90a"):
                # The least of three, as others use the machine.
                times = [measured(path, target=target) for _ in range(3)]
                cells.append(f"{1000 * min(t[0] for t in times):.0f}, {max(t[1] for t in times):.0f}")
                level = "no" if times[0][3] else "yes"
            print(f"| {name} | {text.count(' = ')} | {cells[0]} | {cells[1]} | {level} |", flush=True)
        for name, path in [(graphs[i][0], paths[i]) for i in (0, 2, len(graphs) - 2)]:
            for stage in ("kernel", "optimized"):
                hashes = {compile_once(path, 1 + run % 4, stage)[0] for run in range(args.runs)}
                print(f"{name}, {stage}: {len(hashes)} output in {args.runs} runs of 1 to 4 threads: {' '.join(hashes)}", flush=True)
                if len(hashes) != 1:
                    raise SystemExit("outputs differ")


if __name__ == "__main__":
    main()
