//! A program with inputs, and the stages that may compute it wrongly.

use super::super::compare::{Difference, check};
use crate::compile::{self, Options, Target};
use crate::programs;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::interp;
use tilewright_ir::interp_kernel::{Data, Tensor};
use tilewright_ir::kernel::Program;
use tilewright_ir::types::{Bindings, DType};

/// A module, inputs of its entry, and values of its symbols.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub module: Module,
    pub inputs: Vec<Array>,
    pub bindings: Bindings,
}

/// The compiler as it is asked. Tests have one that is broken on purpose.
pub(super) trait Pipeline {
    /// The graph that level 2 leaves.
    fn optimized(&self, module: &Module, options: &Options) -> Result<Module, Diagnostic> {
        compile::optimized(module, options, Target::Cpu)
    }

    /// Kernels.
    fn lower(&self, module: &Module, options: &Options) -> Result<Vec<Program>, Diagnostic> {
        compile::lower(module, options)
    }

    /// The results of their machine code.
    fn run(&self, case: &Case, programs: Vec<Program>, options: &Options) -> Result<Vec<Array>, Diagnostic> {
        compile::executable(&case.module, programs, options)?.run(&case.inputs, &case.bindings)
    }
}

/// The compiler as it is.
pub(super) struct Real;

impl Pipeline for Real {}

impl Case {
    /// Results against those of the interpreter; none where all agree.
    pub fn differences(&self, found: &[Array]) -> Result<Option<Vec<Difference>>, Diagnostic> {
        let entry = self.module.entry()?.name.clone();
        let interpret = |mode, inputs: &[Array]| interp::run(&self.module, &entry, inputs, &self.bindings, mode);
        let differences = check(&self.module, found, None, &self.inputs, interpret)?;
        Ok((!differences.iter().all(Difference::passes)).then_some(differences))
    }

    /// What machine code gives, where it is wrong.
    pub fn by_code(&self, pipeline: &dyn Pipeline, options: &Options) -> Result<Option<Vec<Difference>>, Diagnostic> {
        let programs = pipeline.lower(&self.module, options)?;
        self.differences(&pipeline.run(self, programs, options)?)
    }

    /// Whether the kernels mean something else than the graph.
    pub fn by_kernels(&self, pipeline: &dyn Pipeline, options: &Options) -> Result<bool, Diagnostic> {
        let lowered = pipeline.lower(&self.module, options)?;
        let entry = self.module.entry()?;
        let found = programs::run(&lowered, &entry.name, &self.inputs, &self.bindings)?;
        let types = entry.results.iter().map(|r| entry.ty(*r).dtype);
        let found: Vec<Array> = found.iter().zip(types).map(|(t, d)| array(t, d)).collect::<Result<_, _>>()?;
        Ok(self.differences(&found)?.is_some())
    }

    /// Whether the graph that level 2 leaves means something else.
    pub fn by_graph(&self, pipeline: &dyn Pipeline, options: &Options) -> Result<bool, Diagnostic> {
        let left = pipeline.optimized(&self.module, options)?;
        let entry = &self.module.entry()?.name;
        let found = interp::run(&left, entry, &self.inputs, &self.bindings, interp::Mode::Meaning)?;
        Ok(self.differences(&found)?.is_some())
    }
}

/// A tensor of the kernel interpreter, whose floats are f64, as an array of `dtype`.
fn array(tensor: &Tensor, dtype: DType) -> Result<Array, Diagnostic> {
    let size = dtype.block().1;
    let bytes = match &tensor.data {
        Data::Float(v) => {
            let each = v.iter().map(|x| Ok(Array::from_number(dtype, *x)?.bytes().to_vec()));
            each.collect::<Result<Vec<Vec<u8>>, Diagnostic>>()?.concat()
        }
        Data::Int(v) => v.iter().flat_map(|x| x.to_le_bytes()[..size].to_vec()).collect(),
        Data::Bool(v) => v.iter().map(|x| u8::from(*x)).collect(),
    };
    Array::new(dtype, &tensor.shape, Bytes::new(bytes))
}
