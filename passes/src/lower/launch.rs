//! Regions to steps: the first template that takes a region gives its kernels and packings. Where the better of two
//! variants depends on sizes of the call, both are steps with opposite conditions.

use super::{Lower, Target};
use crate::region::{AxisId, Region};
use crate::schedule::{self, Attention, Blocks, Choice, Columns, Contraction, Relaid, Schedule, Weight, When};
use crate::tuned::Tunable;
use tilewright_ir::device::ukernel::{self, UKernelShape};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Param, Role};
use tilewright_ir::kernel::{Expr, Kernel, Launch, Pack, Program, ProgramBuffer, ProgramParam, Step, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, Dim, Type};

/// A program that computes one region: its inputs are the region's, its results the region's outputs.
///
/// Errors: broken invariants.
pub fn lower_region(region: &Region, target: &Target) -> Result<Program, Diagnostic> {
    let params = region.inputs.iter().map(|(name, ty)| Param { name: name.clone(), ty: ty.clone(), role: Role::Input });
    let f = Function::new("region", region.symbols.clone(), params.collect());
    let module = Module::default();
    let mut lower = Lower::empty(&module, &f, target);
    let mut results = Vec::new();
    for (i, output) in region.outputs.iter().enumerate() {
        let shape: Vec<Dim> = output.axes.iter().map(|&axis| region.axes[axis].1.clone()).collect();
        let ty = Type::new(region.terms[output.root].1, shape);
        results.push(lower.buffers.beside(&"result".into(), &i.to_string(), ty));
    }
    lower.launch_region(region, "region", results.clone())?;
    let Lower { buffers, mut kernels, steps, warnings, .. } = lower;
    kernels.iter_mut().for_each(schedule::apart);
    let work = buffers.work;
    let param = |(name, ty): &(Ident, Type)| ProgramParam {
        buffer: ProgramBuffer { name: name.clone(), ty: ty.clone(), alias_of: None },
        role: Role::Input,
    };
    Ok(Program {
        name: "region".into(),
        symbols: region.symbols.clone(),
        requirements: Vec::new(),
        params: region.inputs.iter().map(param).collect(),
        results,
        work,
        constants: Vec::new(),
        kernels,
        steps,
        warnings,
    })
}

/// Panels to be made.
struct Panels {
    dtype: DType,
    /// Columns of one.
    nr: i64,
    /// Of the buffer's name.
    suffix: String,
    /// Of the buffer, if not that of panels.
    ty: Option<Type>,
}

impl Panels {
    /// Those that a micro-kernel reads.
    fn of(row: &UKernelShape, input: usize) -> Panels {
        Panels { dtype: row.b, nr: row.nr, suffix: format!("panels{input}"), ty: None }
    }
}

