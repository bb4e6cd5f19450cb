//! Linear forms over integer unknowns, and proofs by Fourier-Motzkin elimination with gcd tightening.

use std::collections::{BTreeMap, BTreeSet};

/// Number of an unknown.
pub(super) type Unknown = usize;

/// `constant + sum of coefficient * unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    /// Coefficients, none of them zero.
    pub terms: BTreeMap<Unknown, i128>,
    /// The constant.
    pub constant: i128,
}

impl Form {
    pub(super) fn number(n: i128) -> Form {
        Form { terms: BTreeMap::new(), constant: n }
    }

    pub(super) fn unknown(u: Unknown) -> Form {
        Form { terms: BTreeMap::from([(u, 1)]), constant: 0 }
    }

    /// `self + factor * other`; none on overflow.
    pub(super) fn plus(&self, other: &Form, factor: i128) -> Option<Form> {
        let mut sum = self.clone();
        sum.constant = sum.constant.checked_add(other.constant.checked_mul(factor)?)?;
        for (u, c) in &other.terms {
            let slot = sum.terms.entry(*u).or_insert(0);
            *slot = slot.checked_add(c.checked_mul(factor)?)?;
        }
        sum.terms.retain(|_, c| *c != 0);
        Some(sum)
    }

    /// `self + n`.
    pub(super) fn offset(&self, n: i128) -> Option<Form> {
        self.plus(&Form::number(n), 1)
    }

    /// The value if no unknown occurs.
    pub(super) fn as_number(&self) -> Option<i128> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// Divides by the common divisor of the coefficients; the constant rounds down, since the rest is an integer.
    fn tightened(mut self) -> Form {
        let g = self.terms.values().fold(0, |g, c| gcd(g, *c));
        if g > 1 {
            self.terms.values_mut().for_each(|c| *c /= g);
            self.constant = self.constant.div_euclid(g);
        }
        self
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    // coefficients come from checked arithmetic over i64 values, so this only saturates for -2^127
    i128::try_from(a).unwrap_or(i128::MAX)
}

/// Rows that an elimination may reach before it gives up.
const ROWS: usize = 4000;
/// Products of rows that one step may form.
const PRODUCTS: usize = 20_000;

/// Whether `goal >= 0` follows from `facts >= 0` over the integers. `false` is "not proved", never "refuted".
pub(super) fn follows<'a>(goal: &Form, facts: impl Iterator<Item = &'a Form>) -> bool {
    if goal.as_number().is_some_and(|n| n >= 0) {
        return true;
    }
    let Some(negation) = Form::number(-1).plus(goal, -1) else { return false };
    let mut open: BTreeSet<Unknown> = goal.terms.keys().copied().collect();
    let mut rest: Vec<&Form> = facts.collect();
    let mut rows = BTreeSet::from([negation.tightened()]);
    // only facts that share an unknown with the goal, directly or through other facts, can matter
    loop {
        let before = rest.len();
        rest.retain(|f| {
            let near = f.terms.keys().any(|u| open.contains(u));
            if near {
                open.extend(f.terms.keys());
                rows.insert((*f).clone().tightened());
            }
            !near
        });
        if rest.len() == before {
            break;
        }
    }
    while let Some(u) = cheapest(&open, &rows) {
        open.remove(&u);
        match eliminate(u, rows) {
            Elimination::Contradiction => return true,
            Elimination::TooLarge => return false,
            Elimination::Rows(next) => rows = next,
        }
    }
    rows.iter().any(|r| r.terms.is_empty() && r.constant < 0)
}

/// The unknown whose elimination forms the fewest products of a row where it is positive and one where it is negative.
fn cheapest(open: &BTreeSet<Unknown>, rows: &BTreeSet<Form>) -> Option<Unknown> {
    let mut sides: BTreeMap<Unknown, (usize, usize)> = open.iter().map(|&u| (u, (0, 0))).collect();
    for (u, c) in rows.iter().flat_map(|r| &r.terms) {
        if let Some((positive, negative)) = sides.get_mut(u) {
            *(if *c > 0 { positive } else { negative }) += 1;
        }
    }
    sides.into_iter().min_by_key(|(_, (positive, negative))| positive * negative).map(|(u, _)| u)
}

enum Elimination {
    Contradiction,
    TooLarge,
    Rows(BTreeSet<Form>),
}

fn eliminate(u: Unknown, rows: BTreeSet<Form>) -> Elimination {
    let (mut above, mut below, mut rest) = (Vec::new(), Vec::new(), BTreeSet::new());
    for r in rows {
        match r.terms.get(&u) {
            Some(c) if *c > 0 => above.push((*c, r)),
            Some(c) => below.push((c.saturating_neg(), r)),
            None => {
                rest.insert(r);
            }
        }
    }
    if above.len().saturating_mul(below.len()) > PRODUCTS {
        return Elimination::TooLarge;
    }
    for (a, p) in &above {
        for (b, n) in &below {
            let g = gcd(*a, *b).max(1);
            let Some(row) = Form::default().plus(p, b / g).and_then(|f| f.plus(n, a / g)) else {
                continue; // a fact less can only make the proof fail
            };
            let row = row.tightened();
            if !row.terms.is_empty() {
                rest.insert(row);
            } else if row.constant < 0 {
                return Elimination::Contradiction;
            }
        }
    }
    if rest.len() > ROWS { Elimination::TooLarge } else { Elimination::Rows(rest) }
}
