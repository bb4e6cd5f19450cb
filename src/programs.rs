//! Programs without machine code: steps in order, kernels on the kernel interpreter. Floats are f64 and never rounded, so what
//! comes out is what the schedule means.

use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_codegen::cpu::clif::eval;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::interp_kernel::{self, Data, Tensor};
use tilewright_ir::kernel::text::print_kernel;
use tilewright_ir::kernel::{Expr, Launch, Pack, Program, ScanArgument, ScanResult, ScanStep, Space, Step};
use tilewright_ir::types::{Bindings, DType, Dim, Symbol};

/// The results of `function` on `inputs`, in order; a bare symbol in a parameter's shape is bound by the size found. Block
/// encodings are the values that they stand for.
///
/// Errors: those of the kernel interpreter, with the kernel; bugs for programs that name what they have not.
pub fn run(
    programs: &[Program],
    function: &str,
    inputs: &[Array],
    bindings: &Bindings,
) -> Result<Vec<Tensor>, Diagnostic> {
    let inputs = inputs.iter().map(Tensor::from_array).collect::<Result<Vec<_>, _>>()?;
    let program = programs.iter().find(|p| &*p.name == function).ok_or_else(|| broken("no such program"))?;
    let mut bindings = bindings.clone();
    for (p, x) in program.params.iter().zip(&inputs) {
        for (d, n) in p.buffer.ty.shape.iter().zip(&x.shape) {
            if let Some(s) = program.symbols.iter().find(|s| Dim::symbol(&s.name) == *d) {
                bindings.entry(s.name.clone()).or_insert(*n as i64);
            }
        }
    }
    call(programs, program, inputs, bindings)
}

fn call(
    programs: &[Program],
    program: &Program,
    inputs: Vec<Tensor>,
    bindings: Bindings,
) -> Result<Vec<Tensor>, Diagnostic> {
    let mut run = Run { programs, program, bindings, data: BTreeMap::new() };
    for (p, x) in program.params.iter().zip(inputs) {
        run.data.insert(p.buffer.name.to_string(), x.data);
    }
    for (name, array) in &program.constants {
        run.data.insert(name.to_string(), Tensor::from_array(array)?.data);
    }
    for step in &program.steps {
        match step {
            Step::Launch(launch) => run.launch(launch)?,
            Step::Pack(pack) => run.pack(pack)?,
            Step::Call(step) => {
                let inputs = step.arguments.iter().map(|a| run.tensor(a)).collect::<Result<Vec<_>, _>>()?;
                let results = run.branch(&step.function, &step.symbols, inputs)?;
                run.name(&step.results, results);
            }
            Step::Cond(step) => {
                let inputs = step.arguments.iter().map(|a| run.tensor(a)).collect::<Result<Vec<_>, _>>()?;
                let yes = run.tensor(&step.predicate)?.data == Data::Bool(vec![true]);
                let chosen = if yes { &step.yes } else { &step.no };
                let results = run.branch(&chosen.function, &chosen.symbols, inputs)?;
                run.name(&step.results, results);
            }
            Step::Scan(step) => run.scan(step)?,
        }
    }
    program.results.iter().map(|r| run.tensor(r)).collect()
}

fn broken(what: &str) -> Diagnostic {
    Diagnostic::bug(format!("a program does not run: {what}"))
}

/// One program that runs; names that share memory share the data of the oldest.
struct Run<'p> {
    programs: &'p [Program],
    program: &'p Program,
    bindings: Bindings,
    data: BTreeMap<String, Data>,
}

