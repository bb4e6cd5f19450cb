//! Op-program files: small torch programs with inputs, expected outputs and gradients, as the reference data has them.
//!
//! A file is a safetensors file whose metadata key `program` is JSON:
//! `{"inputs": {name: {"shape", "dtype", "grad"}}, "nodes": [[result, op, [args], {attrs}], ..], "outputs": [names]}`.
//! The program becomes the function `main`: one parameter per input in order of name, primitives as nodes.

mod attrs;
mod builder;
mod einsum;
mod linear;
mod ops;
mod shaping;

use super::{Safetensors, shown};
use attrs::{Attrs, wrong};
use builder::Builder;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Module, Param, Role, Value};
use tilewright_ir::types::{DType, Type};

/// An input of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Name; the file's tensor is `in.NAME`.
    pub name: String,
    /// Type; floats have the dtype that was asked for.
    pub ty: Type,
    /// Whether the file has the gradient `grad.NAME`.
    pub grad: bool,
}

/// A program that was read.
#[derive(Clone, Debug)]
pub struct OpProgram {
    /// A module with the function `main`.
    pub module: Module,
    /// Inputs in the order of the parameters.
    pub inputs: Vec<Input>,
    /// Names of the outputs, in the order of the results; the file's tensors are `out.NAME`.
    pub outputs: Vec<String>,
}

impl OpProgram {
    /// Builds the program of a file, with its floats as `float` (f64 or f32).
    ///
    /// Errors: `op-program` for text that is no such program, and those of type inference.
    pub fn from_file(file: &Safetensors, float: DType) -> Result<OpProgram, Diagnostic> {
        let text = file.metadata.get("program").ok_or_else(|| wrong("the file has no metadata `program`"))?;
        OpProgram::parse(text, float).map_err(|d| d.at(Place::Named(file.file.as_str().into()), ""))
    }

    /// Builds a program from its JSON. Errors: like [`OpProgram::from_file`].
    pub fn parse(text: &str, float: DType) -> Result<OpProgram, Diagnostic> {
        if !float.is_float() {
            return Err(wrong(format!("expected a float dtype for the program, found {float}")));
        }
        let json: Json = serde_json::from_str(text).map_err(|e| wrong(format!("the program is not JSON: {e}")))?;
        let inputs = read_inputs(&json, float)?;
        let params = inputs.iter().map(|i| Param { name: i.name.as_str().into(), ty: i.ty.clone(), role: Role::Input });
        let mut builder = Builder::new(params.collect());
        let mut names: BTreeMap<String, Value> = BTreeMap::new();
        for (i, input) in inputs.iter().enumerate() {
            names.insert(input.name.clone(), builder.function.param(i));
        }
        for (number, node) in array(&json, "nodes")?.iter().enumerate() {
            let place = || Place::Named(format!("node {number} of the program").into());
            let (result, op, args, attrs) = read_node(node).map_err(|d| d.at(place(), ""))?;
            let find = |n: &String| {
                names.get(n).copied().ok_or_else(|| wrong(format!("no value {} before its use", shown(n))))
            };
            let value = args
                .iter()
                .map(find)
                .collect::<Result<Vec<Value>, Diagnostic>>()
                .and_then(|args| ops::build(&mut builder, op, &args, &attrs))
                .map_err(|d| d.at(place(), format!("{} = {}", shown(result), shown(op))))?;
            names.insert(result.to_owned(), value);
        }
        let outputs = strings(&json["outputs"], "outputs")?;
        for name in &outputs {
            let value = names.get(name).ok_or_else(|| wrong(format!("no value {} to return", shown(name))))?;
            builder.function.results.push(*value);
        }
        let mut module = Module::default();
        module.functions.insert(builder.function.name.clone(), builder.function);
        Ok(OpProgram { module, inputs, outputs })
    }

    /// The arrays `in.NAME` of a file, in the dtypes of the parameters.
    ///
    /// Errors: `checkpoint-tensor`, `checkpoint-dtype`, `op-program`.
    pub fn read_inputs(&self, file: &Safetensors) -> Result<Vec<Array>, Diagnostic> {
        self.inputs.iter().map(|i| convert(&file.tensor(&format!("in.{}", i.name))?, i.ty.dtype)).collect()
    }

