//! Compiling kernels into memory, and calling them.

use super::check::{Check, Outside, Status};
use super::emitter::{Emitter, FLAGS};
use super::grid;
use super::types::{Binding, Num, unsupported};
use crate::cpu::ukernel::{Isa, UKERNELS};
use crate::cpu::ukernel::{ahead, elementary, folds, halves};
use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, InstructionData, Value, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Expr, Kernel};

/// `(args, symbols, scratch, begin, end, status)`.
type Entry = unsafe extern "C" fn(*const *mut u8, *const i64, *mut u8, i64, i64, *mut Status);

/// Owns the memory of the code; freed with the last kernel.
pub struct CpuModule {
    memory: Arc<Code>,
}

struct Code {
    module: Option<JITModule>,
}

// The code is finished and never changed; nothing of the module is touched but by the drop, which has it alone.
unsafe impl Send for Code {}
// As above: shared references reach only finished code.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // Every kernel holds the Arc of this, so none is left to be called.
            unsafe { module.free_memory() };
        }
    }
}

impl std::fmt::Debug for CpuModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuModule(kernels: {})", Arc::strong_count(&self.memory) - 1)
    }
}

/// A compiled kernel.
pub struct CpuKernel {
    /// Name.
    pub name: Ident,
    /// Bytes of scratch that a call needs, per thread.
    pub scratch_bytes: usize,
    /// Extents of the `par .. at grid`, over the symbols; none is one item. See [`grid::eval`].
    pub grid: Vec<Expr>,
    /// Argument buffers.
    pub arguments: usize,
    /// Symbols.
    pub symbols: usize,
    /// What the code checks of the indices that it loads.
    pub checks: Vec<Check>,
    entry: Entry,
    _memory: Arc<Code>,
}

impl std::fmt::Debug for CpuKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuKernel({}, scratch {})", self.name, self.scratch_bytes)
    }
}

impl CpuKernel {
    /// Runs the grid items `begin..end`, row-major over the `par` variables.
    ///
    /// # Safety
    /// `args` are the argument buffers in order, `symbols` the values in the kernel's order, both complete; the buffers have
    /// the declared sizes for these values, and no other call writes what this one touches. `scratch` has
    /// `scratch_bytes`, is aligned to 64 and used by this call alone. What the kernel's bounds follow from holds for the
    /// symbols: their ranges, and the facts of [`tilewright_ir::kernel::verify`].
    ///
    /// Errors: the first index that the kernel loaded and that lies outside; nothing was read or written with it, and the
    /// items after it were not computed.
    pub unsafe fn call(
        &self,
        args: &[*mut u8],
        symbols: &[i64],
        scratch: *mut u8,
        begin: i64,
        end: i64,
    ) -> Result<(), Outside> {
        debug_assert!(args.len() == self.arguments && symbols.len() == self.symbols);
        let mut status = Status::default();
        // Safety: the caller's promise is that of the code.
        unsafe { (self.entry)(args.as_ptr(), symbols.as_ptr(), scratch, begin, end, &raw mut status) }
        status.result()
    }
}

fn fault(what: &str, error: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::bug(format!("{what}: {error}"))
}

fn jit() -> Result<JITModule, Diagnostic> {
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    let wanted = [
        ("opt_level", "speed"),
        ("use_colocated_libcalls", "false"),
        ("is_pic", "false"),
        ("enable_verifier", verifier),
    ];
    for (name, value) in wanted {
        flags.set(name, value).map_err(|error| fault("a setting of Cranelift", error))?;
    }
    let builder = cranelift_native::builder().map_err(|error| unsupported(format!("this processor: {error}")))?;
    let isa = builder.finish(settings::Flags::new(flags)).map_err(|error| fault("the target of Cranelift", error))?;
    Ok(JITModule::new(JITBuilder::with_isa(isa, cranelift_module::default_libcall_names())))
}

/// For each kernel, the first that differs from it in nothing but the name: the text is the kernel.
fn firsts(kernels: &[&Kernel]) -> Vec<usize> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let body = |kernel: &Kernel| Kernel { name: "".into(), ..kernel.clone() }.to_string();
    kernels.iter().enumerate().map(|(index, kernel)| *known.entry(body(kernel)).or_insert(index)).collect()
}