impl Run<'_> {
    fn base(&self, name: &str) -> String {
        let mut at = name.to_string();
        while let Some(next) = self.program.work.iter().find(|b| *b.name == *at).and_then(|b| b.alias_of.clone()) {
            at = next.to_string();
        }
        at
    }

    fn tensor(&self, name: &str) -> Result<Tensor, Diagnostic> {
        let params = self.program.params.iter().map(|p| &p.buffer);
        let mut all = params.chain(&self.program.work);
        let buffer = all.find(|b| *b.name == *name).ok_or_else(|| broken(&format!("no buffer {name}")))?;
        let shape = buffer.ty.concrete(&self.bindings).map_err(|m| broken(&m))?;
        let data = self.data.get(&self.base(name)).cloned();
        // What no step writes has no elements, or is read by mistake.
        let data = data.unwrap_or_else(|| unwritten(buffer.ty.dtype, shape.iter().product()));
        Ok(Tensor { shape, data })
    }

    fn size(&self, e: &Expr) -> Result<i64, Diagnostic> {
        eval(e, &|name| self.bindings.get(name).copied())
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Diagnostic> {
        if let Some(when) = &launch.when
            && self.size(when)? == 0
        {
            return Ok(());
        }
        let kernel = &self.program.kernels[launch.kernel];
        let mut tensors = Vec::new();
        for (name, buffer) in launch.arguments.iter().zip(&kernel.arguments) {
            let shape = buffer.axes.iter().map(|(_, e)| Ok(usize::try_from(self.size(e)?).unwrap_or(0)));
            let shape = shape.collect::<Result<Vec<usize>, Diagnostic>>()?;
            let fresh = || unwritten(buffer.dtype, shape.iter().product());
            let data = self.data.get(&self.base(name)).cloned().unwrap_or_else(fresh);
            tensors.push(Tensor { shape, data });
        }
        interp_kernel::run(kernel, &mut tensors, &self.bindings).map_err(|d| d.note(print_kernel(kernel)))?;
        for (name, (tensor, buffer)) in launch.arguments.iter().zip(tensors.into_iter().zip(&kernel.arguments)) {
            if buffer.space != Space::In {
                self.data.insert(self.base(name), tensor.data);
            }
        }
        Ok(())
    }

    fn pack(&mut self, pack: &Pack) -> Result<(), Diagnostic> {
        if let Some(when) = &pack.when
            && self.size(when)? == 0
        {
            return Ok(());
        }
        let Some(Data::Float(from)) = self.data.get(&self.base(&pack.from)).cloned() else {
            return Err(broken("packs no floats"));
        };
        let at = |d: &Dim| d.eval(&self.bindings).map(|v| usize::try_from(v).unwrap_or(0)).map_err(|m| broken(&m));
        let (k, n, ks, ns) = (at(&pack.k)?, at(&pack.n)?, at(&pack.k_stride)?, at(&pack.n_stride)?);
        let mut starts = vec![at(&pack.offset)?];
        for (count, stride) in &pack.batch {
            let (count, stride) = (at(count)?, at(stride)?);
            starts = starts.iter().flat_map(|s| (0..count).map(move |i| s + i * stride)).collect();
        }
        let each = n.div_ceil(pack.nr) * k * pack.nr;
        let mut to = vec![0.0; starts.len() * each];
        for (matrix, start) in starts.iter().enumerate() {
            for (p, j) in (0..k).flat_map(|p| (0..n).map(move |j| (p, j))) {
                let column = (j / pack.nr * k + p) * pack.nr + j % pack.nr;
                to[matrix * each + column] = from[start + p * ks + j * ns];
            }
        }
        self.data.insert(pack.to.to_string(), Data::Float(to));
        Ok(())
    }

    /// The results of another program.
    fn branch(
        &self,
        function: &str,
        symbols: &[(Symbol, Dim)],
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Diagnostic> {
        let callee = self.programs.iter().find(|p| &*p.name == function).ok_or_else(|| broken("no such program"))?;
        // A symbol that no size of a parameter binds is shared with the caller.
        let mut bindings = self.bindings.clone();
        for (s, d) in symbols {
            bindings.insert(s.clone(), d.eval(&self.bindings).map_err(|m| broken(&m))?);
        }
        call(self.programs, callee, inputs, bindings)
    }

    fn name(&mut self, names: &[Arc<str>], results: Vec<Tensor>) {
        for (name, x) in names.iter().zip(results) {
            self.data.insert(self.base(name), x.data);
        }
    }

    fn scan(&mut self, step: &ScanStep) -> Result<(), Diagnostic> {
        let length = step.length.eval(&self.bindings).map_err(|m| broken(&m))?;
        let length = usize::try_from(length).map_err(|_| broken("a negative length"))?;
        let start = step.arguments.iter().map(|a| self.tensor(a.name())).collect::<Result<Vec<_>, _>>()?;
        let mut carried = start.clone();
        let mut stacks: Vec<Option<Data>> = vec![None; step.results.len()];
        for i in 0..length {
            let inputs = step.arguments.iter().enumerate().map(|(k, a)| match a {
                ScanArgument::Fixed(_) => start[k].clone(),
                ScanArgument::Carry(_) => carried[k].clone(),
                ScanArgument::Slice(_) => slice(&start[k], i),
            });
            let results = self.branch(&step.body.function, &step.body.symbols, inputs.collect())?;
            for (k, (x, role)) in results.into_iter().zip(&step.results).enumerate() {
                match role {
                    ScanResult::Fixed => {}
                    ScanResult::Carry(_) => carried[k] = x,
                    ScanResult::Stack(_) => join(&mut stacks[k], x.data),
                }
            }
        }
        for (k, role) in step.results.iter().enumerate() {
            match role {
                ScanResult::Fixed => {}
                ScanResult::Carry(name) => {
                    self.data.insert(self.base(name), carried[k].data.clone());
                }
                ScanResult::Stack(name) => {
                    if let Some(data) = stacks[k].take() {
                        self.data.insert(self.base(name), data);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Slice `i` of the leading axis.
fn slice(x: &Tensor, i: usize) -> Tensor {
    let shape = x.shape[1..].to_vec();
    let n: usize = shape.iter().product();
    let data = match &x.data {
        Data::Float(v) => Data::Float(v[i * n..(i + 1) * n].to_vec()),
        Data::Int(v) => Data::Int(v[i * n..(i + 1) * n].to_vec()),
        Data::Bool(v) => Data::Bool(v[i * n..(i + 1) * n].to_vec()),
    };
    Tensor { shape, data }
}

/// Appends a slice to a stack.
fn join(stack: &mut Option<Data>, next: Data) {
    match (stack, next) {
        (Some(Data::Float(all)), Data::Float(x)) => all.extend(x),
        (Some(Data::Int(all)), Data::Int(x)) => all.extend(x),
        (Some(Data::Bool(all)), Data::Bool(x)) => all.extend(x),
        (stack, next) => *stack = Some(next),
    }
}

fn unwritten(dtype: DType, count: usize) -> Data {
    match dtype {
        DType::Bool => Data::Bool(vec![true; count]),
        d if d.is_float() || d.is_block() => Data::Float(vec![f64::NAN; count]),
        _integer => Data::Int(vec![i64::MIN + 12345; count]),
    }
}
