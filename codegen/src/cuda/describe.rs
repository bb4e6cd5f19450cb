//! One line of text a statement, for comments.

use tilewright_ir::kernel::expr::{Access, BinaryOp, Expr, IndexDim, TileReduce};
use tilewright_ir::kernel::tree::{Buffer, Kernel, LoadMods, Stmt};
use tilewright_ir::op::ScalarOp;

/// The comment before a kernel: where it comes from, its launch, its resources.
pub(super) fn head(k: &Kernel, name: &str, threads: i64, shared_bytes: i64) -> String {
    let mut out = format!("// kernel {name} target {} threads({threads})\n", k.target);
    for p in &k.places {
        out += &format!("// from: {}\n", p.to_string().replace(['\n', '\r', '\\'], " "));
    }
    let grid = super::blocks(k, " x ");
    out += &format!("// grid {grid}, block {threads}, shared memory {shared_bytes} bytes");
    for what in ["flops", "bytes"] {
        let found = k.attrs.iter().find(|a| &*a.name == what).and_then(|a| a.args.first());
        out += &found.map_or(String::new(), |e| format!(", {what} {}", expr(e)));
    }
    out + "\n"
}

/// The statement without its body.
pub(super) fn line(s: &Stmt) -> String {
    let text = match s {
        Stmt::Buffer(b) => buffer(b),
        Stmt::Par { vars, level, .. } => {
            let vars: Vec<String> = vars.iter().map(|(v, e)| format!("{v} in {}", expr(e))).collect();
            format!("par {} at {}", vars.join(", "), format!("{level:?}").to_lowercase())
        }
        Stmt::For { var, low, high, step, .. } => {
            let step = step.as_ref().map_or(String::new(), |s| format!(" step {}", expr(s)));
            format!("for {var} in {} .. {}{step}", expr(low), expr(high))
        }
        Stmt::If { condition, .. } => format!("if {}", expr(condition)),
        Stmt::Load { name, access: a, mods } => format!("let {name} = load {}{}", access(a), modifiers(mods)),
        Stmt::Let { names, value } => format!("let {} = {}", names.join(", "), expr(value)),
        Stmt::Set { name, value } => format!("set {name} = {}", expr(value)),
        Stmt::Store { access: a, value, add: false, .. } => format!("store {} = {}", access(a), expr(value)),
        Stmt::Store { access: a, value, .. } => format!("add {} += {}", access(a), expr(value)),
        Stmt::Copy { to, from, mods } => format!("copy {} <- {}{}", access(to), access(from), modifiers(mods)),
        Stmt::Mma { to, terms, via, init, .. } => {
            let terms: Vec<String> = terms.iter().map(|(a, b)| format!("{} * {}", access(a), access(b))).collect();
            let init = init.as_ref().map_or(String::new(), |e| format!(" init {}", expr(e)));
            format!("mma {} += {} via {via}{init}", access(to), terms.join(", "))
        }
        Stmt::Sync(scope, _) => format!("sync {}", format!("{scope:?}").to_lowercase()),
        Stmt::Pipe(p) => {
            let slots: Vec<String> = p.buffers.iter().map(buffer).collect();
            format!("pipe {}[{}] via {} of {}", p.name, p.stages, p.via, slots.join("; "))
        }
        Stmt::Queue(q, via) => format!("queue {q} via {via}"),
        Stmt::Roles(_) => "roles".to_string(),
        Stmt::Pipeline(op, p) => format!("{} {p}", format!("{op:?}").to_lowercase()),
        Stmt::Skip(p, n) => format!("skip {p} {}", expr(n)),
        Stmt::Await(q, n) => format!("await {q} {n}"),
        Stmt::TurnWait(a, e) => format!("turn_wait {} == {}", access(a), expr(e)),
        Stmt::TurnNext(a) => format!("turn_next {}", access(a)),
    };
    // A comment ends with its line, and a backslash would join the next one to it.
    text.replace(['\n', '\r', '\\'], " ")
}

fn buffer(b: &Buffer) -> String {
    let axes: Vec<String> = b.axes.iter().map(|(n, s)| format!("{n}={}", expr(s))).collect();
    format!("{} {}: {}[{}]", format!("{:?}", b.space).to_lowercase(), b.name, b.dtype, axes.join(", "))
}

fn modifiers(m: &LoadMods) -> String {
    m.pad.as_ref().map_or(String::new(), |p| format!(" pad {}", expr(p)))
}

fn access(a: &Access) -> String {
    let name = a.field.as_ref().map_or_else(|| a.buffer.to_string(), |f| format!("{}.{f}", a.buffer));
    let Some(dims) = &a.dims else { return name };
    let mark = |open: bool| if open { "?" } else { "" };
    let dims: Vec<String> = dims
        .iter()
        .map(|d| match d {
            IndexDim::All => ":".to_string(),
            IndexDim::Checked { at } => format!("{}!", expr(at)),
            IndexDim::Point { at, open } => format!("{}{}", expr(at), mark(*open)),
            IndexDim::Range { start, size, open, upto } => {
                let upto = upto.as_ref().map_or(String::new(), |e| format!(" upto {}", expr(e)));
                format!("{} +{} {}{upto}", expr(start), if *open { "?" } else { ":" }, expr(size))
            }
            IndexDim::Gather(t) => t.to_string(),
        })
        .collect();
    format!("{name}[{}]", dims.join(", "))
}

pub(super) fn expr(e: &Expr) -> String {
    super::value::bare(&nested(e)).to_string()
}

fn nested(e: &Expr) -> String {
    match e {
        Expr::Int(n) => n.to_string(),
        Expr::Real(x) => format!("{x}"),
        Expr::Name(n) => n.to_string(),
        Expr::Scalar(op, args) => {
            let sign = match op {
                ScalarOp::Add {} => "+",
                ScalarOp::Sub {} => "-",
                ScalarOp::Mul {} => "*",
                ScalarOp::Div {} => "/",
                ScalarOp::Lt {} => "<",
                ScalarOp::Le {} => "<=",
                ScalarOp::Eq {} => "==",
                _ => "",
            };
            match args.as_slice() {
                [a, b] if !sign.is_empty() => format!("({} {sign} {})", nested(a), nested(b)),
                args => {
                    let args: Vec<String> = args.iter().map(expr).collect();
                    let name = match op {
                        ScalarOp::Cast { to } => to.name().to_string(),
                        _ => format!("{op:?}").to_lowercase(),
                    };
                    format!("{name}({})", args.join(", "))
                }
            }
        }
        Expr::Binary(op, a, b) => {
            let name = match op {
                BinaryOp::Ceil => "ceil",
                BinaryOp::Floor => "floor",
                BinaryOp::Mod => "mod",
            };
            format!("{name}({}, {})", expr(a), expr(b))
        }
        Expr::Reduce(kind, a, axis) => {
            let name = match kind {
                TileReduce::Sum => "sum",
                TileReduce::Prod => "prod",
                TileReduce::Max => "max_of",
                TileReduce::Min => "min_of",
                TileReduce::Argmax => "argmax_of",
                TileReduce::Argmin => "argmin_of",
            };
            format!("{name}({}, {axis})", expr(a))
        }
        Expr::Iota(axis, start, size) => format!("iota({axis}, {}, {})", expr(start), expr(size)),
        Expr::Order(args, kind) => {
            let args: Vec<String> = args.iter().map(expr).collect();
            format!("order({}, {kind})", args.join(", "))
        }
    }
}
