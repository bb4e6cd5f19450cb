//! Sizes in bytes known before running: the largest of some polynomials in the symbols.

use super::ALIGN;
use std::collections::BTreeMap;
use std::fmt;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::{Atom, Bindings, Dim, Symbol, SymbolDecl};

/// Polynomials that one extent keeps apart; beyond it two of them are replaced by one that is above both.
const MOST: usize = 8;

/// A number of bytes: the largest of its terms, none of which is known to be below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sorted, at least one.
    terms: Vec<Term>,
}

/// A polynomial with its values where all symbols are smallest, and where all are largest: what is larger at one of
/// these is not below, which saves most proofs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Term {
    dim: Dim,
    corners: [i128; 2],
}

impl Term {
    fn new(dim: Dim, symbols: &[SymbolDecl]) -> Term {
        let at = |value: fn(&SymbolDecl) -> i64| {
            let bindings = symbols.iter().map(|s| (s.name.clone(), value(s))).collect();
            dim.eval(&bindings).map_or(i128::from(i64::MAX), i128::from)
        };
        let corners = [at(|s| s.low), at(|s| s.high)];
        Term { dim, corners }
    }

    fn plus(&self, other: &Term) -> Option<Term> {
        let sum = |i: usize| self.corners[i].saturating_add(other.corners[i]);
        Some(Term { dim: self.dim.checked_add(&other.dim)?, corners: [sum(0), sum(1)] })
    }
}

fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "a size in bytes does not fit in 64 bits")
}

impl Extent {
    /// Exactly `bytes`.
    pub fn new(bytes: Dim, symbols: &[SymbolDecl]) -> Extent {
        Extent { terms: vec![Term::new(bytes, symbols)] }
    }

    /// The polynomials; the extent is the largest of them.
    pub fn terms(&self) -> impl Iterator<Item = &Dim> {
        self.terms.iter().map(|t| &t.dim)
    }

    /// The sum of two extents. Errors: `dim-overflow`.
    pub fn plus(&self, other: &Extent, symbols: &[SymbolDecl]) -> Result<Extent, Diagnostic> {
        let mut terms = Vec::new();
        for a in &self.terms {
            for b in &other.terms {
                insert(&mut terms, a.plus(b).ok_or_else(overflow)?, symbols)?;
            }
        }
        Ok(Extent { terms })
    }

    /// The larger of two extents. Errors: `dim-overflow`.
    pub fn max(&self, other: &Extent, symbols: &[SymbolDecl]) -> Result<Extent, Diagnostic> {
        let mut terms = self.terms.clone();
        for b in &other.terms {
            insert(&mut terms, b.clone(), symbols)?;
        }
        Ok(Extent { terms })
    }

    /// A callee's extent in the caller's symbols. Errors: `dim-overflow`.
    pub fn substitute(&self, map: &BTreeMap<Symbol, Dim>, symbols: &[SymbolDecl]) -> Result<Extent, Diagnostic> {
        let mut terms = Vec::new();
        for a in self.terms() {
            let dim = a.substitute(map).ok_or_else(overflow)?;
            insert(&mut terms, Term::new(dim, symbols), symbols)?;
        }
        Ok(Extent { terms })
    }

    /// The value for the sizes of a call. Errors: `symbol`, also where it overflows.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, Diagnostic> {
        let mut largest = 0;
        for d in self.terms() {
            largest = largest.max(d.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?);
        }
        Ok(largest)
    }

    /// A value that it never exceeds for symbols in their ranges; `None` if that does not fit in 63 bits.
    pub fn bound(&self, symbols: &[SymbolDecl]) -> Option<i64> {
        let highs = self.terms().map(|d| d.bounds(symbols).1.max(0));
        highs.max().filter(|&high| high < i64::MAX)
    }
}

/// Prints `64*seq`, or `max(64*seq, 4096)`.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.terms.as_slice() {
            [one] => write!(f, "{}", one.dim),
            _many => {
                let all: Vec<String> = self.terms().map(Dim::to_string).collect();
                write!(f, "max({})", all.join(", "))
            }
        }
    }
}

