//! Symbolic dims: polynomials with integer coefficients over named symbols, in a normal form.
//!
//! Two dims are equal exactly when their normal forms are; nothing is guessed. `floordiv` and `mod` by a known divisor
//! are atoms of the polynomial when the division does not go out exactly.

use super::symbol::{Symbol, SymbolDecl};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a monomial multiplies: a symbol, or a division that does not go out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Atom {
    /// A named size.
    Symbol(Symbol),
    /// `floor(dim / divisor)`, divisor > 1.
    FloorDiv(Box<Dim>, i64),
    /// `dim mod divisor` in `0..divisor`, divisor > 1.
    Mod(Box<Dim>, i64),
}

/// A size: sum of `coefficient * product of atoms`. The empty product is the constant term.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Dim(Form);

/// Nearly all dims of a compilation are numbers, and are copied often.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Constant(i64),
    /// At least one of the monomials has an atom.
    Terms(Arc<Terms>),
}

/// Sorted monomials (sorted atoms, repeated for powers) with their coefficients, none of them zero.
type Terms = BTreeMap<Vec<Atom>, i64>;

/// A dim as it is serialised.
#[derive(Serialize, Deserialize)]
struct Written {
    terms: Terms,
}

/// Largest [`Dim::weight`]: sums beyond it count as overflow, so that no chain of products or calls grows without bound.
const MAX_WEIGHT: usize = 4096;

/// Values of symbols at a call.
pub type Bindings = BTreeMap<Symbol, i64>;

impl Dim {
    /// A known size.
    pub fn constant(n: i64) -> Dim {
        Dim(Form::Constant(n))
    }

    /// A named size.
    pub fn symbol(name: &str) -> Dim {
        Dim::atom(Atom::Symbol(name.into()))
    }

    fn atom(a: Atom) -> Dim {
        Dim::sum(BTreeMap::from([(vec![a], 1)]))
    }

    /// The normal form of a sum: monomials without a coefficient go.
    fn sum(mut terms: Terms) -> Dim {
        terms.retain(|_, c| *c != 0);
        let constant = match terms.len() {
            0 => Some(0),
            1 => terms.get(&[][..]).copied(),
            _ => None,
        };
        Dim(constant.map_or_else(|| Form::Terms(Arc::new(terms)), Form::Constant))
    }

    /// The value if no symbol occurs.
    pub fn as_const(&self) -> Option<i64> {
        match self.0 {
            Form::Constant(n) => Some(n),
            Form::Terms(_) => None,
        }
    }

    /// Whether this is the constant `n`.
    pub fn is(&self, n: i64) -> bool {
        self.as_const() == Some(n)
    }

    /// The monomials with their coefficients, in order.
    pub fn terms(&self) -> impl Iterator<Item = (&[Atom], i64)> {
        let (constant, terms) = match &self.0 {
            Form::Constant(n) => (Some(*n).filter(|n| *n != 0), None),
            Form::Terms(terms) => (None, Some(&**terms)),
        };
        let terms = terms.into_iter().flatten().map(|(m, &c)| (m.as_slice(), c));
        constant.map(|n| (&[][..], n)).into_iter().chain(terms)
    }

    /// How many monomials there are.
    fn count(&self) -> usize {
        match &self.0 {
            Form::Constant(n) => usize::from(*n != 0),
            Form::Terms(terms) => terms.len(),
        }
    }

    /// Size of the normal form: terms and atoms, those inside of divisions too.
    pub fn weight(&self) -> usize {
        let atom = |a: &Atom| match a {
            Atom::Symbol(_) => 1,
            Atom::FloorDiv(d, _) | Atom::Mod(d, _) => 1 + d.weight(),
        };
        self.terms().map(|(m, _)| 1 + m.iter().map(atom).sum::<usize>()).sum()
    }