    /// The arrays `cot.NAME` of a file: cotangents of the float outputs, in their dtypes.
    ///
    /// Errors: `checkpoint-tensor`, `checkpoint-dtype`, `op-program`.
    pub fn read_cotangents(&self, file: &Safetensors) -> Result<Vec<Array>, Diagnostic> {
        let f = self.module.entry()?;
        let dtypes = f.results.iter().map(|&r| f.ty(r).dtype);
        let floats = self.outputs.iter().zip(dtypes).filter(|(_, dtype)| dtype.is_float());
        floats.map(|(name, dtype)| convert(&file.tensor(&format!("cot.{name}"))?, dtype)).collect()
    }
}

/// `array` as a program of `dtype` takes it: floats rounded, truth values that are stored as u8 as bools.
fn convert(array: &Array, dtype: DType) -> Result<Array, Diagnostic> {
    let values = || array.to_f64().ok_or_else(|| wrong(format!("an input is stored as {}", array.dtype())));
    match (array.dtype(), dtype) {
        (from, to) if from == to => Ok(array.clone()),
        (DType::U8, DType::Bool) => {
            Array::from_bool(array.shape(), &array.bytes().iter().map(|&b| b != 0).collect::<Vec<bool>>())
        }
        (from, DType::F64) if from.is_float() => Array::from_f64(array.shape(), &values()?),
        (from, DType::F32) if from.is_float() => {
            Array::from_f32(array.shape(), &values()?.iter().map(|&x| x as f32).collect::<Vec<f32>>())
        }
        (from, to) => Err(wrong(format!("an input of dtype {to} is stored as {from}"))),
    }
}

fn array<'a>(json: &'a Json, key: &str) -> Result<&'a Vec<Json>, Diagnostic> {
    json[key].as_array().ok_or_else(|| wrong(format!("expected a list `{key}`")))
}

fn strings(json: &Json, what: &str) -> Result<Vec<String>, Diagnostic> {
    let list = json.as_array().ok_or_else(|| wrong(format!("expected a list of names as {what}")))?;
    let name = |j: &Json| j.as_str().map(str::to_owned).ok_or_else(|| wrong(format!("expected names as {what}")));
    list.iter().map(name).collect()
}

fn read_inputs(json: &Json, float: DType) -> Result<Vec<Input>, Diagnostic> {
    let map = json["inputs"].as_object().ok_or_else(|| wrong("expected an object `inputs`"))?;
    let mut inputs = Vec::with_capacity(map.len());
    for (name, info) in map.iter().collect::<BTreeMap<_, _>>() {
        let shape = array(info, "shape")?
            .iter()
            .map(|d| d.as_i64().filter(|&d| d >= 0))
            .collect::<Option<Vec<i64>>>()
            .ok_or_else(|| wrong(format!("the input {} has a shape of other than sizes", shown(name))))?;
        let dtype = match info["dtype"].as_str() {
            Some("f64") => float,
            Some("i64") => DType::I64,
            Some("bool") => DType::Bool,
            other => return Err(wrong(format!("expected the dtype f64, i64 or bool, found {other:?}"))),
        };
        let grad = info["grad"].as_bool().unwrap_or(false);
        inputs.push(Input { name: name.clone(), ty: Type::new(dtype, shape), grad });
    }
    Ok(inputs)
}

type Node<'a> = (&'a str, &'a str, Vec<String>, Attrs<'a>);

fn read_node(node: &Json) -> Result<Node<'_>, Diagnostic> {
    let parts = node.as_array().map(Vec::as_slice).unwrap_or_default();
    let [Json::String(result), Json::String(op), args, Json::Object(attrs)] = parts else {
        return Err(wrong("expected a node [result, op, [args], {attrs}]"));
    };
    Ok((result, op, strings(args, "args")?, Attrs { op, map: attrs }))
}

#[cfg(test)]
mod tests;
