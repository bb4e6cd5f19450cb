//! Names of axes, tensors and attributes in texts about terms.

use super::cover::each;
use super::facts::Graph;
use super::lang::{Affine, Attr, AxisId, AxisSet, GATHERED};

/// The side tables of an e-graph, as words.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub &'a Graph);

impl Words<'_> {
    /// An axis.
    pub fn axis(&self, axis: AxisId) -> String {
        if axis == GATHERED {
            return "?".into();
        }
        self.0.analysis.axes.get(usize::from(axis)).map_or_else(|| format!("@{axis}"), |a| a.name.to_string())
    }

    /// Some axes, in order.
    pub fn axes(&self, set: AxisSet) -> String {
        each(set).map(|a| self.axis(a)).collect::<Vec<_>>().join(" ")
    }

    fn affine(&self, e: &Affine) -> String {
        let mut parts: Vec<String> = Vec::new();
        for &(axis, factor) in &e.terms {
            let name = self.axis(axis);
            parts.push(if factor == 1 { name } else { format!("{factor}*{name}") });
        }
        if parts.is_empty() || e.constant != 0 {
            parts.push(e.constant.to_string());
        }
        parts.join("+")
    }

    /// An attribute.
    pub fn attr(&self, attr: &Attr) -> String {
        match attr {
            Attr::Axis(axis) => self.axis(*axis),
            Attr::Const(number) => number.value().to_string(),
            Attr::Input(input) => {
                let table = self.0.analysis.inputs.get(*input as usize);
                table.map_or_else(|| format!("in{input}"), |t| t.name.to_string())
            }
            Attr::Map(map) => format!("[{}]", map.iter().map(|e| self.affine(e)).collect::<Vec<_>>().join(", ")),
            Attr::Subst(map) => {
                let one = |(axis, with): &(u8, Affine)| format!("{}:={}", self.axis(*axis), self.affine(with));
                format!("{{{}}}", map.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Attr::DType(dtype) => dtype.to_string(),
        }
    }
}