    /// `self + other`; `None` on overflow.
    pub fn checked_add(&self, other: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return a.checked_add(b).map(Dim::constant);
        }
        if self.weight() + other.weight() > MAX_WEIGHT {
            return None;
        }
        let mut terms: Terms = self.terms().map(|(m, c)| (m.to_vec(), c)).collect();
        for (m, c) in other.terms() {
            let slot = terms.entry(m.to_vec()).or_insert(0);
            *slot = slot.checked_add(c)?;
        }
        Some(Dim::sum(terms))
    }

    /// `self - other`; `None` on overflow.
    pub fn checked_sub(&self, other: &Dim) -> Option<Dim> {
        self.checked_add(&other.checked_mul(&Dim::constant(-1))?)
    }

    /// `self * other`; `None` on overflow.
    pub fn checked_mul(&self, other: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return a.checked_mul(b).map(Dim::constant);
        }
        if self.weight() * other.count() + other.weight() * self.count() > 2 * MAX_WEIGHT {
            return None;
        }
        let mut terms = Terms::new();
        for (a, x) in self.terms() {
            for (b, y) in other.terms() {
                let mut m: Vec<Atom> = a.iter().chain(b).cloned().collect();
                m.sort();
                let slot = terms.entry(m).or_insert(0);
                *slot = slot.checked_add(x.checked_mul(y)?)?;
            }
        }
        Some(Dim::sum(terms))
    }

    /// `self / divisor` where the polynomial division by a monomial goes out exactly, else `None`.
    pub fn div_exact(&self, divisor: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const().filter(|b| *b != 0)) {
            return if a.checked_rem(b)? == 0 { a.checked_div(b).map(Dim::constant) } else { None };
        }
        let mut monomials = divisor.terms();
        let (Some((dm, dc)), None) = (monomials.next(), monomials.next()) else {
            return if self == divisor { Some(Dim::constant(1)) } else { None };
        };
        let mut terms = Terms::new();
        for (m, c) in self.terms() {
            if c % dc != 0 {
                return None;
            }
            let mut rest = m.to_vec();
            for a in dm {
                let at = rest.iter().position(|b| b == a)?;
                rest.remove(at);
            }
            terms.insert(rest, c / dc);
        }
        Some(Dim::sum(terms))
    }

    /// `floor(self / n)` for a known `n > 0`.
    pub fn floor_div(&self, n: i64) -> Dim {
        if let Some(q) = self.div_exact(&Dim::constant(n)) {
            return q;
        }
        match self.as_const() {
            Some(v) => Dim::constant(v.div_euclid(n)),
            None => Dim::atom(Atom::FloorDiv(Box::new(self.clone()), n)),
        }
    }

    /// `self mod n` for a known `n > 0`, in `0..n`.
    pub fn modulo(&self, n: i64) -> Dim {
        if self.div_exact(&Dim::constant(n)).is_some() {
            return Dim::constant(0);
        }
        match self.as_const() {
            Some(v) => Dim::constant(v.rem_euclid(n)),
            None => Dim::atom(Atom::Mod(Box::new(self.clone()), n)),
        }
    }

    /// `ceil(self / n)` for a known `n > 0`.
    pub fn ceil_div(&self, n: i64) -> Dim {
        match self.checked_add(&Dim::constant(n - 1)) {
            Some(up) if self.div_exact(&Dim::constant(n)).is_none() => up.floor_div(n),
            Some(_) => self.floor_div(n),
            // Where the sum overflows: -floor(-self / n).
            None => {
                let minus = Dim::constant(-1);
                let up = self.checked_mul(&minus).and_then(|m| m.floor_div(n).checked_mul(&minus));
                up.unwrap_or_else(|| self.floor_div(n))
            }
        }
    }

    /// The value under `bindings`; `Err` names a missing symbol, or says `overflow`.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, String> {
        let over = || format!("the value of `{self}` overflows");
        let mut sum: i64 = 0;
        for (m, c) in self.terms() {
            let mut product = c;
            for a in m {
                let v = match a {
                    Atom::Symbol(s) => *bindings.get(s).ok_or_else(|| format!("no value for symbol `{s}`"))?,
                    Atom::FloorDiv(d, n) => d.eval(bindings)?.div_euclid(*n),
                    Atom::Mod(d, n) => d.eval(bindings)?.rem_euclid(*n),
                };
                product = product.checked_mul(v).ok_or_else(over)?;
            }
            sum = sum.checked_add(product).ok_or_else(over)?;
        }
        Ok(sum)
    }

    /// Replaces symbols by dims (for calls: the callee's symbols by the caller's sizes).
    pub fn substitute(&self, map: &BTreeMap<Symbol, Dim>) -> Option<Dim> {
        if self.as_const().is_some() {
            return Some(self.clone());
        }
        let mut sum = Dim::constant(0);
        for (m, c) in self.terms() {
            let mut product = Dim::constant(c);
            for a in m {
                let v = match a {
                    Atom::Symbol(s) => map.get(s).cloned().unwrap_or_else(|| Dim::symbol(s)),
                    Atom::FloorDiv(d, n) => d.substitute(map)?.floor_div(*n),
                    Atom::Mod(d, n) => d.substitute(map)?.modulo(*n),
                };
                product = product.checked_mul(&v)?;
            }
            sum = sum.checked_add(&product)?;
        }
        Some(sum)
    }

    /// Adds every symbol that occurs to `out`.
    pub fn collect_symbols(&self, out: &mut Vec<Symbol>) {
        for (m, _) in self.terms() {
            for a in m {
                match a {
                    Atom::Symbol(s) if out.contains(s) => {}
                    Atom::Symbol(s) => out.push(s.clone()),
                    Atom::FloorDiv(d, _) | Atom::Mod(d, _) => d.collect_symbols(out),
                }
            }
        }
    }

    /// Lower and upper bound from the declared ranges of its symbols (interval arithmetic, saturating).
    pub fn bounds(&self, symbols: &[SymbolDecl]) -> (i64, i64) {
        let range = self.range(symbols, |a, b| Some(a.saturating_mul(b)), |a, b| Some(a.saturating_add(b)));
        range.unwrap_or((i64::MIN, i64::MAX))
    }

    /// The same without saturation; `None` where a bound does not fit.
    pub fn exact_bounds(&self, symbols: &[SymbolDecl]) -> Option<(i64, i64)> {
        self.range(symbols, i64::checked_mul, i64::checked_add)
    }

    fn range(&self, symbols: &[SymbolDecl], mul: Combine, add: Combine) -> Option<(i64, i64)> {
        let (mut low, mut high) = (0i64, 0i64);
        for (m, c) in self.terms() {
            let (mut a, mut b) = (1i64, 1i64);
            for atom in m {
                let (x, y) = match atom {
                    Atom::Symbol(s) => symbols.iter().find(|d| d.name == *s).map_or((0, i64::MAX), |d| (d.low, d.high)),
                    Atom::FloorDiv(d, n) => {
                        let (x, y) = d.range(symbols, mul, add)?;
                        (x.div_euclid(*n), y.div_euclid(*n))
                    }
                    Atom::Mod(_, n) => (0, n - 1),
                };
                let corners = [mul(a, x)?, mul(a, y)?, mul(b, x)?, mul(b, y)?];
                (a, b) = corners.iter().fold((i64::MAX, i64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            }
            let (x, y) = (mul(a, c)?, mul(b, c)?);
            low = add(low, x.min(y))?;
            high = add(high, x.max(y))?;
        }
        Some((low, high))
    }
}

/// How two bounds become one; `None` where the result does not fit.
type Combine = fn(i64, i64) -> Option<i64>;

impl Default for Dim {
    fn default() -> Dim {
        Dim::constant(0)
    }
}

/// The order of the lists of monomials.
impl Ord for Dim {
    fn cmp(&self, other: &Dim) -> Ordering {
        match (self.as_const(), other.as_const()) {
            // 0 has no monomial.
            (Some(a), Some(b)) => (a != 0, a).cmp(&(b != 0, b)),
            _ => self.terms().cmp(other.terms()),
        }
    }
}

impl PartialOrd for Dim {
    fn partial_cmp(&self, other: &Dim) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dim({self})")
    }
}