/// Adds `new` to sorted terms; drops those that are known to be below another.
fn insert(terms: &mut Vec<Term>, new: Term, symbols: &[SymbolDecl]) -> Result<(), Diagnostic> {
    if terms.iter().any(|t| below(&new, t, symbols)) {
        return Ok(());
    }
    terms.retain(|t| !below(t, &new, symbols));
    let at = terms.partition_point(|t| *t < new);
    terms.insert(at, new);
    if terms.len() > MOST
        && let (Some(a), Some(b)) = (terms.pop(), terms.pop())
    {
        let both = above_both(&a.dim, &b.dim, symbols).ok_or_else(overflow)?;
        return insert(terms, Term::new(both, symbols), symbols);
    }
    Ok(())
}

/// Whether `a <= b` is proved for all symbols in their ranges.
fn below(a: &Term, b: &Term, symbols: &[SymbolDecl]) -> bool {
    if a.corners[0] > b.corners[0] || a.corners[1] > b.corners[1] {
        return false;
    }
    let (a, b) = (&a.dim, &b.dim);
    if a == b || (a.as_const().is_some() && b.as_const().is_some()) {
        return true;
    }
    let difference = || without_floors(b, false)?.checked_sub(&without_floors(a, true)?);
    let exact = || b.checked_sub(a);
    // Between multiples of the alignment, less than one alignment too much is nothing too much.
    let aligned = |d: &Dim| d.terms().all(|(_, c)| c % ALIGN as i64 == 0);
    let slack = Dim::constant(if aligned(a) && aligned(b) { ALIGN as i64 - 1 } else { 0 });
    let rough = || difference()?.checked_add(&slack);
    exact().is_some_and(|d| not_negative(&d, symbols)) || rough().is_some_and(|d| not_negative(&d, symbols))
}

fn not_negative(d: &Dim, symbols: &[SymbolDecl]) -> bool {
    if d.bounds(symbols).0 >= 0 {
        return true;
    }
    // With `s = low + s'` and no negative coefficient left, it is not negative either.
    let shift = |s: &SymbolDecl| Some((s.name.clone(), Dim::symbol(&s.name).checked_add(&Dim::constant(s.low))?));
    let shifted = symbols.iter().map(shift).collect::<Option<_>>().and_then(|map| d.substitute(&map));
    shifted.is_some_and(|d| d.terms().all(|(m, c)| c >= 0 && m.iter().all(|a| matches!(a, Atom::Symbol(_)))))
}

/// A bound of `d` from above or from below in which `c * floor(x / n)` is `c/n * x`, or `c/n * (x - n + 1)`.
fn without_floors(d: &Dim, above: bool) -> Option<Dim> {
    let mut sum = Dim::constant(0);
    for (monomial, c) in d.terms() {
        let [Atom::FloorDiv(inner, n)] = monomial else {
            sum = sum.checked_add(&product(monomial)?.checked_mul(&Dim::constant(c))?)?;
            continue;
        };
        if c % n != 0 {
            return None;
        }
        let up = above == (c > 0);
        let inner = if up { (**inner).clone() } else { inner.checked_sub(&Dim::constant(n - 1))? };
        sum = sum.checked_add(&inner.checked_mul(&Dim::constant(c / n))?)?;
    }
    Some(sum)
}

fn product(monomial: &[Atom]) -> Option<Dim> {
    monomial.iter().try_fold(Dim::constant(1), |p, a| {
        p.checked_mul(&match a {
            Atom::Symbol(s) => Dim::symbol(s),
            Atom::FloorDiv(d, n) => d.floor_div(*n),
            Atom::Mod(d, n) => d.modulo(*n),
        })
    })
}

