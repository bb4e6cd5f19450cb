//! Kernels as trees.

use tilewright_ir::kernel::expr::{Access, BinaryOp, Expr, IndexDim, TileReduce};
use tilewright_ir::kernel::tree::{Buffer, Kernel, KernelAttr, Level, LoadMods, Space, Stmt};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, SymbolDecl};

fn n(name: &str) -> Expr {
    Expr::name(name)
}
fn int(v: i64) -> Expr {
    Expr::Int(v)
}
fn real(v: f64) -> Expr {
    Expr::Real(v)
}
fn one(op: ScalarOp, x: Expr) -> Expr {
    Expr::scalar(op, vec![x])
}
fn two(op: ScalarOp, x: Expr, y: Expr) -> Expr {
    Expr::scalar(op, vec![x, y])
}
fn add(x: Expr, y: Expr) -> Expr {
    two(ScalarOp::Add {}, x, y)
}
fn sub(x: Expr, y: Expr) -> Expr {
    two(ScalarOp::Sub {}, x, y)
}
fn mul(x: Expr, y: Expr) -> Expr {
    two(ScalarOp::Mul {}, x, y)
}
fn div(x: Expr, y: Expr) -> Expr {
    two(ScalarOp::Div {}, x, y)
}
fn max(x: Expr, y: Expr) -> Expr {
    two(ScalarOp::Max {}, x, y)
}
fn exp(x: Expr) -> Expr {
    one(ScalarOp::Exp {}, x)
}
fn ceil(x: Expr, y: Expr) -> Expr {
    Expr::Binary(BinaryOp::Ceil, Box::new(x), Box::new(y))
}
fn reduce(kind: TileReduce, x: Expr, axis: &str) -> Expr {
    Expr::Reduce(kind, Box::new(x), axis.into())
}
fn sum(x: Expr, axis: &str) -> Expr {
    reduce(TileReduce::Sum, x, axis)
}
fn buffer(space: Space, name: &str, dtype: DType, axes: &[(&str, Expr)]) -> Buffer {
    let axes = axes.iter().map(|(a, e)| ((*a).into(), e.clone())).collect();
    Buffer { space, name: name.into(), dtype, axes, attrs: vec![] }
}
fn reg(name: &str, axes: &[(&str, Expr)]) -> Stmt {
    Stmt::Buffer(buffer(Space::Reg, name, DType::F32, axes))
}
fn at(e: Expr) -> IndexDim {
    IndexDim::Point { at: e, open: false }
}
fn range(start: Expr, size: Expr) -> IndexDim {
    IndexDim::Range { start, size, open: false, upto: None }
}
fn open(start: Expr, size: Expr) -> IndexDim {
    IndexDim::Range { start, size, open: true, upto: None }
}
fn load(name: &str, buffer: &str, dims: Vec<IndexDim>, pad: Option<Expr>) -> Stmt {
    let mods = LoadMods { pad, ..LoadMods::default() };
    Stmt::Load { name: name.into(), access: Access::new(buffer, dims), mods }
}
fn store(buffer: &str, dims: Vec<IndexDim>, value: Expr) -> Stmt {
    Stmt::Store { access: Access::new(buffer, dims), mods: LoadMods::default(), value, add: false }
}
fn lets(name: &str, value: Expr) -> Stmt {
    Stmt::Let { names: vec![name.into()], value }
}
fn set(name: &str, value: Expr) -> Stmt {
    Stmt::Set { name: name.into(), value }
}
fn par(vars: &[(&str, Expr)], body: Vec<Stmt>) -> Stmt {
    Stmt::Par { vars: vars.iter().map(|(v, e)| ((*v).into(), e.clone())).collect(), level: Level::Grid, body }
}
fn repeat(var: &str, high: Expr, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var: var.into(), low: int(0), high, step: None, unroll: false, body }
}
fn kernel(
    name: &str,
    threads: i64,
    constants: &[(&str, i64)],
    symbols: &[(&str, i64)],
    arguments: Vec<Buffer>,
    body: Vec<Stmt>,
) -> Kernel {
    Kernel {
        name: name.into(),
        target: "sm_80".into(),
        attrs: vec![KernelAttr { name: "threads".into(), args: vec![int(threads)] }],
        constants: constants.iter().map(|(c, v)| ((*c).into(), *v)).collect(),
        symbols: symbols.iter().map(|(s, high)| SymbolDecl::new(s, 1, *high)).collect(),
        arguments,
        views: vec![],
        body,
        places: vec![],
    }
}

