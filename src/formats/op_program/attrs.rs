//! Attributes of a node, with the defaults that torch has.

use serde_json::{Map, Value as Json};
use tilewright_ir::diag::Diagnostic;

/// The attributes of one node.
pub(super) struct Attrs<'a> {
    pub(super) op: &'a str,
    pub(super) map: &'a Map<String, Json>,
}

pub(super) fn wrong(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("op-program", message)
}

impl Attrs<'_> {
    fn bad(&self, key: &str, want: &str) -> Diagnostic {
        let found = self.map.get(key).map_or("nothing".to_owned(), |j| j.to_string());
        wrong(format!("`{}` needs {want} as `{key}`, found {found}", self.op))
    }

    fn get(&self, key: &str) -> Option<&Json> {
        self.map.get(key).filter(|j| !j.is_null())
    }

    pub(super) fn int(&self, key: &str, default: Option<i64>) -> Result<i64, Diagnostic> {
        self.get(key).map_or(default, Json::as_i64).ok_or_else(|| self.bad(key, "an integer"))
    }

    pub(super) fn number(&self, key: &str, default: Option<f64>) -> Result<f64, Diagnostic> {
        self.get(key).map_or(default, Json::as_f64).ok_or_else(|| self.bad(key, "a number"))
    }

    /// A number that may be absent.
    pub(super) fn optional(&self, key: &str) -> Result<Option<f64>, Diagnostic> {
        self.get(key).map(|j| j.as_f64().ok_or_else(|| self.bad(key, "a number"))).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Diagnostic> {
        self.get(key).map_or(Some(false), Json::as_bool).ok_or_else(|| self.bad(key, "true or false"))
    }

    pub(super) fn text(&self, key: &str, default: Option<&str>) -> Result<String, Diagnostic> {
        let found = self.get(key).map_or(default, Json::as_str);
        found.map(str::to_owned).ok_or_else(|| self.bad(key, "a text"))
    }

    /// A list of integers, or `None` if it is absent.
    pub(super) fn ints(&self, key: &str) -> Result<Option<Vec<i64>>, Diagnostic> {
        let Some(json) = self.get(key) else { return Ok(None) };
        let list = json.as_array().and_then(|l| l.iter().map(Json::as_i64).collect::<Option<Vec<i64>>>());
        list.map(Some).ok_or_else(|| self.bad(key, "a list of integers"))
    }

    /// A list of pairs of integers.
    pub(super) fn pairs(&self, key: &str) -> Result<Vec<(i64, i64)>, Diagnostic> {
        let pair = |j: &Json| match j.as_array().map(Vec::as_slice) {
            Some([a, b]) => Some((a.as_i64()?, b.as_i64()?)),
            _ => None,
        };
        let list = self.get(key).and_then(Json::as_array).and_then(|l| l.iter().map(pair).collect());
        list.ok_or_else(|| self.bad(key, "a list of pairs"))
    }

    /// Refuses a wrong number of operands.
    pub(super) fn count(&self, found: usize, least: usize, most: usize) -> Result<(), Diagnostic> {
        if (least..=most).contains(&found) {
            return Ok(());
        }
        Err(wrong(format!("`{}` takes {least} to {most} operands, found {found}", self.op)))
    }
}

/// The axis that `dim` names, counted from the end if negative.
pub(super) fn axis(dim: i64, rank: usize) -> Result<usize, Diagnostic> {
    let at = if dim < 0 { dim.checked_add(rank as i64) } else { Some(dim) };
    at.and_then(|d| usize::try_from(d).ok())
        .filter(|&d| d < rank)
        .ok_or_else(|| wrong(format!("the dim {dim} is out of range for rank {rank}")))
}