/// Compiles kernels for this processor; those that differ in nothing but their names share their code.
///
/// Errors: `cpu-unsupported` for what the emitter does not take, `kernel-invalid` for a kernel that breaks the rules.
pub fn compile(kernels: &[&Kernel], isa: Isa) -> Result<(CpuModule, Vec<CpuKernel>), Diagnostic> {
    // Freed here, too, if a kernel is refused.
    let mut code = Code { module: Some(jit()?) };
    let module = code.module.as_mut().ok_or_else(|| Diagnostic::bug("code without a module"))?;
    let mut made = Vec::new();
    let mut context = FunctionBuilderContext::new();
    let firsts = firsts(kernels);
    // Where in `made` the code of a kernel lies.
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, kernel) in kernels.iter().enumerate().filter(|(index, _)| firsts[*index] == *index) {
        places.insert(index, made.len());
        let mut function = module.make_context();
        let (scratch, checks) =
            emit(module, kernel, isa, &mut function.func, &mut context).map_err(|error| in_kernel(error, kernel))?;
        let name = format!("{}_{index}", kernel.name);
        let id = module
            .declare_function(&name, Linkage::Local, &function.func.signature)
            .map_err(|error| fault("declaring a kernel", error))?;
        module
            .define_function(id, &mut function)
            .map_err(|error| fault(&format!("compiling `{name}`"), format!("{error:?}")))?;
        made.push((id, scratch, grid::extents(kernel)?, checks));
    }
    module.finalize_definitions().map_err(|error| fault("linking", error))?;
    let pointers: Vec<*const u8> = made.iter().map(|(id, ..)| module.get_finalized_function(*id)).collect();
    let memory = Arc::new(code);
    let mut compiled = Vec::new();
    for (kernel, first) in kernels.iter().zip(firsts) {
        let place = places.get(&first).copied().ok_or_else(|| Diagnostic::bug("a kernel without code"))?;
        let (_, scratch_bytes, grid, checks) = &made[place];
        compiled.push(CpuKernel {
            name: kernel.name.clone(),
            scratch_bytes: *scratch_bytes,
            grid: grid.clone(),
            arguments: kernel.arguments.len(),
            symbols: kernel.symbols.len(),
            checks: checks.clone(),
            // Safety: the function was emitted with this signature and calling convention.
            entry: unsafe { std::mem::transmute::<*const u8, Entry>(pointers[place]) },
            _memory: memory.clone(),
        });
    }
    Ok((CpuModule { memory }, compiled))
}

/// The Cranelift text of a kernel that calls the micro-kernels of `isa`. Functions of the host, which lie elsewhere in every
/// process, stand by name (`avx512_f32`) or number (`host0`). Errors: those of [`compile`].
pub fn clif_text(kernel: &Kernel, isa: Isa) -> Result<String, Diagnostic> {
    let module = jit()?;
    let mut function = module.make_context();
    emit(&module, kernel, isa, &mut function.func, &mut FunctionBuilderContext::new())
        .map_err(|error| in_kernel(error, kernel))?;
    let mut text = function.func.display().to_string();
    for (number, address) in called(&function.func).into_iter().enumerate() {
        let at = address.bits().cast_unsigned() as usize;
        let product = UKERNELS.iter().find(|row| row.function as usize == at).map(|row| row.name.to_string());
        let name = product
            .or_else(|| elementary::name_at(at))
            .or_else(|| folds::name_at(at))
            .or_else(|| (at == ahead::fetch_row as *const () as usize).then(|| "fetch_row".into()))
            .or_else(|| halves::name_at(at))
            .unwrap_or_else(|| format!("host{number}"));
        text = text.replace(&address.to_string(), &name);
    }
    Ok(text)
}

/// Addresses of the functions that a function calls, each once, in the order of the calls.
fn called(function: &Function) -> Vec<Imm64> {
    let (dfg, mut found) = (&function.dfg, Vec::new());
    for inst in function.layout.blocks().flat_map(|block| function.layout.block_insts(block)) {
        let InstructionData::CallIndirect { args, .. } = &dfg.insts[inst] else { continue };
        let callee = args.first(&dfg.value_lists).and_then(|value| dfg.value_def(value).inst());
        if let Some(InstructionData::UnaryImm { imm, .. }) = callee.map(|inst| dfg.insts[inst])
            && !found.contains(&imm)
        {
            found.push(imm);
        }
    }
    found
}