pub fn swiglu() -> Kernel {
    let tile = || vec![open(mul(n("t"), n("TILE")), n("TILE"))];
    let args = [(Space::In, "gate"), (Space::In, "up"), (Space::Out, "y")];
    kernel(
        "swiglu",
        256,
        &[("TILE", 1024)],
        &[("n", 1 << 28)],
        args.iter().map(|(s, b)| buffer(*s, b, DType::Bf16, &[("e", n("n"))])).collect(),
        vec![par(
            &[("t", ceil(n("n"), n("TILE")))],
            vec![
                load("g", "gate", tile(), Some(int(0))),
                load("u", "up", tile(), Some(int(0))),
                lets("gf", Expr::cast(DType::F32, n("g"))),
                lets("uf", Expr::cast(DType::F32, n("u"))),
                lets("s", mul(div(n("gf"), add(int(1), exp(one(ScalarOp::Neg {}, n("gf"))))), n("uf"))),
                store("y", tile(), Expr::cast(DType::Bf16, n("s"))),
            ],
        )],
    )
}

pub fn layer_norm() -> Kernel {
    let rows = |s, b| buffer(s, b, DType::F32, &[("r", n("rows")), ("c", n("D"))]);
    let row = |b| buffer(Space::In, b, DType::F32, &[("c", n("D"))]);
    let scale = 1.0 / 768.0;
    kernel(
        "layer_norm",
        128,
        &[("D", 768)],
        &[("rows", 1 << 20)],
        vec![rows(Space::In, "x"), row("gamma"), row("beta"), rows(Space::Out, "y")],
        vec![par(
            &[("row", n("rows"))],
            vec![
                load("v", "x", vec![at(n("row")), IndexDim::All], None),
                load("g", "gamma", vec![IndexDim::All], None),
                load("b", "beta", vec![IndexDim::All], None),
                lets("mean", mul(sum(n("v"), "c"), real(scale))),
                lets("d", sub(n("v"), n("mean"))),
                lets("variance", mul(sum(mul(n("d"), n("d")), "c"), real(scale))),
                lets("rstd", one(ScalarOp::Rsqrt {}, add(n("variance"), real(1e-5)))),
                store("y", vec![at(n("row")), IndexDim::All], add(mul(mul(n("d"), n("rstd")), n("g")), n("b"))),
            ],
        )],
    )
}

pub fn softmax() -> Kernel {
    let rows = |s, b| buffer(s, b, DType::F32, &[("r", n("rows")), ("c", n("columns"))]);
    let row = || vec![at(n("row")), open(int(0), n("C"))];
    kernel(
        "softmax",
        128,
        &[("C", 2000)],
        &[("rows", 1 << 20), ("columns", 2000)],
        vec![rows(Space::In, "x"), rows(Space::Out, "y")],
        vec![par(
            &[("row", n("rows"))],
            vec![
                load("v", "x", row(), Some(real(f64::NEG_INFINITY))),
                lets("e", exp(sub(n("v"), reduce(TileReduce::Max, n("v"), "c")))),
                store("y", row(), div(n("e"), sum(n("e"), "c"))),
            ],
        )],
    )
}

/// Row softmax beside the sums of other rows, backwards: two grids of one launch.
pub fn beside() -> Kernel {
    let rows = |s, b, r| buffer(s, b, DType::F32, &[("r", n(r)), ("c", n("C"))]);
    let row = || vec![at(n("row")), IndexDim::All];
    kernel(
        "beside",
        64,
        &[("C", 100)],
        &[("first", 1 << 20), ("second", 1 << 20)],
        vec![
            rows(Space::In, "x", "first"),
            rows(Space::Out, "y", "first"),
            rows(Space::In, "z", "second"),
            buffer(Space::Out, "total", DType::F32, &[("r", n("second"))]),
        ],
        vec![
            par(
                &[("row", n("first"))],
                vec![
                    load("v", "x", row(), None),
                    lets("e", exp(sub(n("v"), reduce(TileReduce::Max, n("v"), "c")))),
                    store("y", row(), div(n("e"), sum(n("e"), "c"))),
                ],
            ),
            par(
                &[("row", n("second"))],
                vec![
                    load("v", "z", row(), None),
                    lets("s", sum(n("v"), "c")),
                    store("total", vec![at(n("row"))], n("s")),
                ],
            ),
        ],
    )
}

