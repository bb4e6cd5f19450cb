//! The walk over a graph: names to values, nodes to primitives, nodes of constants to constants.

use super::super::shown;
use super::call::{Call, Operand, mistake};
use super::table::{self, Build, Row};
use super::{OnnxGraph, OnnxNode, OnnxProgram, demand};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::flops::cost;
use tilewright_ir::graph::Function;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, Type};

/// Elements of a value up to which it is computed at import where it can be; larger ones are left to the program, whose
/// optimiser may fuse what makes them. Values that decide shapes are computed whatever their size.
const FOLDED: usize = 1024;

/// Bytes and operations that one node may cost at import. Sizes in a file are hostile.
const WORK: i64 = 1 << 26;

/// A value of the graph: known, a tensor of the function, or both.
#[derive(Clone)]
struct Item {
    value: Option<Array>,
    tensor: Option<Tensor>,
}

struct Importer<'a> {
    graph: &'a OnnxGraph,
    needed: BTreeSet<&'a str>,
    function: Graph,
    values: BTreeMap<&'a str, Item>,
}

fn wrong(message: String) -> Diagnostic {
    Diagnostic::new("onnx-graph", message)
}

/// See [`OnnxProgram::build`].
pub(super) fn build(graph: &OnnxGraph, given: &BTreeMap<String, Array>) -> Result<OnnxProgram, Diagnostic> {
    let (needed, function) = (demand::needed(graph)?, Graph::new("main"));
    let mut importer = Importer { graph, needed, function, values: BTreeMap::new() };
    let mut parameters = importer.inputs(given)?;
    let weights = importer.initialisers()?;
    parameters.extend(weights.keys().cloned());
    for (number, node) in graph.nodes.iter().enumerate() {
        importer.node(number, node).map_err(|d| table::placed(d, number, node))?;
    }
    let results = graph.outputs.iter().map(|name| importer.tensor(name)).collect::<Result<Vec<Tensor>, _>>()?;
    let mut module = importer.function.finish(&results.iter().collect::<Vec<_>>())?;
    for node in module.functions.values_mut().flat_map(|f| &mut f.nodes) {
        // Lines of the importer say nothing to the user; the scope names the node of the graph.
        node.places = if node.scope.is_empty() { Vec::new() } else { vec![Place::Named(node.scope.clone())] };
    }
    Ok(OnnxProgram { module, parameters, outputs: graph.outputs.clone(), weights })
}

impl<'a> Importer<'a> {
    /// Declares inputs; gives the names of those that are parameters.
    fn inputs(&mut self, given: &BTreeMap<String, Array>) -> Result<Vec<String>, Diagnostic> {
        let mut parameters = Vec::new();
        for (name, ty) in &self.graph.inputs {
            if self.graph.initialisers.contains_key(name) {
                // A default that the caller might replace; here it is the value.
                continue;
            }
            let item = if self.needed.contains(name.as_str()) {
                let absent = || {
                    let message = format!("a shape depends on the input {}, so its value must be given", shown(name));
                    Diagnostic::new("onnx-input", message)
                };
                let array = given.get(name).cloned().ok_or_else(absent)?;
                if array.dtype() != ty.dtype || !ty.concrete(&Bindings::new()).is_ok_and(|s| s == array.shape()) {
                    let found = format!("{}{:?}", array.dtype(), array.shape());
                    let message = format!("the input {} is declared as {ty}, the value is {found}", shown(name));
                    return Err(Diagnostic::new("onnx-input", message));
                }
                Item { value: Some(array), tensor: None }
            } else {
                let tensor = self.function.input(name, ty.dtype, &ty.shape);
                if tensor.is_poisoned() {
                    return Err(mistake(&self.function));
                }
                parameters.push(name.clone());
                Item { value: None, tensor: Some(tensor) }
            };
            self.define(name, item)?;
        }
        Ok(parameters)
    }

    /// Declares initialisers; gives those that are parameters.
    fn initialisers(&mut self) -> Result<BTreeMap<String, Array>, Diagnostic> {
        let mut weights = BTreeMap::new();
        for (name, array) in &self.graph.initialisers {
            let item = if array.len() <= FOLDED || self.needed.contains(name.as_str()) {
                Item { value: Some(array.clone()), tensor: None }
            } else {
                weights.insert(name.clone(), array.clone());
                let tensor = self.function.weight(name, array.dtype(), array.shape().to_vec());
                Item { value: None, tensor: Some(tensor) }
            };
            self.define(name, item)?;
        }
        Ok(weights)
    }

    fn define(&mut self, name: &'a str, item: Item) -> Result<(), Diagnostic> {
        match self.values.insert(name, item) {
            Some(_) => Err(wrong(format!("the value {} is defined twice", shown(name)))),
            None => Ok(()),
        }
    }

    fn item(&self, name: &str) -> Result<&Item, Diagnostic> {
        self.values.get(name).ok_or_else(|| wrong(format!("no value {} before its use", shown(name))))
    }