impl From<Written> for Dim {
    fn from(written: Written) -> Dim {
        Dim::sum(written.terms)
    }
}

impl From<Dim> for Written {
    fn from(dim: Dim) -> Written {
        Written { terms: dim.terms().map(|(m, c)| (m.to_vec(), c)).collect() }
    }
}

impl From<i64> for Dim {
    fn from(n: i64) -> Dim {
        Dim::constant(n)
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::constant(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<i32> for Dim {
    fn from(n: i32) -> Dim {
        Dim::constant(n.into())
    }
}

impl From<&str> for Dim {
    fn from(s: &str) -> Dim {
        Dim::symbol(s)
    }
}

impl From<&Dim> for Dim {
    fn from(d: &Dim) -> Dim {
        d.clone()
    }
}

/// Prints so that the text parses back: `4*batch*seq + past - 1`, `floordiv(seq + 3, 4)`.
impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(n) = self.as_const() {
            return n.fmt(f);
        }
        // Non-constant monomials first, the constant last.
        let rest = self.terms().filter(|(m, _)| !m.is_empty());
        for (i, (m, c)) in rest.chain(self.terms().filter(|(m, _)| m.is_empty())).enumerate() {
            let sign = if c < 0 { "-" } else { "+" };
            match (i, c < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                _ => write!(f, " {sign} ")?,
            }
            let mut first = true;
            if c.unsigned_abs() != 1 || m.is_empty() {
                write!(f, "{}", c.unsigned_abs())?;
                first = false;
            }
            for a in m {
                if !first {
                    f.write_str("*")?;
                }
                first = false;
                match a {
                    Atom::Symbol(s) => f.write_str(s)?,
                    Atom::FloorDiv(d, n) => write!(f, "floordiv({d}, {n})")?,
                    Atom::Mod(d, n) => write!(f, "mod({d}, {n})")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceil_div_at_the_edge() {
        for (x, n, want) in [(7, 2, 4), (-7, 2, -3), (8, 2, 4), (i64::MAX, 2, 1 << 62), (i64::MAX, i64::MAX - 1, 2)] {
            assert!(Dim::constant(x).ceil_div(n).is(want), "{x} / {n}");
        }
        assert_eq!(Dim::symbol("n").ceil_div(4).to_string(), "floordiv(n + 3, 4)");
    }

    #[test]
    fn dims_are_ordered_as_lists_of_monomials() {
        let n = || Dim::symbol("n");
        let one_less = |d: Dim| d.checked_sub(&Dim::constant(1)).unwrap();
        let dims = [Dim::constant(0), Dim::constant(-2), one_less(n()), Dim::constant(3), n(), Dim::symbol("p")];
        let list = |d: &Dim| d.terms().map(|(m, c)| (m.to_vec(), c)).collect::<Vec<_>>();
        for (a, b) in dims.iter().flat_map(|a| dims.iter().map(move |b| (a, b))) {
            assert_eq!(a.cmp(b), list(a).cmp(&list(b)), "{a} and {b}");
            assert_eq!(a == b, list(a) == list(b), "{a} and {b}");
        }
        // A sum without symbols is a number, however it came about.
        assert_eq!(one_less(n()).checked_sub(&n()).unwrap(), Dim::constant(-1));
        assert_eq!(Dim::constant(6).div_exact(&Dim::constant(4)), None);
        assert_eq!(Dim::constant(0).div_exact(&Dim::constant(0)), Some(Dim::constant(1)));
    }

    #[test]
    fn heavy_dims_overflow() {
        let sum = |name: &str| {
            (0..40).fold(Dim::constant(1), |d, i| d.checked_add(&Dim::symbol(&format!("{name}{i}"))).unwrap())
        };
        let square = sum("a").checked_mul(&sum("b")).unwrap();
        assert_eq!(square.terms().count(), 41 * 41);
        assert_eq!(square.checked_mul(&sum("c")), None);
    }

    #[test]
    fn bounds_that_do_not_fit() {
        let symbols = [SymbolDecl::new("n", 1, 1 << 40), SymbolDecl::new("m", 2, 3)];
        let (n, m, zero) = (Dim::symbol("n"), Dim::symbol("m"), Dim::constant(0));
        let of = |d: &Dim| d.exact_bounds(&symbols);
        let (apart, square) = (n.checked_sub(&m).unwrap(), n.checked_mul(&n).unwrap());
        assert_eq!((of(&apart), of(&zero)), (Some((-2, (1 << 40) - 2)), Some((0, 0))));
        // Saturated, these would be a number again.
        let less = square.checked_sub(&square.checked_mul(&m).unwrap()).unwrap();
        assert_eq!((of(&square), of(&less), square.bounds(&symbols)), (None, None, (1, i64::MAX)));
    }
}
