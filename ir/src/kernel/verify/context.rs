//! What is known at a place of the kernel: names as linear forms, facts, and the unknowns behind them.

use super::linear::{Form, Unknown, follows};
use crate::kernel::expr::{BinaryOp, Expr, Ident};
use crate::op::ScalarOp;
use crate::types::DType;
use std::collections::BTreeMap;

/// What an unknown stands for.
#[derive(Clone, Debug)]
pub(super) struct UnknownInfo {
    /// For messages.
    pub name: String,
    /// Differs between grid points, warps, blocks of a cluster, instances of a role.
    pub parallel: bool,
    /// The same at all grid points.
    pub uniform: bool,
    /// Its values are `0..extent`.
    pub extent: Option<Form>,
    /// Counts a loop.
    pub counted: bool,
    /// The loop's variable and a second bound of it, where `extent` comes from the first.
    pub clip: Option<(Form, Form)>,
    /// The unknowns that it is the product of.
    pub factors: Vec<Unknown>,
}

/// Most terms of a product and most unknowns in one of them: indices have a few, what a kernel computes has no bound.
const TERMS: usize = 32;
const FACTORS: usize = 8;

/// Operations whose results are unknowns of their own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Product(Vec<Unknown>),
    Floor(Form, i128),
    Min(Form, Form),
    Max(Form, Form),
}

/// A scope mark.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize, usize);

/// Names, facts and unknowns.
#[derive(Default)]
pub(super) struct Context {
    /// Integers in scope; none for tiles of other kinds.
    names: Vec<(Ident, Option<Form>)>,
    /// Hold by construction of the unknowns, everywhere.
    definitions: Vec<Form>,
    /// Hold in the present block: that a loop runs, that a condition holds.
    facts: Vec<Form>,
    pub unknowns: Vec<UnknownInfo>,
    made: BTreeMap<Key, Unknown>,
    /// Proofs asked for.
    pub proofs: usize,
}

impl Context {
    pub(super) fn mark(&self) -> Mark {
        Mark(self.names.len(), self.facts.len())
    }

    pub(super) fn release(&mut self, mark: Mark) {
        self.names.truncate(mark.0);
        self.facts.truncate(mark.1);
    }

    pub(super) fn bind(&mut self, name: &Ident, form: Option<Form>) {
        self.names.push((name.clone(), form));
    }

    pub(super) fn lookup(&self, name: &str) -> Option<&Option<Form>> {
        self.names.iter().rev().find(|(n, _)| **n == *name).map(|(_, f)| f)
    }

    pub(super) fn fresh(&mut self, name: &str, parallel: bool, extent: Option<Form>) -> Unknown {
        let (counted, clip, factors) = (false, None, Vec::new());
        let info = UnknownInfo { name: name.into(), parallel, uniform: false, extent, counted, clip, factors };
        self.unknowns.push(info);
        self.unknowns.len() - 1
    }

    /// `form >= 0` in this block.
    pub(super) fn assume(&mut self, form: Option<Form>) {
        self.facts.extend(form);
    }

    fn define(&mut self, form: Option<Form>) {
        self.definitions.extend(form);
    }

    /// Whether `goal >= 0` always holds here.
    pub(super) fn prove(&mut self, goal: &Form) -> bool {
        self.proofs += 1;
        follows(goal, self.definitions.iter().chain(&self.facts))
    }

    /// A variable in `0..extent`.
    pub(super) fn variable(&mut self, name: &Ident, parallel: bool, extent: &Form) -> Form {
        let u = self.fresh(name, parallel, Some(extent.clone()));
        let v = Form::unknown(u);
        self.assume(Some(v.clone()));
        self.assume(extent.plus(&v, -1).and_then(|f| f.offset(-1)));
        v
    }

    /// An integer about which nothing is known.
    pub(super) fn opaque(&mut self, name: &str) -> Form {
        Form::unknown(self.fresh(name, false, None))
    }