pub fn matmul_bias_gelu() -> Kernel {
    let tile = || vec![open(mul(n("mt"), n("BM")), n("BM")), range(mul(n("nt"), n("BN")), n("BN"))];
    let cubic = mul(real(0.044715), mul(mul(n("t"), n("t")), n("t")));
    let inner = one(ScalarOp::Tanh {}, mul(real(0.79788456), add(n("t"), cubic)));
    kernel(
        "matmul_bias_gelu",
        128,
        &[("N", 3072), ("K", 768), ("BM", 64), ("BN", 64)],
        &[("M", 65536)],
        vec![
            buffer(Space::In, "a", DType::F32, &[("m", n("M")), ("k", n("K"))]),
            buffer(Space::In, "w", DType::F32, &[("k", n("K")), ("n", n("N"))]),
            buffer(Space::In, "bias", DType::F32, &[("n", n("N"))]),
            buffer(Space::Out, "y", DType::F32, &[("m", n("M")), ("n", n("N"))]),
        ],
        vec![par(
            &[("mt", ceil(n("M"), n("BM"))), ("nt", div(n("N"), n("BN")))],
            vec![
                reg("acc", &[("m", n("BM")), ("n", n("BN"))]),
                Stmt::Mma {
                    to: Access::whole("acc"),
                    terms: vec![(
                        Access::new("a", vec![open(mul(n("mt"), n("BM")), n("BM")), IndexDim::All]),
                        Access::new("w", vec![IndexDim::All, range(mul(n("nt"), n("BN")), n("BN"))]),
                    )],
                    via: "simt_f32".into(),
                    init: Some(int(1)),
                    on: None,
                },
                load("b", "bias", vec![range(mul(n("nt"), n("BN")), n("BN"))], None),
                lets("t", add(n("acc"), n("b"))),
                store("y", tile(), mul(mul(real(0.5), n("t")), add(int(1), inner))),
            ],
        )],
    )
}

/// One query row a block, keys in blocks of 64, online softmax.
pub fn attention_row() -> Kernel {
    let keys = |b| buffer(Space::In, b, DType::F32, &[("h", n("H")), ("k", n("S")), ("d", n("D"))]);
    let block = || vec![at(n("h")), open(mul(n("j"), n("BN")), n("BN")), IndexDim::All];
    let position = Expr::Iota("k".into(), Box::new(mul(n("j"), n("BN"))), Box::new(n("BN")));
    let visible = two(ScalarOp::Le {}, position, n("q"));
    let infinity = real(f64::NEG_INFINITY);
    let row = || vec![at(n("h")), at(n("q")), IndexDim::All];
    let score = mul(sum(mul(n("qr"), n("kt")), "d"), real(0.125));
    kernel(
        "attention_row",
        128,
        &[("H", 12), ("D", 64), ("BN", 64)],
        &[("S", 4096)],
        vec![
            keys("query"),
            keys("key"),
            keys("value"),
            buffer(Space::Out, "o", DType::F32, &[("h", n("H")), ("q", n("S")), ("d", n("D"))]),
        ],
        vec![par(
            &[("h", n("H")), ("q", n("S"))],
            vec![
                load("qr", "query", row(), None),
                reg("m", &[]),
                reg("l", &[]),
                reg("acc", &[("d", n("D"))]),
                set("m", infinity.clone()),
                set("l", int(0)),
                set("acc", int(0)),
                repeat(
                    "j",
                    ceil(add(n("q"), int(1)), n("BN")),
                    vec![
                        load("kt", "key", block(), Some(int(0))),
                        load("vt", "value", block(), Some(int(0))),
                        lets("x", Expr::scalar(ScalarOp::Select {}, vec![visible, score, infinity])),
                        lets("mn", max(n("m"), reduce(TileReduce::Max, n("x"), "k"))),
                        lets("a", exp(sub(n("m"), n("mn")))),
                        lets("p", exp(sub(n("x"), n("mn")))),
                        set("l", add(mul(n("l"), n("a")), sum(n("p"), "k"))),
                        set("acc", add(mul(n("acc"), n("a")), sum(mul(n("p"), n("vt")), "k"))),
                        set("m", n("mn")),
                    ],
                ),
                store("o", row(), div(n("acc"), n("l"))),
            ],
        )],
    )
}

