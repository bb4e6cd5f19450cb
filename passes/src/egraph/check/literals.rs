//! Numbers that a rule names, and those beside them. A rule that is wrong at a number of its own, or only on axes as long as one,
//! passes on all other data.

use super::super::rules::Rule;
use super::super::term::Term;
use super::super::widths::{epsilon, rounded};
use super::draw::{EXTENTS, Random, edges};
use tilewright_ir::types::DType;

/// Literals that are looked at.
const MOST: usize = 16;
/// Literals of which sums and differences are looked at too.
const FEW: usize = 6;
/// Elements of the longest axis that a literal asks for.
pub(super) const MOST_ELEMENTS: usize = 1 << 20;
/// Numbers that are squared and divided by without leaving f64.
const MODERATE: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// What the literals of a rule give to its data.
pub(super) struct Literals {
    /// Finite literals of both sides, each once.
    own: Vec<f64>,
    /// Their sums and differences: where `a + 2` is compared with 5.
    combined: Vec<f64>,
}

impl Literals {
    pub fn of(rule: &Rule) -> Literals {
        let mut own = Vec::new();
        collect(&rule.left, &mut own);
        collect(&rule.right, &mut own);
        own.truncate(MOST);
        let mut combined = Vec::new();
        let few = own.get(..FEW).unwrap_or(&own);
        for (i, a) in few.iter().enumerate() {
            let rest = few.iter().skip(i + 1);
            combined.extend(rest.flat_map(|b| [a + b, a - b, b - a]).filter(|x| x.is_finite()));
        }
        combined.sort_unstable_by(f64::total_cmp);
        combined.dedup();
        Literals { own, combined }
    }

    /// A literal or a number beside one, of the dtype; `edge`: also one that no product of two may stay in range of.
    pub fn number(&self, dtype: DType, edge: bool, random: &mut Random) -> Option<f64> {
        let combined = !self.combined.is_empty() && random.below(4) == 0;
        let from = if combined { &self.combined } else { &self.own };
        let x = *from.get(random.below(from.len()))?;
        let found = match random.below(10) {
            0..=3 => x,
            4 => beside(dtype, x, true),
            5 => beside(dtype, x, false),
            6 => x + 1.0,
            7 => x - 1.0,
            8 => -x,
            _last if random.below(2) == 0 => 1.0 / x,
            _last => (x + from.get(random.below(from.len()))?) / 2.0,
        };
        if !dtype.is_float() {
            let bits = 8 * dtype.block().1 as i32;
            let signed = dtype.is_signed();
            let (low, high) = if signed { (-2f64.powi(bits - 1), bits - 1) } else { (0.0, bits) };
            return Some(found.floor()).filter(|x| *x >= low && *x < 2f64.powi(high));
        }
        let found = rounded(dtype, found);
        Some(found).filter(|x| x.is_finite() && (edge || *x == 0.0 || MODERATE.contains(&x.abs())))
    }

    /// Sizes of axes that a position or a size may be compared with, ascending, but for those that axes have in any case.
    pub fn sizes(&self) -> Vec<usize> {
        let near = |x: &f64| {
            let whole = x.abs().floor();
            let near = if whole < MOST_ELEMENTS as f64 { whole as usize } else { return Vec::new() };
            (near.saturating_sub(1)..=near + 2).filter(|n| *n <= MOST_ELEMENTS && !EXTENTS.contains(n)).collect()
        };
        let mut sizes: Vec<usize> = self.own.iter().chain(&self.combined).flat_map(near).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Adds the finite numbers of a term.
fn collect(term: &Term, out: &mut Vec<f64>) {
    match term {
        Term::Variable(_) => {}
        Term::Number(x) if !x.is_finite() || out.iter().any(|y| x.to_bits() == y.to_bits()) => {}
        Term::Number(x) => out.push(*x),
        Term::Own(x) => collect(x, out),
        Term::Apply(_, args) => args.iter().for_each(|a| collect(a, out)),
    }
}

/// The next number of a float dtype, or the one before.
fn beside(dtype: DType, x: f64, up: bool) -> f64 {
    let near = rounded(dtype, x);
    match dtype {
        DType::F64 => return if up { x.next_up() } else { x.next_down() },
        DType::F32 => return f64::from(if up { (near as f32).next_up() } else { (near as f32).next_down() }),
        _half_or_integer => {}
    }
    // Rounding finds the neighbour from half a step on; below a power of two steps are half as long.
    let step = if dtype.is_float() { (near.abs() * epsilon(dtype) * 0.6).max(edges(dtype)[0]) } else { 1.0 };
    rounded(dtype, if up { near + step } else { near - step })
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::RuleSet;
    use super::*;

    fn literals(sides: &str) -> Literals {
        Literals::of(&RuleSet::parse("x.rules", &format!("a: exact\n  {sides}\n")).unwrap().rules[0])
    }

    #[test]
    fn neighbours_are_one_step_away() {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::Bf16] {
            for x in [1.0, 0.1, -3.0, 100.0, 0.0, 1.5] {
                let x = rounded(dtype, x);
                let (up, down) = (beside(dtype, x, true), beside(dtype, x, false));
                assert!(down < x && x < up, "{dtype} {x}: {down} {up}");
                let middle = [(x + up) / 2.0, (x + down) / 2.0].map(|y| rounded(dtype, y));
                assert!(middle.iter().all(|y| [x, up, down].contains(y)), "{dtype} {x}: {down} {up}");
            }
        }
    }

    #[test]
    fn literals_of_both_sides_and_what_is_beside_them_are_drawn() {
        let (found, mut random) = (literals("(select (gt (add ?a 2) 7) 0 ?a) => (min ?a 0.1)"), Random::new(1));
        let drawn: Vec<f64> = (0..2000).filter_map(|_| found.number(DType::F32, true, &mut random)).collect();
        let near = [7f32, 7f32.next_up(), 7f32.next_down(), 8.0, 6.0, -7.0, 1.0 / 7.0, 4.5, 5.0, 0.1, 2.0];
        assert!(near.iter().all(|x| drawn.contains(&f64::from(*x))));
        assert!(
            (0..2000).filter_map(|_| found.number(DType::U8, true, &mut random)).all(|x| x >= 0.0 && x.fract() == 0.0)
        );
        assert_eq!(literals("(neg ?a) => ?a").number(DType::F64, true, &mut random), None);
    }

    #[test]
    fn sizes_stand_around_literals() {
        assert_eq!(literals("(min ?a 2000) => (max ?a -inf)").sizes(), [1999, 2000, 2001, 2002]);
        assert_eq!(literals("(min ?a 0) => (max ?a 99.5)").sizes(), [98, 99, 100, 101]);
        assert!(literals("(min ?a 1e9) => (max ?a 1)").sizes().is_empty());
    }
}
