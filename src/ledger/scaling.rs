//! Scaling laws: how large a model, and on how many tokens, for a budget of operations.
//!
//! Losses are nats a token of the papers' own data and tokenizers: WebText2 of Kaplan et al., MassiveText of Hoffmann et al.; they compare
//! models under one law, never one law with the other.

use serde::Serialize;
use tilewright_ir::diag::Diagnostic;

/// Operations of a petaflop/s for a day.
pub const PF_DAY: f64 = 1e15 * 24.0 * 3600.0;

/// What a law says is best for a budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// Which law.
    pub law: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// Parameters; those of Kaplan et al. are without embeddings.
    pub parameters: f64,
    /// Tokens.
    pub tokens: f64,
    /// Loss, in nats a token, where the law has one.
    pub loss: Option<f64>,
}

/// What a budget makes of a model that is given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spent {
    /// Tokens that the budget allows, by the operations that were counted.
    pub tokens: f64,
    /// Tokens for each parameter.
    pub tokens_per_parameter: f64,
    /// Steps of the batch.
    pub steps: f64,
    /// Seconds at the predicted time of a step; none where no step was predicted.
    pub seconds: Option<f64>,
    /// The loss by Kaplan et al., of parameters without embeddings.
    pub loss_kaplan: f64,
    /// The loss by Hoffmann et al.
    pub loss_chinchilla: f64,
}

/// The answer for a budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaling {
    /// Operations.
    pub flops: f64,
    /// The same in days of a petaflop/s.
    pub pf_days: f64,
    /// What each law says.
    pub optima: Vec<Optimum>,
    /// What it makes of the model.
    pub model: Option<Spent>,
}

/// Constants of the loss `E + A / N^alpha + B / D^beta` of Hoffmann et al. 2022, equation 10.
const E: f64 = 1.69;
const A: f64 = 406.4;
const B: f64 = 410.7;
const ALPHA: f64 = 0.34;
const BETA: f64 = 0.28;

/// The loss of a model of `n` parameters after `d` tokens, after Hoffmann et al. 2022, approach 3.
pub fn chinchilla_loss(n: f64, d: f64) -> f64 {
    E + A / n.powf(ALPHA) + B / d.powf(BETA)
}

/// The loss of a model of `n` parameters without embeddings after `d` tokens, after Kaplan et al. 2020, equation 1.5 and table 2.
pub fn kaplan_loss(n: f64, d: f64) -> f64 {
    const ALPHA_N: f64 = 0.076;
    const ALPHA_D: f64 = 0.103;
    ((6.4e13 / n).powf(ALPHA_N / ALPHA_D) + 1.8e13 / d).powf(ALPHA_D)
}

/// What the laws say of a budget of operations.
///
/// Errors: `budget` for one that is no number above 0.
pub fn optima(flops: f64) -> Result<Scaling, Diagnostic> {
    if !flops.is_finite() || flops <= 0.0 {
        let message = format!("expected a budget of operations above 0, such as 5.76e23, found {flops}");
        return Err(Diagnostic::new("budget", message));
    }
    let pf_days = flops / PF_DAY;
    // Kaplan et al. 2020, table 6 and equation 1.3: the budget at the critical batch size.
    let kaplan = Optimum {
        law: "Kaplan et al.",
        source: "Kaplan et al. 2020, table 6",
        parameters: 1.3e9 * pf_days.powf(0.73),
        tokens: 2e10 * pf_days.powf(0.27),
        loss: Some((3.1e8 / pf_days).powf(0.05)),
    };
    // Hoffmann et al. 2022, table 3: a billion parameters for 1.21e20 operations, and a = b = 0.5.
    let parameters = 1e9 * (flops / 1.21e20).sqrt();
    let curves = Optimum {
        law: "Chinchilla, approach 1",
        source: "Hoffmann et al. 2022, table 3",
        parameters,
        tokens: flops / (6.0 * parameters),
        loss: None,
    };
    // The least of the loss where 6 N D is the budget: equation 4.
    let (sum, each) = (ALPHA + BETA, flops / 6.0);
    let g = (ALPHA * A / (BETA * B)).powf(1.0 / sum);
    let (n, d) = (g * each.powf(BETA / sum), each.powf(ALPHA / sum) / g);
    let parametric = Optimum {
        law: "Chinchilla, approach 3",
        source: "Hoffmann et al. 2022, equations 4 and 10",
        parameters: n,
        tokens: d,
        loss: Some(chinchilla_loss(n, d)),
    };
    Ok(Scaling { flops, pf_days, optima: vec![kaplan, curves, parametric], model: None })
}

impl Spent {
    /// A budget spent on a model of `parameters`, of which `blocks` are no embeddings, where a step takes `step` operations and `tokens`
    /// tokens, and `seconds`.
    pub fn new(budget: f64, [parameters, blocks]: [f64; 2], [step, tokens]: [f64; 2], seconds: Option<f64>) -> Spent {
        let steps = budget / step;
        let all = steps * tokens;
        Spent {
            tokens: all,
            tokens_per_parameter: all / parameters,
            steps,
            seconds: seconds.map(|s| s * steps),
            loss_kaplan: kaplan_loss(blocks, all),
            loss_chinchilla: chinchilla_loss(parameters, all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, part: f64) {
        assert!((found / expected - 1.0).abs() < part, "{found}, expected {expected}");
    }

    /// Hoffmann et al. 2022, table 3: parameters, operations, tokens.
    #[test]
    fn approach_1_has_the_rows_of_the_paper() {
        for (n, c, d) in
            [(4e8, 1.92e19, 8e9), (1e10, 1.23e22, 205.1e9), (67e9, 5.76e23, 1.5e12), (1e12, 1.27e26, 21.2e12)]
        {
            let found = &optima(c).unwrap().optima[1];
            near(found.parameters, n, 0.05);
            near(found.tokens, d, 0.08);
        }
    }

    /// No other split of the budget has a lower loss.
    #[test]
    fn approach_3_is_the_least_of_its_loss() {
        for c in [1e18, 5.76e23] {
            let found = &optima(c).unwrap().optima[2];
            near(6.0 * found.parameters * found.tokens, c, 1e-9);
            for part in [0.9, 0.99, 1.01, 1.1] {
                let n = found.parameters * part;
                assert!(chinchilla_loss(n, c / 6.0 / n) > found.loss.unwrap());
            }
        }
        // Section 3.3: the loss of Chinchilla itself, 70B on 1.4T.
        near(chinchilla_loss(70e9, 1.4e12), 1.937, 1e-3);
    }

    #[test]
    fn kaplan_has_the_figures_of_the_paper() {
        // A petaflop/s-day.
        let found = &optima(PF_DAY).unwrap().optima[0];
        assert_eq!((found.parameters, found.tokens), (1.3e9, 2e10));
        near(found.loss.unwrap(), 2.659, 1e-3);
        // Table 2 with infinite data: (6.4e13 / N)^0.076.
        near(kaplan_loss(1e9, 1e30), 2.3189, 1e-3);
    }

    #[test]
    fn budgets_are_above_zero() {
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(optima(odd).unwrap_err().code, "budget");
        }
    }
}
