//! Blocks that repeat in a large function, written out, become calls of functions: level 2 then chooses their kernels once, and
//! within limits that the whole is beyond.
//!
//! before: `@main` of 96 layers, 11,000 nodes
//! after:  `%1 = call %0, %w0 function=@block`, .., 96 times, and what stands before and behind them
//! keeps: results bit for bit, types, parameters, places.    cost: O(nodes), O(blocks^2) to find repetitions.
//!
//! The border of a block is a value through which all goes, as the residual stream of a transformer is: it is stored in any
//! case, since the block behind it reads it twice, far apart.

use crate::checkpoint::Segments;
use crate::checkpoint::chain::Chain;
use std::borrow::Cow;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module};
use tilewright_ir::verify::verify;

/// Fewest live nodes of a function in which blocks are looked for: some four layers of a transformer. Of fewer, all kernels can be chosen
/// together.
const LARGE: usize = 512;
/// Fewest blocks that are worth a function.
const FEWEST: usize = 3;

/// The module with the blocks of its large functions as functions.
///
/// Errors: those of the verifier, which are bugs.
pub fn outlined(module: &Module) -> Result<Cow<'_, Module>, Diagnostic> {
    let mut out: Option<Module> = None;
    for (name, f) in module.functions.iter().filter(|(_, f)| is_large(f)) {
        let Some(chain) = Chain::of(f).filter(|c| c.blocks() >= FEWEST && !c.is_of_calls(f)) else { continue };
        let made = out.get_or_insert_with(|| around(module, f));
        let f = chain.segmented(made, f, Segments::Number(usize::MAX), Derivative::OfOps)?;
        made.functions.insert(name.clone(), f);
    }
    let Some(made) = out else { return Ok(Cow::Borrowed(module)) };
    verify(&made)?;
    Ok(Cow::Owned(made))
}

/// The module with nothing in the place of `large`, which is to be made anew: copying it would take most of the time.
fn around(module: &Module, large: &Function) -> Module {
    let copy =
        |f: &Function| if f.name == large.name { Function::new(&f.name, Vec::new(), Vec::new()) } else { f.clone() };
    Module { functions: module.functions.iter().map(|(name, f)| (name.clone(), copy(f))).collect() }
}

fn is_large(f: &Function) -> bool {
    f.live().iter().filter(|live| **live).count() >= LARGE
}

#[cfg(test)]
mod tests {
    use super::outlined;
    use std::borrow::Cow;
    use std::fmt::Write as _;
    use tilewright_ir::array::Array;
    use tilewright_ir::interp::{Mode, run};
    use tilewright_ir::text::parse;
    use tilewright_ir::types::Bindings;

    /// Layers `x + tanh(x w) w`, with ops that do nothing much to make them long.
    fn layers(count: usize) -> String {
        let weights: String = (0..count).map(|i| format!(", weight %w{i}: f32[8, 8]")).collect();
        let mut text = format!("func @main(%x: f32[4, 8]{weights}) -> (f32[4, 8]) {{\n");
        text += "  %0 = tanh %x : f32[4, 8]\n";
        let (mut x, mut next) = ("%0".to_string(), 1);
        for i in 0..count {
            let mut push = |op: String| {
                writeln!(text, "  %{next} = {op} : f32[4, 8]").unwrap();
                next += 1;
                format!("%{}", next - 1)
            };
            let mut y = push(format!("dot {x}, %w{i} batch=[]x[] contract=[1]x[0]"));
            for _ in 0..30 {
                y = push(format!("tanh {y}"));
            }
            let y = push(format!("dot {y}, %w{i} batch=[]x[] contract=[1]x[0]"));
            x = push(format!("add {x}, {y}"));
        }
        text + &format!("  return {x}\n}}\n")
    }

    #[test]
    fn layers_of_a_large_function_become_calls_of_one() {
        let module = parse("m.tw", &layers(20)).unwrap();
        let made = outlined(&module).unwrap().into_owned();
        let inputs: Vec<Array> = (0..21)
            .map(|i| {
                let shape = if i == 0 { [4, 8] } else { [8, 8] };
                let count = shape[0] * shape[1];
                Array::from_f32(&shape, &(0..count).map(|k| ((i + k * 7) % 11) as f32 / 9.0 - 0.5).collect::<Vec<_>>())
            })
            .collect::<Result<_, _>>()
            .unwrap();
        let result = |m| run(m, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap()[0].bytes().to_vec();
        assert_eq!(result(&module), result(&made));
        let names: Vec<&str> = made.functions.keys().map(|n| &**n).collect();
        assert_eq!(names, ["block", "main"]);
        assert_eq!(made.functions["main"].nodes.len(), 1 + 20 + 1 + 20);
        // Again it stays as it is.
        assert!(matches!(outlined(&made).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_small_stays() {
        let module = parse("m.tw", &layers(10)).unwrap();
        assert!(matches!(outlined(&module).unwrap(), Cow::Borrowed(_)));
    }
}
