//! Patterns of rule files: text to terms with their columns, and the swapped variants of commutative heads.

use super::lang::Head;
use std::sync::Arc;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::text::nearest;

/// Deepest nesting of a pattern; more is a mistake, and recursion stays bounded.
const MAX_DEPTH: usize = 32;
/// Most variants of one left side.
const MAX_VARIANTS: usize = 256;

/// A line of a rule file, for places in diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// File name.
    pub file: Arc<str>,
    /// Number, from 1.
    pub number: u32,
    /// Text without the line end.
    pub text: Arc<str>,
}

impl Line {
    /// A diagnostic with a caret under `length` characters from `column` (from 0).
    pub fn error(&self, code: &'static str, message: String, column: usize, length: usize) -> Diagnostic {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let place = Place::Text {
            file: self.file.clone(),
            line: self.number,
            column: small(column.saturating_add(1)),
            length: small(length.max(1)),
        };
        let mut diag = Diagnostic::new(code, message).at(place, "");
        diag.lines.push((self.file.clone(), self.number, self.text.to_string()));
        diag
    }
}

/// A pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// `?a`, without the question mark.
    Variable(Arc<str>),
    /// A number, of the dtype of the class that the rule's left side matches.
    Number(f64),
    /// `(cast ?x)`: cast to the dtype of the class that the rule's left side matches.
    Own(Box<Term>),
    /// `(head argument*)`.
    Apply(Head, Vec<Term>),
}

impl Term {
    /// Whether `(cast ?x)` occurs.
    pub fn has_own(&self) -> bool {
        match self {
            Term::Variable(_) | Term::Number(_) => false,
            Term::Own(_) => true,
            Term::Apply(_, args) => args.iter().any(Term::has_own),
        }
    }

    /// Adds the axes whose positions occur: `?j` of `(iota ?j)`.
    pub fn positions<'t>(&'t self, out: &mut Vec<&'t str>) {
        let (head, args) = match self {
            Term::Variable(_) | Term::Number(_) => return,
            Term::Own(x) => return x.positions(out),
            Term::Apply(head, args) => (head, args),
        };
        match (head, args.first()) {
            (Head::Iota, Some(Term::Variable(axis))) => out.push(axis),
            (_, Some(_) | None) => args.iter().for_each(|a| a.positions(out)),
        }
    }

    /// Calls `visit` with every variable and the names of the axes bound around it.
    pub fn variables(&self, bound: &mut Vec<Arc<str>>, visit: &mut impl FnMut(&Arc<str>, &[Arc<str>])) {
        match self {
            Term::Variable(name) => visit(name, bound),
            Term::Number(_) => {}
            Term::Own(x) => x.variables(bound, visit),
            Term::Apply(Head::Fold(_), args) => {
                let Some((axis, body)) = args.split_first() else { return };
                // The name of an axis, unlike the position along it, means the same under every fold.
                axis.variables(&mut Vec::new(), visit);
                let depth = bound.len();
                if let Term::Variable(name) = axis {
                    bound.push(name.clone());
                }
                for arg in body {
                    arg.variables(bound, visit);
                }
                bound.truncate(depth);
            }
            Term::Apply(Head::Extent, args) => {
                for arg in args {
                    arg.variables(&mut Vec::new(), visit);
                }
            }
            Term::Apply(_, args) => {
                for arg in args {
                    arg.variables(bound, visit);
                }
            }
        }
    }

    /// With two variables exchanged.
    pub fn exchanged(&self, a: &Arc<str>, b: &Arc<str>) -> Term {
        match self {
            Term::Variable(name) if name == a => Term::Variable(b.clone()),
            Term::Variable(name) if name == b => Term::Variable(a.clone()),
            Term::Variable(_) | Term::Number(_) => self.clone(),
            Term::Own(x) => Term::Own(Box::new(x.exchanged(a, b))),
            Term::Apply(head, args) => Term::Apply(head.clone(), args.iter().map(|x| x.exchanged(a, b)).collect()),
        }
    }

    /// Every order of the operands of commutative heads, this one first, without duplicates; `None` if too many.
    pub fn variants(&self) -> Option<Vec<Term>> {
        let (head, args) = match self {
            Term::Variable(_) | Term::Number(_) => return Some(vec![self.clone()]),
            Term::Own(x) => return Some(x.variants()?.into_iter().map(|v| Term::Own(Box::new(v))).collect()),
            Term::Apply(head, args) => (head, args),
        };
        let mut rows: Vec<Vec<Term>> = vec![Vec::new()];
        for arg in args {
            let parts = arg.variants()?;
            rows = rows.iter().flat_map(|r| parts.iter().map(|p| [&r[..], std::slice::from_ref(p)].concat())).collect();
            if rows.len() > MAX_VARIANTS {
                return None;
            }
        }
        let mut out: Vec<Term> = Vec::new();
        for row in rows {
            let swapped: Vec<Term> = row.iter().rev().cloned().collect();
            for args in [Some(row), commutes(head).then_some(swapped)].into_iter().flatten() {
                let term = Term::Apply(head.clone(), args);
                if !out.contains(&term) {
                    out.push(term);
                }
            }
        }
        (out.len() <= MAX_VARIANTS).then_some(out)
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Term::Variable(name) => write!(f, "?{name}"),
            Term::Number(value) => write!(f, "{value}"),
            Term::Own(x) => write!(f, "(cast {x})"),
            Term::Apply(head, args) => {
                write!(f, "({head}")?;
                for arg in args {
                    write!(f, " {arg}")?;
                }
                f.write_str(")")
            }
        }
    }
}