    /// The value `name` in the function; a known one becomes a constant once.
    fn tensor(&mut self, name: &str) -> Result<Tensor, Diagnostic> {
        let item = self.item(name)?;
        match (&item.tensor, &item.value) {
            (Some(tensor), _) => Ok(tensor.clone()),
            (None, Some(value)) => {
                let tensor = self.function.constant(value.clone());
                if let Some(item) = self.values.get_mut(name) {
                    item.tensor = Some(tensor.clone());
                }
                Ok(tensor)
            }
            (None, None) => Err(Diagnostic::bug("a value that is neither known nor computed")),
        }
    }

    fn node(&mut self, number: usize, node: &'a OnnxNode) -> Result<(), Diagnostic> {
        let row = table::find(number, node)?;
        row.check(node)?;
        let items = node.inputs.iter().map(|name| if name.is_empty() { Ok(None) } else { self.item(name).map(Some) });
        let items = items.collect::<Result<Vec<Option<&Item>>, Diagnostic>>()?;
        let results = match self.folded(row, node, &items)? {
            Some(arrays) => arrays.into_iter().map(|a| Item { value: Some(a), tensor: None }).collect(),
            None => self.built(row, number, node)?,
        };
        if results.len() < node.outputs.len() {
            let (found, most) = (node.outputs.len(), results.len());
            return Err(wrong(format!("the node names {found} results, the op has {most}")));
        }
        for (name, item) in node.outputs.iter().zip(results).filter(|(name, _)| !name.is_empty()) {
            self.define(name, item)?;
        }
        Ok(())
    }

    fn opset(&self, row: &Row) -> Result<i64, Diagnostic> {
        // The standard domain has two names.
        let found = if row.domain.is_empty() {
            self.graph.opset.get("ai.onnx").or_else(|| self.graph.opset.get(""))
        } else {
            self.graph.opset.get(row.domain)
        };
        let domain = if row.domain.is_empty() { "ai.onnx" } else { row.domain };
        found.copied().ok_or_else(|| wrong(format!("no version of the domain `{domain}` is imported")))
    }

    /// The results as primitives of the function.
    fn built(&mut self, row: &Row, number: usize, node: &'a OnnxNode) -> Result<Vec<Item>, Diagnostic> {
        let mut operands = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            operands.push(if name.is_empty() {
                None
            } else {
                Some(Operand { tensor: self.tensor(name)?, value: self.item(name)?.value.clone() })
            });
        }
        let call = Call::new(&self.function, self.opset(row)?, node, operands);
        let made = self.function.scope(&format!("{}.{number}", row.op), || call.made(row))?;
        Ok(made)
    }

    /// The results as constants, if every operand is known and they are small or must be known.
    fn folded(&self, row: &Row, node: &'a OnnxNode, items: &[Option<&Item>]) -> Result<Option<Vec<Array>>, Diagnostic> {
        let values: Option<Vec<Option<&Array>>> =
            items.iter().map(|i| i.map_or(Some(None), |i| i.value.as_ref().map(Some))).collect();
        let Some(values) = values else { return Ok(None) };
        let scratch = Graph::new("folded");
        let operand = |a: &Array| Operand { tensor: scratch.constant(a.clone()), value: Some(a.clone()) };
        let operands = values.into_iter().map(|v| v.map(operand)).collect();
        let call = Call::new(&scratch, self.opset(row)?, node, operands);
        let made = call.made(row)?;
        let tensors: Vec<&Tensor> = made.iter().filter_map(|item| item.tensor.as_ref()).collect();
        if tensors.is_empty() {
            return Ok(Some(made.into_iter().filter_map(|item| item.value).collect()));
        }
        let elements = |t: &&Tensor| t.ty().elements().and_then(|n| n.as_const());
        let small = tensors.iter().all(|t| elements(t).is_some_and(|n| n <= FOLDED as i64));
        let needed = node.outputs.iter().any(|o| self.needed.contains(o.as_str()));
        let module = scratch.finish(&tensors)?;
        let cheap = work(module.entry()?).is_some_and(|n| n <= WORK);
        if needed && !cheap {
            let message =
                format!("decides a shape, and takes more than the {WORK} operations that are allowed at import");
            return Err(call.wrong("too-large", message));
        }
        if !(needed || small && cheap) {
            return Ok(None);
        }
        interp::run(&module, "folded", &[], &Bindings::new(), Mode::Strict).map(Some)
    }
}

/// Bytes and operations of a function without symbols; `None` if they overflow.
fn work(function: &Function) -> Option<i64> {
    function.nodes.iter().try_fold(0i64, |sum, node| {
        let args: Vec<&Type> = node.args.iter().map(|&a| function.ty(a)).collect();
        let cost = cost(&node.op, &args, &node.types)?;
        sum.checked_add(cost.flops.as_const()?)?.checked_add(cost.bytes.as_const()?)
    })
}

impl Call<'_> {
    /// The results of the op, without a mistake and with every attribute looked at.
    fn made(&self, row: &Row) -> Result<Vec<Item>, Diagnostic> {
        let tensors = match row.build {
            Build::Known(build) => {
                let value = build(self)?;
                self.all_read()?;
                return Ok(vec![Item { value: Some(value), tensor: None }]);
            }
            Build::One(build) => vec![build(self)?],
            Build::Many(build) => build(self)?,
        };
        if self.graph.failed() {
            return Err(mistake(self.graph));
        }
        self.all_read()?;
        Ok(tensors.into_iter().map(|t| Item { value: None, tensor: Some(t) }).collect())
    }
}
