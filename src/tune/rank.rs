//! How well predicted times put the schedules of a region in order.

use super::Region;

impl Region {
    /// Spearman's rank correlation of predicted and measured times, over the choices that have both. Of either, times that differ by at most
    /// `noise` of the lesser are ties: see [`correlation`].
    pub fn correlation(&self, noise: f64) -> Option<f64> {
        let pairs: Vec<(f64, f64)> = self.choices.iter().filter_map(|t| Some((t.predicted?, t.seconds))).collect();
        let (predicted, measured): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        correlation(&predicted, &measured, noise)
    }

    /// Of the pairs of choices whose times differ by more than `noise` of the lesser, how many more are predicted in the right order than in
    /// the wrong one, from -1 to 1 (Goodman and Kruskal's gamma, which leaves out ties: Goodman, Kruskal, Measures of
    /// Association for Cross Classifications, 1954). None where no times differ so much.
    pub fn concordance(&self, noise: f64) -> Option<f64> {
        let (mut right, mut wrong) = (0.0, 0.0);
        for (i, a) in self.choices.iter().enumerate() {
            for b in &self.choices[..i] {
                let (Some(x), Some(y)) = (a.predicted, b.predicted) else { continue };
                if !apart(a.seconds, b.seconds, noise) {
                    continue;
                }
                // What is predicted to be equal is as wrong as right.
                let same = (x > y) == (a.seconds > b.seconds) && x != y;
                *(if same { &mut right } else { &mut wrong }) += if x == y { 0.5 } else { 1.0 };
                if x == y {
                    right += 0.5;
                }
            }
        }
        let all: f64 = right + wrong;
        (all > 0.0).then(|| (right - wrong) / all)
    }
}

/// Whether times differ by more than `noise` of the lesser.
fn apart(a: f64, b: f64, noise: f64) -> bool {
    (a - b).abs() > noise * a.min(b)
}

/// Spearman's rank correlation: Pearson's of the ranks. Numbers that differ by at most `noise` of the lesser are ties, each of which counts
/// half in the rank of the other; with `noise` 0 these are the usual mean ranks. A first series without any order tells nothing: 0. None for
/// less than four numbers, or where the second has no order that could be told.
pub fn correlation(told: &[f64], truth: &[f64], noise: f64) -> Option<f64> {
    if told.len() != truth.len() || told.len() < 4 {
        return None;
    }
    let (x, y) = (ranks(told, noise), ranks(truth, noise));
    let mean = (told.len() - 1) as f64 / 2.0;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let (told, truth) = (dot(&x, &x), dot(&y, &y));
    if truth == 0.0 {
        return None;
    }
    Some(if told == 0.0 { 0.0 } else { dot(&x, &y) / (told * truth).sqrt() })
}

/// Ranks from 0: how many numbers are less, and half of how many others are ties.
fn ranks(values: &[f64], noise: f64) -> Vec<f64> {
    let rank = |x: &f64| {
        let below = values.iter().filter(|y| *y < x && apart(*x, **y, noise)).count() as f64;
        let equal = values.iter().filter(|y| !apart(*x, **y, noise)).count() as f64;
        below + (equal - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Timed;
    use super::*;
    use tilewright_passes::schedule::Choice;

    fn region(rows: &[(f64, f64)]) -> Region {
        let timed = |&(predicted, seconds): &(f64, f64)| Timed {
            choice: Choice::Fixed,
            predicted: Some(predicted),
            seconds,
            again: false,
        };
        Region { kernel: "main.k".into(), text: String::new(), choices: rows.iter().map(timed).collect() }
    }

    #[test]
    fn ranks_agree_or_not() {
        let same = region(&[(1.0, 10.0), (2.0, 20.0), (3.0, 25.0), (9.0, 26.0)]);
        assert_eq!(same.correlation(0.0), Some(1.0));
        let other = region(&[(1.0, 4.0), (2.0, 3.0), (3.0, 2.0), (4.0, 1.0)]);
        assert_eq!(other.correlation(0.0), Some(-1.0));
        // By hand: ranks 0 1 2.5 2.5 and 0 2 1 3.
        let ties = region(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (3.0, 4.0)]);
        assert!((ties.correlation(0.0).unwrap_or(0.0) - 0.632_455_5).abs() < 1e-6, "{:?}", ties.correlation(0.0));
        assert_eq!(region(&[(1.0, 1.0); 3]).correlation(0.0), None);
    }

    #[test]
    fn what_noise_hides_is_a_tie() {
        // Only the last is slower than noise, and predicted to be.
        let seen = region(&[(1.0, 1.03), (1.01, 1.01), (1.02, 1.0), (2.0, 2.0)]);
        assert_eq!(seen.correlation(0.05), Some(1.0));
        assert!(seen.correlation(0.0).is_some_and(|r| r < 0.5));
        // An order where there is none is wrong, no order where there is one tells nothing, and of nothing nothing can be told.
        let made_up = region(&[(1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (8.0, 2.0)]);
        assert!(made_up.correlation(0.05).is_some_and(|r| r < 0.8));
        assert_eq!(region(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]).correlation(0.05), Some(0.0));
        assert_eq!(region(&[(1.0, 1.0), (2.0, 1.01), (3.0, 1.02), (4.0, 1.03)]).correlation(0.05), None);
        // Ties need not be transitive: 1.00 and 1.08 are apart, 1.04 is neither's.
        assert_eq!(ranks(&[1.0, 1.04, 1.08, 2.0], 0.05), [0.5, 1.0, 1.5, 3.0]);
    }

    #[test]
    fn a_gain_too_small_to_see_is_none() {
        assert_eq!(region(&[(1.0, 1.0), (1.0, 0.995)]).best().map(|t| t.seconds), Some(1.0));
        assert_eq!(region(&[(1.0, 1.0), (1.0, 0.9)]).best().map(|t| t.seconds), Some(0.9));
    }
}