/// Whether the two operands may be swapped without changing a bit (NaN payloads aside).
fn commutes(head: &Head) -> bool {
    let Head::Scalar(op) = head else { return false };
    let list = [
        ScalarOp::Add {},
        ScalarOp::Mul {},
        ScalarOp::Max {},
        ScalarOp::Min {},
        ScalarOp::Eq {},
        ScalarOp::Ne {},
        ScalarOp::And {},
        ScalarOp::Or {},
        ScalarOp::Xor {},
    ];
    list.contains(op)
}

/// Parses one pattern that starts at byte `from` of the line; returns it and the byte after it.
pub(super) fn parse_term(line: &Line, from: usize, end: usize) -> Result<(Term, usize), Diagnostic> {
    Parser { line, end }.term(from, 0)
}

struct Parser<'a> {
    line: &'a Line,
    end: usize,
}

impl Parser<'_> {
    fn text(&self, from: usize, to: usize) -> &str {
        self.line.text.get(from..to).unwrap_or("")
    }

    fn error(&self, code: &'static str, message: String, from: usize, to: usize) -> Diagnostic {
        let columns = self.text(0, from).chars().count();
        self.line.error(code, message, columns, self.text(from, to).chars().count())
    }

    fn skip(&self, from: usize) -> usize {
        let rest = self.text(from, self.end);
        from + (rest.len() - rest.trim_start().len())
    }

    fn word(&self, from: usize) -> (&str, usize) {
        let rest = self.text(from, self.end);
        let length = rest.find(|c: char| c.is_whitespace() || c == '(' || c == ')').unwrap_or(rest.len());
        (self.text(from, from + length), from + length)
    }

    fn term(&self, from: usize, depth: usize) -> Result<(Term, usize), Diagnostic> {
        let from = self.skip(from);
        if depth > MAX_DEPTH {
            return Err(self.error("rule-syntax", format!("patterns nest at most {MAX_DEPTH} deep"), from, from));
        }
        if self.text(from, self.end).starts_with('(') {
            return self.apply(from, depth);
        }
        let (word, to) = self.word(from);
        if let Some(name) = word.strip_prefix('?') {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(self.error("rule-syntax", format!("expected a variable, found `{word}`"), from, to));
            }
            return Ok((Term::Variable(name.into()), to));
        }
        match word.parse::<f64>() {
            Ok(value) if value.is_infinite() && word.contains(|c: char| c.is_ascii_digit()) => {
                let message = format!("`{word}` is no finite number, and an infinity is written `inf`");
                Err(self.error("rule-syntax", message, from, to))
            }
            Ok(value) if !value.is_nan() => Ok((Term::Number(value), to)),
            Ok(_) | Err(_) => {
                let message = format!("expected a variable, a number or `(`, found `{word}`");
                Err(self.error("rule-syntax", message, from, to))
            }
        }
    }

    fn apply(&self, open: usize, depth: usize) -> Result<(Term, usize), Diagnostic> {
        let at = self.skip(open + 1);
        let (name, mut next) = self.word(at);
        let own = name == "cast";
        if name.is_empty() {
            let rest = self.text(at, self.end);
            let message = match rest.chars().next() {
                Some(found) => format!("expected a head after `(`, found `{found}`"),
                None => "expected a head, and `)` to close this".to_string(),
            };
            return Err(self.error("rule-syntax", message, open, open + 1));
        }
        let (head, arity) = match Head::by_name(name) {
            Some((head, arity)) => (Some(head), arity),
            None if own => (None, 1),
            None => {
                let error = self.error("unknown-head", format!("unknown head `{name}`"), at, next);
                return Err(match nearest(name, Head::names()) {
                    Some(known) => error.note(format!("a similar one is `{known}`")),
                    None => {
                        error.note("`tilewright ops` lists scalar ops; folds are sum, fold-max, fold-min, fold-prod")
                    }
                });
            }
        };
        let mut args = Vec::new();
        loop {
            next = self.skip(next);
            if self.text(next, self.end).is_empty() {
                return Err(self.error("rule-syntax", "expected `)` to close this".into(), open, open + 1));
            }
            if self.text(next, self.end).starts_with(')') {
                break;
            }
            let (arg, after) = self.term(next, depth + 1)?;
            args.push(arg);
            next = after;
        }
        if args.len() != arity {
            let message = format!("`{name}` takes {arity} operands, found {}", args.len());
            return Err(self.error("operand-count", message, open, next + 1));
        }
        let Some(head) = head else {
            let inner = args.pop().ok_or_else(|| Diagnostic::bug("a cast without an operand"))?;
            return Ok((Term::Own(Box::new(inner)), next + 1));
        };
        let binds = matches!(head, Head::Fold(_) | Head::Iota | Head::Extent);
        if binds && !matches!(args.first(), Some(Term::Variable(_))) {
            return Err(self.error("rule-syntax", format!("`{name}` takes an axis variable first"), open, next + 1));
        }
        if let (true, [axis, rest @ ..]) = (binds, &args[..])
            && rest.contains(axis)
        {
            let message = format!("`{axis}` is the axis of `{name}`, which is no value");
            return Err(self.error("rule-syntax", message, open, next + 1));
        }
        Ok((Term::Apply(head, args), next + 1))
    }
}