/// What computes a region on a CPU.
pub(super) enum Template {
    /// Tiles of scores, one pass.
    Attention(Box<Attention>, &'static UKernelShape),
    /// One product of matrices.
    Contraction(Box<Contraction>, &'static UKernelShape),
    /// The same, of a copy of one operand.
    Relaid(Box<Relaid>, &'static UKernelShape),
    /// Loops of a [`Schedule`].
    Loops,
}

impl Template {
    /// What is free about its kernels, the usual first.
    fn choices(&self, region: &Region) -> Vec<Choice> {
        match self {
            Template::Attention(..) => vec![Choice::Fixed],
            Template::Contraction(c, row) => blocks(c, row),
            Template::Relaid(relaid, row) => blocks(&relaid.product, row),
            Template::Loops => schedule::loops(Schedule::choose(region)),
        }
    }
}

/// The blocks that a product may have.
fn blocks(c: &Contraction, row: &UKernelShape) -> Vec<Choice> {
    schedule::products(row, c.region.axes[c.m].1.as_const(), c.depth().as_const())
}

/// Where a region's kernels write, and their name.
#[derive(Clone, Copy)]
struct To<'a> {
    outputs: &'a [Ident],
    name: &'a str,
}

impl Lower<'_> {
    /// The kernels of a region by the first template that takes it, on the buffers `outputs`.
    pub(super) fn launch_region(
        &mut self,
        region: &Region,
        kernel_name: &str,
        outputs: Vec<Ident>,
    ) -> Result<(), Diagnostic> {
        if self.target.is_gpu() {
            let inputs: Vec<Ident> = region.inputs.iter().map(|(n, _)| n.clone()).collect();
            return self.launch_blocks(region, kernel_name, &inputs, &outputs);
        }
        let (to, first) = (To { outputs: &outputs, name: kernel_name }, self.kernels.len());
        let template = self.template(region);
        let choice = self.choice(region, &template, kernel_name)?;
        match (template, choice) {
            (Template::Attention(attention, row), _) => self.attention(&attention, row, to)?,
            (Template::Contraction(c, row), choice) => self.contraction(&c, row, choice.blocks(), to)?,
            (Template::Relaid(relaid, row), choice) => self.relaid(*relaid, row, choice.blocks(), to)?,
            (Template::Loops, Choice::Loops { schedule, hold }) => self.loops(region, (schedule, hold), to)?,
            (Template::Loops, _) => return Err(Diagnostic::bug("loops without a schedule")),
        }
        schedule::with_cost(&mut self.kernels[first..], schedule::cost(region).as_ref());
        Ok(())
    }

    /// What is done with the parameters that a template leaves open: the best that was measured, if anybody did, else the usual.
    ///
    /// Errors: `tuned-choice` for a measured choice that this region has not.
    fn choice(&mut self, region: &Region, template: &Template, kernel: &str) -> Result<Choice, Diagnostic> {
        let all = template.choices(region);
        let usual = all.first().copied().unwrap_or(Choice::Fixed);
        if self.seen.is_none() && self.tuned.is_none() {
            return Ok(usual);
        }
        let text = region.canonical();
        let chosen = self.tuned.as_ref().and_then(|tuned| tuned.choice(&text)).unwrap_or(usual);
        if !all.contains(&chosen) {
            let message = format!("`{chosen}` is no schedule of the kernel `{kernel}`, expected one such as `{usual}`");
            return Err(Diagnostic::new("tuned-choice", message).note(format!("for the region {text}")));
        }
        if let Some(seen) = &mut self.seen {
            seen.push(Tunable { function: self.f.name.clone(), kernel: kernel.into(), region: text, choices: all });
        }
        Ok(chosen)
    }

    /// The first template of a CPU that takes a region.
    pub(super) fn template(&self, region: &Region) -> Template {
        let apart = region.with_own_inputs();
        let f32_row = ukernel::find(self.target.isa, DType::F32, DType::F32);
        if let (Some(attention), Some(row)) = (schedule::attention(&apart), f32_row) {
            return Template::Attention(Box::new(attention), row);
        }
        let weight =
            |input: usize| self.f.params.iter().any(|p| p.name == apart.inputs[input].0 && p.role == Role::Weight);
        let product = schedule::contraction(&apart, &weight);
        let row = product.as_ref().and_then(|c| c.row(self.target.isa));
        match (product, row) {
            (Some(c), Some(row)) if pays(&c, row) => Template::Contraction(Box::new(c), row),
            (Some(_), _) => Template::Loops,
            (None, _) => {
                let relaid = schedule::relaid(&apart, &weight, self.target.isa);
                let row = relaid.as_ref().and_then(|r| r.product.row(self.target.isa));
                match (relaid, row) {
                    (Some(r), Some(row)) if pays(&r.product, row) => Template::Relaid(Box::new(r), row),
                    (_, _) => Template::Loops,
                }
            }
        }
    }

    /// The kernels of a region on a GPU.
    fn launch_blocks(
        &mut self,
        region: &Region,
        kernel_name: &str,
        inputs: &[Ident],
        outputs: &[Ident],
    ) -> Result<(), Diagnostic> {
        let first = self.kernels.len();
        let buffers: Vec<Ident> = inputs.iter().chain(outputs).cloned().collect();
        for launched in schedule::gpu::kernels(region, kernel_name, &self.f.symbols, self.target.isa)? {
            let arguments = launched.arguments.iter().map(|&a| buffers.get(a).cloned()).collect::<Option<Vec<_>>>();
            let arguments = arguments.ok_or_else(|| Diagnostic::bug("an output without a buffer"))?;
            self.push_when(launched.kernel, arguments, None);
        }
        schedule::with_cost(&mut self.kernels[first..], schedule::cost(region).as_ref());
        Ok(())
    }

    /// Loops over tiles, and over shorter ones at calls whose rows are short.
    fn loops(&mut self, region: &Region, (schedule, hold): (Schedule, bool), to: To<'_>) -> Result<(), Diagnostic> {
        let symbols = &self.f.symbols;
        let kernel = |schedule, name: &str| schedule::region_kernel(region, (schedule, hold), name, symbols);
        match (schedule.short(), schedule.when_short(region, symbols)) {
            (Some(short), When::If(condition)) => {
                let condition = schedule::plain(condition);
                let (few, usual) = (kernel(short, &format!("{}_few", to.name))?, kernel(schedule, to.name)?);
                self.push_when(few, arguments(region, to), Some(condition.clone()));
                self.push_when(usual, arguments(region, to), Some(unless(&condition)));
            }
            (Some(short), When::Always) => {
                let few = kernel(short, to.name)?;
                self.push_when(few, arguments(region, to), None);
            }
            (Some(_), When::Never) | (None, _) => {
                let usual = kernel(schedule, to.name)?;
                self.push_when(usual, arguments(region, to), None);
            }
        }
        Ok(())
    }

    /// Copies one operand, then multiplies.
    fn relaid(&mut self, relaid: Relaid, row: &UKernelShape, blocks: Blocks, to: To<'_>) -> Result<(), Diagnostic> {
        let packing = relaid.packing();
        let Relaid { copy, mut product, input } = relaid;
        let owner = to.outputs.first().ok_or_else(|| Diagnostic::bug("a region that stores nothing"))?;
        if let Some((columns, k, n)) = packing {
            let ty = product.region.inputs[input].1.clone();
            let panels = Panels { dtype: copy.inputs[0].1.dtype, nr: 1, suffix: "rows".into(), ty: Some(ty) };
            product.region.inputs[input].0 = self.pack(&copy, 0, &columns, (k, n), (panels, to), None)?;
            return self.contraction(&product, row, blocks, to);
        }
        let rows = self.buffers.beside(owner, "rows", product.region.inputs[input].1.clone());
        let name = format!("{}_rows", to.name);
        let usual = (Schedule::choose(&copy), true);
        let kernel = schedule::region_kernel(&copy, usual, &name, &self.f.symbols)?;
        let first = self.kernels.len();
        self.push_when(kernel, vec![copy.inputs[0].0.clone(), rows.clone()], None);
        schedule::with_cost(&mut self.kernels[first..], schedule::cost(&copy).as_ref());
        product.region.inputs[input].0 = rows;
        self.contraction(&product, row, blocks, to)
    }

    /// Packs the columns where that is needed; another kernel runs where there are too few rows for it.
    fn contraction(
        &mut self,
        c: &Contraction,
        row: &UKernelShape,
        blocks: Blocks,
        to: To<'_>,
    ) -> Result<(), Diagnostic> {
        let symbols = &self.f.symbols;
        let mut packed = arguments(&c.region, to);
        let direct = c.direct(row);
        let when = match if direct { c.when_repacked(row) } else { c.when_packed() } {
            When::If(condition) => Some(schedule::plain(condition)),
            When::Never if direct => {
                let kernel = schedule::contraction_kernel(c, (row, true), blocks, to.name, symbols)?;
                self.push_when(kernel, packed, None);
                return Ok(());
            }
            When::Always | When::Never => None,
        };
        if let Some(when) = &when {
            let name = format!("{}_few", to.name);
            let few = if direct {
                schedule::contraction_kernel(c, (row, true), blocks, &name, symbols)?
            } else if c.columns.k_stride.is(1) {
                schedule::few_rows_kernel(&c.region, &name, symbols)?
            } else {
                schedule::region_kernel(&c.region, (Schedule::choose(&c.region), true), &name, symbols)?
            };
            self.push_when(few, packed.clone(), Some(unless(when)));
        }
        let kernel = schedule::contraction_kernel(c, (row, false), blocks, to.name, symbols)?;
        packed[c.b] = self.pack(&c.region, c.b, &c.columns, (c.k, c.n), (Panels::of(row, c.b), to), when.clone())?;
        self.push_when(kernel, packed, when);
        Ok(())
    }

    /// Panels for many rows; few rows are done one by one, and read values where they lie if they can.
    fn attention(&mut self, a: &Attention, row: &UKernelShape, to: To<'_>) -> Result<(), Diagnostic> {
        let symbols = &self.f.symbols;
        let (many, few) = match a.when_many() {
            When::Always => (Some(None), None),
            When::Never => (None, Some(None)),
            When::If(condition) => {
                let condition = schedule::plain(condition);
                (Some(Some(condition.clone())), Some(Some(unless(&condition))))
            }
        };
        let mut plain = arguments(&a.region, to);
        if let Some(when) = few {
            self.value_panels(a, (row, to), (false, &when), &mut plain)?;
            let kernel = schedule::attention_kernel(a, row, false, &format!("{}_few", to.name), symbols)?;
            self.push_when(kernel, plain.clone(), when);
        }
        if let Some(when) = many {
            let kernel = schedule::attention_kernel(a, row, true, to.name, symbols)?;
            plain[a.k.input] = self.pack(
                &a.region,
                a.k.input,
                &a.k_columns,
                (a.d, a.j),
                (Panels::of(row, a.k.input), to),
                when.clone(),
            )?;
            self.value_panels(a, (row, to), (true, &when), &mut plain)?;
            self.push_when(kernel, plain, when);
        }
        Ok(())
    }

    /// Panels in place of the rows of values that `many` rows, or few, do not read where they lie.
    fn value_panels(
        &mut self,
        a: &Attention,
        (row, to): (&UKernelShape, To<'_>),
        (many, when): (bool, &Option<Expr>),
        arguments: &mut [Ident],
    ) -> Result<(), Diagnostic> {
        for (_, weight) in &a.sums {
            if let (Weight::Rows(v, columns), Some(e)) = (weight, a.e)
                && !a.direct(v, columns, row, many)
            {
                // Panels that both variants read are made whichever runs.
                let when = if a.direct(v, columns, row, false) { when.clone() } else { None };
                arguments[v.input] =
                    self.pack(&a.region, v.input, columns, (a.j, e), (Panels::of(row, v.input), to), when)?;
            }
        }
        Ok(())
    }

    /// The panels of an input; inputs that are packed twice the same way are packed once.
    fn pack(
        &mut self,
        region: &Region,
        input: usize,
        columns: &Columns,
        (k, n): (AxisId, AxisId),
        (form, to): (Panels, To<'_>),
        when: Option<Expr>,
    ) -> Result<Ident, Diagnostic> {
        let overflow = || Diagnostic::new("dim-overflow", "a size does not fit in 64 bits");
        let size = |axis: AxisId| region.axes[axis].1.clone();
        let (name, ty) = &region.inputs[input];
        let mut pack = Pack {
            from: name.clone(),
            to: "".into(),
            dtype: ty.dtype,
            panels: form.dtype,
            offset: columns.offset.clone(),
            batch: columns.batch.iter().map(|(axis, stride)| (size(*axis), stride.clone())).collect(),
            k: size(k),
            n: size(n),
            k_stride: columns.k_stride.clone(),
            n_stride: columns.n_stride.clone(),
            nr: usize::try_from(form.nr).map_err(|_| Diagnostic::bug("a panel without columns"))?,
            when,
        };
        if pack.dtype.is_block() {
            // Whole panels one after the other: batch axes only count them.
            for (count, _) in std::mem::take(&mut pack.batch) {
                pack.n = pack.n.checked_mul(&count).ok_or_else(overflow)?;
            }
        }
        for step in &self.steps {
            if let Step::Pack(old) = step {
                pack.to = old.to.clone();
                if *old == pack {
                    return Ok(pack.to);
                }
            }
        }
        let mut shape: Vec<Dim> = pack.batch.iter().map(|(n, _)| n.clone()).collect();
        shape.push(pack.n.ceil_div(form.nr));
        let panels = if let Some(ty) = form.ty {
            ty
        } else if pack.dtype.is_block() {
            let (per, bytes) = pack.dtype.block();
            let steps = pack.k.floor_div(Dim::from(per).as_const().unwrap_or(1));
            let size = steps.checked_mul(&Dim::from(bytes)).and_then(|s| s.checked_mul(&Dim::from(form.nr)));
            shape.push(size.ok_or_else(overflow)?);
            Type::new(DType::U8, shape)
        } else {
            shape.extend([pack.k.clone(), Dim::from(form.nr)]);
            Type::new(pack.panels, shape)
        };
        let owner = to.outputs.first().ok_or_else(|| Diagnostic::bug("a region that stores nothing"))?;
        pack.to = self.buffers.beside(owner, &form.suffix, panels);
        let panels = pack.to.clone();
        self.steps.push(Step::Pack(pack));
        Ok(panels)
    }

    /// Launches `kernel` where the condition holds.
    pub(super) fn push_when(&mut self, kernel: Kernel, arguments: Vec<Ident>, when: Option<Expr>) {
        self.steps.push(Step::Launch(Launch { kernel: self.kernels.len(), arguments, when }));
        self.kernels.push(kernel);
    }
}

/// Whether a product on micro-kernels is worth its packing.
fn pays(c: &Contraction, row: &UKernelShape) -> bool {
    c.direct(row) || c.when_packed() != When::Never
}

/// Where `when` does not hold.
fn unless(when: &Expr) -> Expr {
    Expr::scalar(ScalarOp::Eq {}, [when.clone(), Expr::Int(0)])
}

/// A region's inputs, then its outputs.
fn arguments(region: &Region, to: To<'_>) -> Vec<Ident> {
    region.inputs.iter().map(|(n, _)| n.clone()).chain(to.outputs.iter().cloned()).collect()
}