/// Every scalar op once, on floats and on integers.
pub fn scalar_table() -> Kernel {
    use ScalarOp as S;
    let one_float = vec![
        S::Neg {},
        S::Abs {},
        S::Sign {},
        S::Floor {},
        S::Ceil {},
        S::Round {},
        S::Trunc {},
        S::Sqrt {},
        S::Rsqrt {},
        S::Exp {},
        S::Exp2 {},
        S::Expm1 {},
        S::Log {},
        S::Log2 {},
        S::Log1p {},
        S::Tanh {},
        S::Erf {},
        S::Sin {},
        S::Cos {},
    ];
    let two_float = [S::Add {}, S::Sub {}, S::Mul {}, S::Div {}, S::Rem {}, S::Pow {}, S::Max {}, S::Min {}];
    let two_int = [S::And {}, S::Or {}, S::Xor {}, S::Shl {}, S::Shr {}];
    let mut body = Vec::new();
    for (x, d, ty) in
        [("xf", "f", DType::F32), ("xd", "d", DType::F64), ("xi", "i", DType::I32), ("xl", "l", DType::I64)]
    {
        body.push(load(d, x, vec![IndexDim::All], None));
        let mut value = n(d);
        let ints = ty.is_int();
        let unary =
            one_float.iter().filter(|op| !ints || matches!(op, S::Neg {} | S::Abs {} | S::Sign {} | S::Floor {}));
        for op in unary {
            value = add(value, one(op.clone(), n(d)));
        }
        for op in two_float.iter().chain(two_int.iter().filter(|_| ints)) {
            value = add(value, two(op.clone(), n(d), Expr::cast(ty, int(3))));
        }
        for op in [S::Eq {}, S::Ne {}, S::Lt {}, S::Le {}, S::Gt {}, S::Ge {}] {
            value = add(value, Expr::cast(ty, one(S::Not {}, two(op, n(d), int(1)))));
        }
        value = add(value, Expr::cast(ty, one(S::IsNan {}, n(d))));
        value = add(value, Expr::cast(ty, Expr::cast(DType::I8, n(d))));
        value = add(value, Expr::cast(ty, Expr::cast(DType::F32, n(d))));
        value = add(value, Expr::cast(ty, reduce(TileReduce::Argmax, n(d), "e")));
        body.push(store(&format!("y{d}"), vec![IndexDim::All], value));
    }
    let arguments = [("f", DType::F32), ("d", DType::F64), ("i", DType::I32), ("l", DType::I64)];
    let buffers = arguments.iter().flat_map(|(d, ty)| {
        let axes = [("e", int(96))];
        [buffer(Space::In, &format!("x{d}"), *ty, &axes), buffer(Space::Out, &format!("y{d}"), *ty, &axes)]
    });
    kernel("scalar_table", 64, &[], &[], buffers.collect(), body)
}

/// A row through shared memory, reversed.
pub fn big_shared() -> Kernel {
    let part = |b| Access::new(b, vec![IndexDim::All]);
    let shared = Stmt::Buffer(buffer(Space::Shared, "s", DType::F32, &[("e", n("N"))]));
    let mut k = kernel(
        "big_shared",
        256,
        &[("N", 15 * 1024)],
        &[],
        vec![
            buffer(Space::In, "x", DType::F32, &[("e", n("N"))]),
            buffer(Space::Out, "y", DType::F32, &[("e", n("N"))]),
        ],
        vec![],
    );
    let at = |e: &str| Expr::Iota(e.into(), Box::new(int(0)), Box::new(n("N")));
    k.body = vec![
        shared,
        load("v", "x", vec![IndexDim::All], None),
        Stmt::Store { access: part("s"), mods: LoadMods::default(), value: n("v"), add: false },
        lets("i", sub(sub(n("N"), int(1)), at("e"))),
        Stmt::Load {
            name: "w".into(),
            access: Access::new("s", vec![IndexDim::Gather("i".into())]),
            mods: LoadMods::default(),
        },
        Stmt::Store { access: part("y"), mods: LoadMods::default(), value: n("w"), add: false },
    ];
    k
}

/// The corpus' product of bf16 matrices by matrix instructions, through a pipe: bias and gelu follow in registers.
pub fn gemm_sm80() -> Kernel {
    let text = include_str!("../../../ir/tests/kernels/05_gemm_sm80.kir");
    tilewright_ir::kernel::text::parse_kernel("05", text).unwrap_or_else(|d| panic!("{d}"))
}

/// Casts to 16-bit floats from what f32 does not hold.
pub fn casts() -> Kernel {
    let dtypes = [DType::I32, DType::U32, DType::I64, DType::U64, DType::F64];
    let (mut buffers, mut body) = (Vec::new(), Vec::new());
    for from in dtypes {
        let x = format!("x{from}");
        buffers.push(buffer(Space::In, &x, from, &[("e", int(1000))]));
        body.push(load(from.name(), &x, vec![IndexDim::All], None));
        for to in [DType::F16, DType::Bf16] {
            let y = format!("{to}_of_{from}");
            buffers.push(buffer(Space::Out, &y, to, &[("e", int(1000))]));
            body.push(store(&y, vec![IndexDim::All], Expr::cast(to, n(from.name()))));
        }
    }
    kernel("casts", 64, &[], &[], buffers, body)
}