    /// The integer that `e` is, or none if it is no integer.
    pub(super) fn form(&mut self, e: &Expr) -> Option<Form> {
        match e {
            Expr::Int(n) => Some(Form::number((*n).into())),
            Expr::Real(_) | Expr::Order(..) => None,
            Expr::Name(n) => self.lookup(n).cloned().flatten(),
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.form(a)?, self.form(b)?);
                let Some(b) = b.as_number().filter(|b| *b > 0) else { return Some(self.opaque("a division")) };
                let exact = match op {
                    BinaryOp::Floor => self.floor(&a, b),
                    BinaryOp::Ceil => a.offset(b - 1).and_then(|a| self.floor(&a, b)),
                    BinaryOp::Mod => self.floor(&a, b).and_then(|q| a.plus(&q, -b)),
                };
                Some(exact.unwrap_or_else(|| self.opaque("a division")))
            }
            Expr::Iota(axis, start, size) => {
                let (start, size) = (self.form(start)?, self.form(size)?);
                let i = self.variable(axis, false, &size);
                start.plus(&i, 1)
            }
            Expr::Reduce(..) => Some(self.opaque("a reduction")),
            Expr::Scalar(op, args) => {
                let forms: Option<Vec<Form>> = args.iter().map(|a| self.form(a)).collect();
                let exact = match forms {
                    Some(forms) => self.scalar(op, &forms),
                    None if self.is_integer(op, args) => None,
                    None => return None,
                };
                Some(exact.unwrap_or_else(|| self.opaque("an expression")))
            }
        }
    }

    /// Whether what is computed of operands of which some are no integers is one.
    fn is_integer(&mut self, op: &ScalarOp, args: &[Expr]) -> bool {
        match (op, args) {
            (ScalarOp::Cast { to }, _) => to.is_int(),
            (ScalarOp::Select {}, [_, yes, no]) => self.form(yes).is_some() && self.form(no).is_some(),
            (_, _) => false,
        }
    }

    fn scalar(&mut self, op: &ScalarOp, args: &[Form]) -> Option<Form> {
        match (op, args) {
            (ScalarOp::Add {}, [a, b]) => a.plus(b, 1),
            (ScalarOp::Sub {}, [a, b]) => a.plus(b, -1),
            (ScalarOp::Neg {}, [a]) => Form::default().plus(a, -1),
            (ScalarOp::Mul {}, [a, b]) => self.product(a, b),
            (ScalarOp::Div {} | ScalarOp::Rem {}, [a, b]) => {
                // truncation is the floor only from 0 on
                let n = b.as_number().filter(|n| *n > 0)?;
                if !self.prove(a) {
                    return None;
                }
                let q = self.floor(a, n)?;
                if matches!(op, ScalarOp::Div {}) { Some(q) } else { a.plus(&q, -n) }
            }
            (ScalarOp::Min {}, [a, b]) => Some(self.extreme(a, b, true)),
            (ScalarOp::Max {}, [a, b]) => Some(self.extreme(a, b, false)),
            (ScalarOp::Cast { to: DType::I64 }, [a]) => Some(a.clone()),
            (ScalarOp::Cast { to: DType::I32 }, [a]) => {
                let fits = a.offset(1 << 31).is_some_and(|f| self.prove(&f))
                    && Form::number((1 << 31) - 1).plus(a, -1).is_some_and(|f| self.prove(&f));
                fits.then(|| a.clone())
            }
            (_, _) => None,
        }
    }

    fn made(&mut self, key: Key, name: &str) -> (Unknown, bool) {
        if let Some(u) = self.made.get(&key) {
            return (*u, false);
        }
        let u = self.fresh(name, false, None);
        self.made.insert(key, u);
        (u, true)
    }

    /// `floor(a / n)`, n > 0.
    fn floor(&mut self, a: &Form, n: i128) -> Option<Form> {
        if a.terms.values().all(|c| c % n == 0) {
            let terms = a.terms.iter().map(|(u, c)| (*u, c / n)).collect();
            return Some(Form { terms, constant: a.constant.div_euclid(n) });
        }
        let (q, new) = self.made(Key::Floor(a.clone(), n), "a division");
        self.unknowns[q].uniform = a.terms.keys().all(|u| self.unknowns[*u].uniform);
        let form = Form::unknown(q);
        if new {
            self.define(a.plus(&form, -n));
            self.define(Form::number(n - 1).plus(&form, n).and_then(|f| f.plus(a, -1)));
        }
        Some(form)
    }

    fn extreme(&mut self, a: &Form, b: &Form, min: bool) -> Form {
        if let (Some(x), Some(y)) = (a.as_number(), b.as_number()) {
            return Form::number(if min { x.min(y) } else { x.max(y) });
        }
        let key = if min { Key::Min(a.clone(), b.clone()) } else { Key::Max(a.clone(), b.clone()) };
        let (t, new) = self.made(key, if min { "a minimum" } else { "a maximum" });
        self.unknowns[t].uniform = a.terms.keys().chain(b.terms.keys()).all(|u| self.unknowns[*u].uniform);
        let form = Form::unknown(t);
        let sign = if min { 1 } else { -1 };
        if new {
            for x in [a, b] {
                self.define(Form::default().plus(x, sign).and_then(|f| f.plus(&form, -sign)));
            }
        }
        if min && self.prove(a) && self.prove(b) {
            self.assume(Some(form.clone()));
        }
        form
    }

    /// `a * b`: products of unknowns are unknowns, one for each set of factors. None on overflow, or beyond [`TERMS`] terms
    /// or [`FACTORS`] factors.
    pub(super) fn product(&mut self, a: &Form, b: &Form) -> Option<Form> {
        let most = |f: &Form| f.terms.keys().map(|u| self.unknowns[*u].factors.len().max(1)).max().unwrap_or(0);
        if a.terms.len() * b.terms.len() > TERMS || most(a) + most(b) > FACTORS {
            return None;
        }
        let mut sum = Form::number(a.constant.checked_mul(b.constant)?);
        for (u, c) in &a.terms {
            sum = sum.plus(&Form::unknown(*u), c.checked_mul(b.constant)?)?;
        }
        for (u, c) in &b.terms {
            sum = sum.plus(&Form::unknown(*u), c.checked_mul(a.constant)?)?;
        }
        for (u, c) in &a.terms {
            for (v, d) in &b.terms {
                let factor = c.checked_mul(*d)?;
                let m = self.monomial(*u, *v);
                sum = sum.plus(&Form::unknown(m), factor)?;
            }
        }
        Some(sum)
    }

    /// The unknowns that `u` is the product of; itself if it is none.
    pub(super) fn factors(&self, u: Unknown) -> Vec<Unknown> {
        let f = &self.unknowns[u].factors;
        if f.is_empty() { vec![u] } else { f.clone() }
    }

    /// The largest number that some fact says `u` is not below; 0 if none does.
    fn least(&self, u: Unknown) -> i128 {
        let alone = |f: &Form| {
            let coefficient = *f.terms.get(&u).filter(|c| f.terms.len() == 1 && **c > 0)?;
            // coefficient * u >= -constant
            Some(-f.constant.div_euclid(coefficient))
        };
        self.definitions.iter().chain(&self.facts).filter_map(alone).fold(0, i128::max)
    }

    /// The smallest number that some fact says `u` is not above, if one does.
    fn most(&self, u: Unknown) -> Option<i128> {
        let alone = |f: &Form| {
            let coefficient = *f.terms.get(&u).filter(|c| f.terms.len() == 1 && **c < 0)?;
            // constant >= -coefficient * u
            Some(f.constant.div_euclid(coefficient.checked_neg()?))
        };
        self.definitions.iter().chain(&self.facts).filter_map(alone).min()
    }

    fn monomial(&mut self, u: Unknown, v: Unknown) -> Unknown {
        let mut factors = self.factors(u);
        factors.extend(self.factors(v));
        factors.sort_unstable();
        let (m, new) = self.made(Key::Product(factors.clone()), "a product");
        if new {
            self.unknowns[m].uniform = factors.iter().all(|f| self.unknowns[*f].uniform);
            self.unknowns[m].factors = factors;
        }
        let (fu, fv) = (Form::unknown(u), Form::unknown(v));
        if self.prove(&fu) && self.prove(&fv) {
            self.assume(Some(Form::unknown(m)));
            // low <= x <= high gives low * y <= x * y <= high * y
            for (x, y) in [(u, &fv), (v, &fu)] {
                let low = self.least(x);
                if low > 0 {
                    self.assume(Form::unknown(m).plus(y, low.saturating_neg()));
                }
                if let Some(high) = self.most(x) {
                    self.assume(Form::default().plus(y, high).and_then(|f| f.plus(&Form::unknown(m), -1)));
                }
            }
            // x < n gives x * y <= n * y - y
            for (x, y, other) in [(u, &fv, v), (v, &fu, u)] {
                if self.unknowns[other].extent.is_none()
                    && let Some(extent) = self.unknowns[x].extent.clone()
                    && let Some(top) = self.product(&extent, y)
                {
                    let below = top.plus(y, -1).and_then(|f| f.plus(&Form::unknown(m), -1));
                    self.assume(below);
                }
            }
        }
        m
    }

    /// Assumes that `condition` holds, or that it does not, as far as it is linear.
    pub(super) fn suppose(&mut self, condition: &Expr, holds: bool) {
        let Expr::Scalar(op, args) = condition else { return };
        let [a, b] = args.as_slice() else {
            if let (ScalarOp::Not {}, [a]) = (op, args.as_slice()) {
                self.suppose(a, !holds);
            }
            return;
        };
        let both = matches!((op, holds), (ScalarOp::And {}, true) | (ScalarOp::Or {}, false));
        if both {
            self.suppose(a, holds);
            self.suppose(b, holds);
            return;
        }
        let (Some(a), Some(b)) = (self.form(a), self.form(b)) else { return };
        let less = |x: &Form, y: &Form, strict: i128| y.plus(x, -1).and_then(|f| f.offset(-strict));
        match (op, holds) {
            (ScalarOp::Lt {}, true) | (ScalarOp::Ge {}, false) => self.assume(less(&a, &b, 1)),
            (ScalarOp::Le {}, true) | (ScalarOp::Gt {}, false) => self.assume(less(&a, &b, 0)),
            (ScalarOp::Gt {}, true) | (ScalarOp::Le {}, false) => self.assume(less(&b, &a, 1)),
            (ScalarOp::Ge {}, true) | (ScalarOp::Lt {}, false) => self.assume(less(&b, &a, 0)),
            (ScalarOp::Eq {}, true) | (ScalarOp::Ne {}, false) => {
                self.assume(less(&a, &b, 0));
                self.assume(less(&b, &a, 0));
            }
            (_, _) => {}
        }
    }

    /// For messages: `3*i + n - 1`.
    pub(super) fn shown(&self, f: &Form) -> String {
        let mut out: Vec<String> = Vec::new();
        for (u, c) in &f.terms {
            let name = self.unknowns.get(*u).map_or("?", |i| i.name.as_str());
            out.push(if *c == 1 { name.to_string() } else { format!("{c}*{name}") });
        }
        if f.constant != 0 || out.is_empty() {
            out.push(f.constant.to_string());
        }
        out.join(" + ")
    }
}