/// The machine code of a kernel for this processor, as text. Errors: those of [`compile`].
pub fn asm_text(kernel: &Kernel, isa: Isa) -> Result<String, Diagnostic> {
    let module = jit()?;
    let mut function = module.make_context();
    emit(&module, kernel, isa, &mut function.func, &mut FunctionBuilderContext::new())
        .map_err(|error| in_kernel(error, kernel))?;
    function.set_disasm(true);
    let code = function
        .compile(module.isa(), &mut cranelift_codegen::control::ControlPlane::default())
        .map_err(|error| fault(&format!("compiling `{}`", kernel.name), format!("{:?}", error.inner)))?;
    code.vcode.clone().ok_or_else(|| Diagnostic::bug("Cranelift kept no machine code text"))
}

fn in_kernel(error: Diagnostic, kernel: &Kernel) -> Diagnostic {
    error.note(format!("in kernel `{}`", kernel.name))
}

/// Emits a kernel's function; gives the bytes of scratch and the checks of indices.
fn emit(
    module: &JITModule,
    kernel: &Kernel,
    isa: Isa,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
) -> Result<(usize, Vec<Check>), Diagnostic> {
    if &*kernel.target != "cpu" {
        return Err(unsupported(format!("the target `{}`", kernel.target)));
    }
    for _ in 0..6 {
        function.signature.params.push(AbiParam::new(types::I64));
    }
    // A failed emission leaves its builder's state behind, so each starts from a fresh one.
    *context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(function, context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let params: Vec<Value> = builder.block_params(entry).to_vec();
    let [args, symbols, scratch, begin, end, status] = params.as_slice() else {
        return Err(Diagnostic::bug("parameters"));
    };
    let call_conv = module.isa().default_call_conv();
    let mut emitter = Emitter {
        b: builder,
        scope: Vec::new(),
        scratch: *scratch,
        scratch_bytes: 0,
        isa,
        call_conv,
        tiles: 0,
        accesses: Vec::new(),
        status: *status,
        checks: Vec::new(),
        known: Vec::new(),
    };
    let e = &mut emitter;
    for (name, value) in &kernel.constants {
        let num = e.num(*value);
        e.bind(name, Binding::Index(num));
    }
    for (at, symbol) in kernel.symbols.iter().enumerate() {
        let value = e.b.ins().load(types::I64, FLAGS, *symbols, 8 * at as i32);
        e.bind(&symbol.name, Binding::Index(Num { value, constant: None }));
    }
    for (at, buffer) in kernel.arguments.iter().enumerate() {
        let base = e.b.ins().load(types::I64, FLAGS, *args, 8 * at as i32);
        let memory = e.memory(buffer, base)?;
        e.bind(&buffer.name, Binding::Memory(Rc::new(memory)));
    }
    for view in &kernel.views {
        e.bind(&view.name, Binding::View(Rc::new(view.clone())));
    }
    let one = e.b.ins().iconst(types::I64, 1);
    let body = grid::split(kernel)?;
    for buffer in body.buffers {
        e.declare(buffer)?;
    }
    let mut extents = Vec::new();
    for (_, extent) in body.vars {
        extents.push(e.index(extent)?);
    }
    e.each(*begin, *end, one, |e, item| {
        let mut rest = Num { value: item, constant: None };
        let mut bound = Vec::new();
        for (at, (var, _)) in body.vars.iter().enumerate().rev() {
            if at == 0 {
                bound.push((var, rest));
                break;
            }
            let quotient = e.floor_div(rest, extents[at]);
            let back = e.mul(quotient, extents[at]);
            bound.push((var, e.sub(rest, back)));
            rest = quotient;
        }
        for (var, num) in bound {
            e.bind(var, Binding::Index(num));
        }
        e.block(body.body)
    })?;
    e.b.ins().return_(&[]);
    let (bytes, checks) = (emitter.scratch_bytes, std::mem::take(&mut emitter.checks));
    emitter.b.finalize(module.target_config());
    Ok((bytes, checks.into_iter().map(|c| c.over_symbols(kernel)).collect()))
}