/// A polynomial above two that are not negative: the larger coefficient of each monomial, or else the sum.
fn above_both(a: &Dim, b: &Dim, symbols: &[SymbolDecl]) -> Option<Dim> {
    let mut coefficients: BTreeMap<&[Atom], i64> = a.terms().collect();
    for (monomial, _) in a.terms().filter(|(_, c)| *c < 0) {
        coefficients.insert(monomial, 0);
    }
    for (monomial, c) in b.terms() {
        let slot = coefficients.entry(monomial).or_insert(0);
        *slot = c.max(*slot);
    }
    let mut sum = Dim::constant(0);
    for (monomial, c) in coefficients {
        let monomial = product(monomial)?;
        if monomial.bounds(symbols).0 < 0 {
            return a.checked_add(b);
        }
        sum = sum.checked_add(&monomial.checked_mul(&Dim::constant(c))?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Vec<SymbolDecl> {
        vec![SymbolDecl::new("s", 1, 512), SymbolDecl::new("p", 0, 511)]
    }

    fn linear(s: i64, p: i64, c: i64) -> Dim {
        let term = |name: &str, k: i64| Dim::symbol(name).checked_mul(&Dim::constant(k)).unwrap();
        term("s", s).checked_add(&term("p", p)).unwrap().checked_add(&Dim::constant(c)).unwrap()
    }

    #[test]
    fn what_is_below_another_is_dropped() {
        let symbols = symbols();
        let max = |a: &Dim, b: &Dim| {
            Extent::new(a.clone(), &symbols).max(&Extent::new(b.clone(), &symbols), &symbols).unwrap().to_string()
        };
        assert_eq!(max(&linear(64, 0, 0), &linear(128, 0, 0)), "128*s");
        assert_eq!(max(&linear(64, 0, 0), &linear(0, 0, 64)), "64*s");
        assert_eq!(max(&linear(64, 0, 0), &linear(0, 64, 0)), "max(64*p, 64*s)");
        assert_eq!(max(&linear(1, 0, 0), &linear(0, 0, 512)), "512");
        let square = Dim::symbol("s").checked_mul(&linear(1, 1, 0)).unwrap();
        assert_eq!(max(&linear(0, 1, 0), &square), "p*s + s*s");
        let rounded = linear(4, 0, 63).floor_div(64).checked_mul(&Dim::constant(64)).unwrap();
        assert_eq!(max(&rounded, &linear(128, 0, 0)), "128*s");
        assert_eq!(max(&rounded, &linear(64, 0, 0)), "64*s");
        assert_eq!(max(&rounded, &linear(0, 64, 0)), "max(64*p, 64*floordiv(4*s + 63, 64))");
    }

    #[test]
    fn many_terms_stay_an_upper_bound() {
        let symbols: Vec<SymbolDecl> = (0..20).map(|i| SymbolDecl::new(&format!("s{i}"), 0, 9)).collect();
        let mut all = Extent::new(Dim::constant(0), &symbols);
        for (i, s) in symbols.iter().enumerate() {
            let term = Dim::symbol(&s.name).checked_mul(&Dim::from(i + 1)).unwrap();
            all = all.max(&Extent::new(term, &symbols), &symbols).unwrap();
        }
        assert!(all.terms().count() <= MOST);
        for (i, s) in symbols.iter().enumerate() {
            let mut bindings: Bindings = symbols.iter().map(|s| (s.name.clone(), 0)).collect();
            bindings.insert(s.name.clone(), 7);
            assert!(all.eval(&bindings).unwrap() >= 7 * (i as i64 + 1));
        }
    }

    #[test]
    fn sums_and_bounds() {
        let symbols = symbols();
        let one = |s, p| Extent::new(linear(s, p, 0), &symbols);
        let two = one(64, 0).max(&one(0, 64), &symbols).unwrap();
        let sum = two.plus(&two, &symbols).unwrap();
        assert_eq!(sum.to_string(), "max(64*p + 64*s, 128*p, 128*s)");
        assert_eq!(sum.bound(&symbols), Some(128 * 512));
        let huge = Extent::new(Dim::constant(i64::MAX), &symbols);
        assert_eq!(huge.plus(&two, &symbols).unwrap().bound(&symbols), None);
        assert_eq!(huge.plus(&huge, &symbols).unwrap_err().code, "dim-overflow");
    }
}
