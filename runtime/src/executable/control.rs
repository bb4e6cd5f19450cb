//! Steps that run other programs: calls, conditionals, scans. Their arenas lie in the caller's.

use super::run::{Frame, Given, check_sizes};
use super::{Executable, bytes_of};
use crate::plan::{Home, StepHomes, inner_bindings};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{CallStep, CondStep, ScanArgument, ScanResult, ScanStep};
use tilewright_ir::types::{Bindings, Dim, Symbol};

impl Executable {
    /// The values of a callee's symbols. Errors: `symbol` if one is out of its range.
    fn inner(&self, index: usize, symbols: &[(Symbol, Dim)], outer: &Bindings) -> Result<Bindings, Diagnostic> {
        let bindings = inner_bindings(symbols.iter().map(|(s, d)| (s, d)), outer)?;
        check_sizes(&self.programs[index].program, &bindings)?;
        Ok(bindings)
    }

    fn arena(&self, homes: &StepHomes, frame: &Frame<'_>) -> Result<*mut u8, Diagnostic> {
        frame.pointer(self, Home::Slot(homes.frame.ok_or_else(|| Diagnostic::bug("a call without an arena"))?))
    }

    /// Runs the chosen one of a step's callees.
    fn invoke(
        &self,
        choice: usize,
        symbols: &[(Symbol, Dim)],
        homes: &StepHomes,
        frame: &Frame<'_>,
    ) -> Result<(), Diagnostic> {
        let index = *homes.callees.get(choice).ok_or_else(|| Diagnostic::bug("no program to call"))?;
        let bindings = self.inner(index, symbols, frame.bindings)?;
        let given: Vec<Given<'_>> = homes.arguments.iter().map(|&h| frame.given(self, h)).collect::<Result<_, _>>()?;
        let results = homes.results.iter().map(|h| self.result(*h, frame)).collect::<Result<Vec<_>, _>>()?;
        self.run_program(index, &given, &results, self.arena(homes, frame)?, &bindings)
    }

    fn result(&self, home: Option<Home>, frame: &Frame<'_>) -> Result<*mut u8, Diagnostic> {
        home.map_or(Ok(std::ptr::null_mut()), |h| frame.pointer(self, h))
    }

    pub(super) fn call(&self, step: &CallStep, homes: &StepHomes, frame: &Frame<'_>) -> Result<(), Diagnostic> {
        self.invoke(0, &step.symbols, homes, frame)
    }

    pub(super) fn cond(&self, step: &CondStep, homes: &StepHomes, frame: &Frame<'_>) -> Result<(), Diagnostic> {
        let predicate = homes.predicate.ok_or_else(|| Diagnostic::bug("a `cond` without a condition"))?;
        let predicate = frame.pointer(self, predicate)?;
        // SAFETY: the memory of a bool scalar, one byte, which an earlier step or the caller has written.
        let holds = unsafe { predicate.read() } != 0;
        let (choice, branch) = if holds { (0, &step.yes) } else { (1, &step.no) };
        self.invoke(choice, &branch.symbols, homes, frame)
    }

    /// Each step reads its carries where the step before wrote them: in place, or from one of two memories by turns, so
    /// that the last step writes into the result's.
    pub(super) fn scan(&self, step: &ScanStep, homes: &StepHomes, frame: &Frame<'_>) -> Result<(), Diagnostic> {
        let length = step.length.eval(frame.bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        let length = usize::try_from(length).unwrap_or(0);
        let index = *homes.callees.first().ok_or_else(|| Diagnostic::bug("no program to scan with"))?;
        let bindings = self.inner(index, &step.body.symbols, frame.bindings)?;
        let plan = &self.plans[index];
        let sizes = |types: &mut dyn Iterator<Item = &tilewright_ir::types::Type>| {
            types.map(|ty| bytes_of(ty, &bindings)).collect::<Result<Vec<usize>, Diagnostic>>()
        };
        let argument_bytes = sizes(&mut plan.params.iter())?;
        let result_bytes = sizes(&mut plan.results.iter().map(|(_, ty)| ty))?;
        let first: Vec<Given<'_>> = homes.arguments.iter().map(|&h| frame.given(self, h)).collect::<Result<_, _>>()?;
        let last = homes.results.iter().map(|h| self.result(*h, frame)).collect::<Result<Vec<_>, _>>()?;
        let spares =
            homes.spares.iter().map(|s| self.result(s.map(Home::Slot), frame)).collect::<Result<Vec<_>, _>>()?;
        let arena = self.arena(homes, frame)?;
        let mut given = first.clone();
        for i in 0..length {
            for (k, argument) in step.arguments.iter().enumerate() {
                if let ScanArgument::Slice(_) = argument {
                    given[k].pointer = slice(first[k].pointer, i, argument_bytes[k])?;
                }
            }
            let mut into = last.clone();
            for (k, result) in step.results.iter().enumerate() {
                match result {
                    ScanResult::Stack(_) => into[k] = slice(last[k], i, result_bytes[k])?,
                    ScanResult::Carry(_) if !spares[k].is_null() && (length - i).is_multiple_of(2) => {
                        into[k] = spares[k];
                    }
                    ScanResult::Carry(_) | ScanResult::Fixed => {}
                }
            }
            self.run_program(index, &given, &into, arena, &bindings)?;
            for (k, result) in step.results.iter().enumerate() {
                if let ScanResult::Carry(_) = result {
                    given[k] = Given { pointer: into[k], owner: None };
                }
            }
        }
        for (k, result) in step.results.iter().enumerate() {
            if length == 0 && matches!(result, ScanResult::Carry(_)) && first[k].pointer != last[k] {
                // SAFETY: the carry and its result are memory of the same type, and the result's is its own.
                unsafe { std::ptr::copy(first[k].pointer, last[k], result_bytes[k]) };
            }
        }
        Ok(())
    }
}

/// The first byte of slice `i`; it lies inside, since the whole has as many slices as there are steps.
fn slice(whole: *mut u8, i: usize, bytes: usize) -> Result<*mut u8, Diagnostic> {
    let start = i.checked_mul(bytes).ok_or_else(|| Diagnostic::bug("a slice of a scan lies outside its buffer"))?;
    Ok(whole.wrapping_add(start))
}
