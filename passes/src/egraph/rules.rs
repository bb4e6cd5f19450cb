//! Rule files: what a rule is, and the loader with its checks. The files of this crate are embedded.

use super::term::{Line, Term, parse_term};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use tilewright_ir::diag::Diagnostic;

/// What a rule keeps of the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Every bit, infinities and NaN included.
    Exact,
    /// All but the last bits of one operation.
    Rounding,
    /// Real algebra: another order of rounding, and finite where both sides are.
    Reassociates,
    /// An approximation, in words, or by the largest relative error.
    Approx(Arc<str>),
    /// `Reassociates` under an assumption about the data that the e-graph cannot prove.
    Domain(Vec<Condition>),
}

impl Class {
    /// The largest relative error of an approximation that names it.
    pub fn bound(&self) -> Option<f64> {
        if let Class::Approx(text) = self { text.trim().parse().ok() } else { None }
    }
}

/// The class as a rule file and the command line name it, without its details.
impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Exact => "exact",
            Class::Rounding => "rounding",
            Class::Reassociates => "reassociates",
            Class::Approx(_) => "approx",
            Class::Domain(_) => "domain",
        })
    }
}

/// A side condition over variables (names without the question mark).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is asked.
    pub kind: ConditionKind,
    /// Of which variables.
    pub arguments: Vec<Arc<str>>,
}

/// The conditions that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// indep(?a, ?j): axis j is not free in a.
    Indep,
    /// nonempty(?j): axis j has at least one position.
    Nonempty,
    /// wide(?a): the dtype of a has at least the exponents of f32, so that no order of operations overflows alone.
    Wide,
    /// half(?a): the dtype of a is f16 or bf16.
    Half,
    /// single(?a): the dtype of a is f32.
    Single,
    /// positive(?a): a is a known constant above 0.
    Positive,
    /// varies(?a, ?j): axis j may be free in a.
    Varies,
    /// fewer(?a, ?b, ?c, ?j, ?k): `b` times `c` over k, then `a` over j, are at most half of the products of `a` times `b` over
    /// j, then `c` over k.
    Fewer,
    /// narrow(?b, ?a): the axes of b are some of those of a, but not all.
    Narrow,
    /// indexed(?a): a may differ from place to place, as constants and sizes do not.
    Indexed,
    /// implied(?x): what is cast of x to f16 or bf16 is the result of an op in that dtype, and no cast of the graph.
    Implied,
    /// unshifted(?s, ?j): s is not already a difference with its maximum over j.
    Unshifted,
    /// finite(?a): assumed only.
    Finite,
    /// moderate(?a): exp of a neither overflows nor underflows; assumed only.
    Moderate,
    /// inside(?t, ?j): t is a position of axis j; assumed only.
    Inside,
    /// unsigned-zero(?a): a is not -0; assumed only.
    UnsignedZero,
}

/// As a rule file has it: `finite(?a)`.
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = CONDITIONS.iter().find(|row| row.1 == self.kind).map_or("", |row| row.0);
        let arguments: Vec<String> = self.arguments.iter().map(|a| format!("?{a}")).collect();
        write!(f, "{name}({})", arguments.join(", "))
    }
}

/// Where a condition may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Truth,
    Profit,
    Assumption,
}

const CONDITIONS: &[(&str, ConditionKind, usize, Use)] = &[
    ("indep", ConditionKind::Indep, 2, Use::Truth),
    ("nonempty", ConditionKind::Nonempty, 1, Use::Truth),
    ("wide", ConditionKind::Wide, 1, Use::Truth),
    ("half", ConditionKind::Half, 1, Use::Truth),
    ("single", ConditionKind::Single, 1, Use::Truth),
    ("positive", ConditionKind::Positive, 1, Use::Truth),
    ("varies", ConditionKind::Varies, 2, Use::Profit),
    ("fewer", ConditionKind::Fewer, 5, Use::Profit),
    ("narrow", ConditionKind::Narrow, 2, Use::Profit),
    ("indexed", ConditionKind::Indexed, 1, Use::Profit),
    ("implied", ConditionKind::Implied, 1, Use::Profit),
    ("unshifted", ConditionKind::Unshifted, 2, Use::Profit),
    ("finite", ConditionKind::Finite, 1, Use::Assumption),
    ("moderate", ConditionKind::Moderate, 1, Use::Assumption),
    ("inside", ConditionKind::Inside, 2, Use::Assumption),
    ("unsigned-zero", ConditionKind::UnsignedZero, 1, Use::Assumption),
];

/// A rewrite rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique name.
    pub name: Arc<str>,
    /// What it keeps.
    pub class: Class,
    /// The `group` line above it.
    pub group: Arc<str>,
    /// The line of its name.
    pub line: Line,
    /// What is matched.
    pub left: Term,
    /// What is made equal to it.
    pub right: Term,
    /// Needed for truth (`if`).
    pub truth: Vec<Condition>,
    /// Needed for profit or termination only (`when`).
    pub profit: Vec<Condition>,
}

/// As a rule file has it, on lines of their own, without the group.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |all: &[Condition]| all.iter().map(Condition::to_string).collect::<Vec<_>>().join(", ");
        let detail = match &self.class {
            Class::Approx(what) => format!("({what})"),
            Class::Domain(assumed) => format!("({})", list(assumed)),
            Class::Exact | Class::Rounding | Class::Reassociates => String::new(),
        };
        writeln!(f, "{}: {}{detail}", self.name, self.class)?;
        writeln!(f, "  {} => {}", self.left, self.right)?;
        for (word, conditions) in [("if", &self.truth), ("when", &self.profit)] {
            if !conditions.is_empty() {
                writeln!(f, "  {word} {}", list(conditions))?;
            }
        }
        Ok(())
    }
}

/// Rules in order of their files; names are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
}

const SHIPPED: &[(&str, &str)] = &[
    ("algebra.rules", include_str!("rules/algebra.rules")),
    ("reduction.rules", include_str!("rules/reduction.rules")),
    ("contraction.rules", include_str!("rules/contraction.rules")),
    ("online.rules", include_str!("rules/online.rules")),
    ("variance.rules", include_str!("rules/variance.rules")),
    ("views.rules", include_str!("rules/views.rules")),
    ("dtype.rules", include_str!("rules/dtype.rules")),
    ("halves.rules", include_str!("rules/halves.rules")),
];

/// The rules of this crate. Errors: those of [`RuleSet::parse`], which the tests exclude.
pub fn shipped() -> Result<RuleSet, Diagnostic> {
    // Each function that is compiled asks for them.
    static PARSED: OnceLock<Result<RuleSet, Diagnostic>> = OnceLock::new();
    let parse = || {
        let mut all = RuleSet::default();
        for (file, text) in SHIPPED {
            all.extend(RuleSet::parse(file, text)?)?;
        }
        Ok(all)
    };
    PARSED.get_or_init(parse).clone()
}

impl RuleSet {
    /// Parses a rule file: stanzas `name: class`, then indented `left => right`, `if` and `when` lines; `#` comments.
    ///
    /// Errors: `rule-syntax`, `unknown-head`, `operand-count`, `unknown-condition`, `unbound-variable`, `axis-capture`,
    /// `duplicate-rule`; all with the place.
    pub fn parse(file: &str, text: &str) -> Result<RuleSet, Diagnostic> {
        let file: Arc<str> = file.into();
        let mut reader = Reader { group: "".into(), pending: None, set: RuleSet::default() };
        for (number, text) in (1u32..).zip(text.lines()) {
            let line = Line { file: file.clone(), number, text: text.into() };
            let end = line.text.find('#').unwrap_or(line.text.len());
            let shown = line.text.get(..end).unwrap_or("").trim_end();
            if shown.trim().is_empty() {
                continue;
            }
            reader.line(&line, shown)?;
        }
        reader.finish()?;
        Ok(reader.set)
    }

    /// Reads and parses a rule file from disk. Errors: `rule-file`, and those of [`RuleSet::parse`].
    pub fn read(path: &std::path::Path) -> Result<RuleSet, Diagnostic> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Diagnostic::new("rule-file", format!("cannot read the rule file `{name}`: {e}")))?;
        RuleSet::parse(&name, &text)
    }

    /// Appends rules. Errors: `duplicate-rule`.
    pub fn extend(&mut self, other: RuleSet) -> Result<(), Diagnostic> {
        other.rules.into_iter().try_for_each(|rule| self.push(rule))
    }

    /// The set without the rules of a group.
    #[must_use]
    pub fn without_group(&self, group: &str) -> RuleSet {
        RuleSet { rules: self.rules.iter().filter(|r| &*r.group != group).cloned().collect() }
    }

    fn push(&mut self, rule: Rule) -> Result<(), Diagnostic> {
        if let Some(old) = self.rules.iter().find(|r| r.name == rule.name) {
            let (file, number) = (&old.line.file, old.line.number);
            let message = format!("there is already a rule `{}`, at {file}:{number}", rule.name);
            return Err(rule.line.error("duplicate-rule", message, 0, rule.name.chars().count()));
        }
        self.rules.push(rule);
        Ok(())
    }
}

struct Pending {
    name: Arc<str>,
    class: Class,
    line: Line,
    sides: Option<(Term, Term, Line)>,
    truth: Vec<Condition>,
    profit: Vec<Condition>,
}

struct Reader {
    group: Arc<str>,
    pending: Option<Pending>,
    set: RuleSet,
}

impl Reader {
    fn line(&mut self, line: &Line, shown: &str) -> Result<(), Diagnostic> {
        let indent = shown.len() - shown.trim_start().len();
        let bad = |message: &str| line.error("rule-syntax", message.into(), indent, shown.trim().chars().count());
        if indent == 0 {
            self.finish()?;
            if let Some(name) = shown.strip_prefix("group ") {
                self.group = name.trim().into();
                return Ok(());
            }
            let (name, class) = shown.split_once(':').ok_or_else(|| bad("expected `name: class` or `group name`"))?;
            let class = parse_class(line, class.trim(), shown.len() - class.trim_start().len())?;
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Err(bad("a rule's name is made of letters, digits and `-`"));
            }
            let (name, line) = (name.into(), line.clone());
            self.pending = Some(Pending { name, class, line, sides: None, truth: Vec::new(), profit: Vec::new() });
            return Ok(());
        }
        let Some(rule) = &mut self.pending else { return Err(bad("expected `name: class` above this line")) };
        let word = shown.trim_start();
        if let Some(list) = word.strip_prefix("if ") {
            rule.truth.extend(conditions(line, list, indent + 3, Use::Truth)?);
        } else if let Some(list) = word.strip_prefix("when ") {
            rule.profit.extend(conditions(line, list, indent + 5, Use::Profit)?);
        } else {
            if rule.sides.is_some() {
                return Err(bad("a rule has one `left => right` line"));
            }
            let arrow = shown.find("=>").ok_or_else(|| bad("expected `left => right`, `if ..` or `when ..`"))?;
            let side = |from: usize, to: usize| -> Result<Term, Diagnostic> {
                let (term, after) = parse_term(line, from, to)?;
                let rest = line.text.get(after..to).unwrap_or("");
                if rest.trim().is_empty() {
                    return Ok(term);
                }
                let column = line.text.get(..after).unwrap_or("").chars().count();
                Err(line.error(
                    "rule-syntax",
                    format!("expected nothing after this pattern, found `{rest}`"),
                    column,
                    1,
                ))
            };
            rule.sides = Some((side(indent, arrow)?, side(arrow + 2, shown.len())?, line.clone()));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Diagnostic> {
        let Some(p) = self.pending.take() else { return Ok(()) };
        let Some((left, right, line)) = p.sides else {
            let message = format!("the rule `{}` has no `left => right` line", p.name);
            return Err(p.line.error("rule-syntax", message, 0, p.name.len()));
        };
        let rule = Rule {
            name: p.name,
            class: p.class,
            group: self.group.clone(),
            line: p.line,
            left,
            right,
            truth: p.truth,
            profit: p.profit,
        };
        check_scopes(&rule, &line)?;
        self.set.push(rule)
    }
}

fn parse_class(line: &Line, text: &str, column: usize) -> Result<Class, Diagnostic> {
    let inner =
        |name: &str| text.strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')'));
    match text {
        "exact" => return Ok(Class::Exact),
        "rounding" => return Ok(Class::Rounding),
        "reassociates" => return Ok(Class::Reassociates),
        _ => {}
    }
    if let Some(what) = inner("approx") {
        let class = Class::Approx(what.into());
        if class.bound().is_some_and(|bound| !(bound > 0.0 && bound.is_finite())) {
            let message = format!("expected a relative error above 0 or words, found `{what}`");
            return Err(line.error("rule-syntax", message, column + "approx(".len(), what.chars().count()));
        }
        return Ok(class);
    }
    if let Some(list) = inner("domain") {
        return Ok(Class::Domain(conditions(line, list, column + "domain(".len(), Use::Assumption)?));
    }
    let message = format!("expected exact, rounding, reassociates, approx(..) or domain(..), found `{text}`");
    Err(line.error("rule-syntax", message, column, text.chars().count()))
}

fn conditions(line: &Line, list: &str, column: usize, place: Use) -> Result<Vec<Condition>, Diagnostic> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < list.len() {
        let rest = list.get(at..).unwrap_or("");
        let skip = rest.len() - rest.trim_start_matches([' ', ',']).len();
        let part = rest.get(skip..).unwrap_or("");
        if part.is_empty() {
            break;
        }
        let length = part.find(')').map_or(part.len(), |n| n + 1);
        let one = part.get(..length).unwrap_or("");
        let error = |code, message: String| line.error(code, message, column + at + skip, one.chars().count());
        let shape = one.strip_suffix(')').and_then(|t| t.split_once('('));
        let (name, args) =
            shape.ok_or_else(|| error("rule-syntax", format!("expected `condition(?a, ..)`, found `{one}`")))?;
        let row = CONDITIONS.iter().find(|row| row.0 == name && (row.3 == place || row.3 == Use::Truth));
        let Some((_, kind, arity, _)) = row else {
            let names: Vec<&str> =
                CONDITIONS.iter().filter(|r| r.3 == place || r.3 == Use::Truth).map(|r| r.0).collect();
            let message = format!("unknown condition `{name}` here, expected one of {}", names.join(", "));
            return Err(error("unknown-condition", message));
        };
        let arguments: Option<Vec<Arc<str>>> =
            args.split(',').map(|a| a.trim().strip_prefix('?').map(Arc::from)).collect();
        let arguments = arguments.ok_or_else(|| error("rule-syntax", format!("`{name}` takes variables")))?;
        if arguments.len() != *arity {
            let message = format!("`{name}` takes {arity} variables, found {}", arguments.len());
            return Err(error("operand-count", message));
        }
        out.push(Condition { kind: *kind, arguments });
        at += skip + length;
    }
    Ok(out)
}

/// Variables of the right side and of conditions are bound on the left, and none enters or leaves a fold unless it is
/// independent of its axis.
fn check_scopes(rule: &Rule, line: &Line) -> Result<(), Diagnostic> {
    let mut seen: Vec<(Arc<str>, BTreeSet<Arc<str>>)> = Vec::new();
    rule.left.variables(&mut Vec::new(), &mut |name, bound| seen.push((name.clone(), bound.iter().cloned().collect())));
    let error = |code, message: String| {
        let start = line.text.len() - line.text.trim_start().len();
        line.error(code, message, start, line.text.trim().chars().count())
    };
    if matches!(rule.left, Term::Variable(_) | Term::Number(_)) {
        return Err(error("rule-syntax", "the left side must have a head".into()));
    }
    if rule.left.has_own() {
        return Err(error(
            "rule-syntax",
            "`(cast ..)` takes its dtype from the left side: name one, as in `cast-f16`".into(),
        ));
    }
    let mut result = Ok(());
    rule.right.variables(&mut Vec::new(), &mut |name, bound| {
        let bound: BTreeSet<Arc<str>> = bound.iter().cloned().collect();
        // A known constant depends on no axis.
        let free = |axis: &Arc<str>| {
            rule.truth.iter().any(|c| match c.kind {
                ConditionKind::Indep => c.arguments == [name.clone(), axis.clone()],
                ConditionKind::Positive => c.arguments == [name.clone()],
                ConditionKind::Nonempty | ConditionKind::Wide | ConditionKind::Varies | ConditionKind::Narrow => false,
                ConditionKind::Indexed | ConditionKind::Unshifted | ConditionKind::Fewer => false,
                ConditionKind::Half | ConditionKind::Single | ConditionKind::Implied => false,
                ConditionKind::Finite | ConditionKind::Moderate => false,
                ConditionKind::Inside | ConditionKind::UnsignedZero => false,
            })
        };
        let mut known = seen.iter().filter(|s| s.0 == *name).peekable();
        if result.is_err() {
        } else if known.peek().is_none() {
            result = Err(error("unbound-variable", format!("`?{name}` does not occur on the left")));
        } else if !known.any(|s| s.1.symmetric_difference(&bound).all(free)) {
            let message = format!("`?{name}` enters or leaves a fold: the rule needs `if indep(?{name}, ..)`");
            result = Err(error("axis-capture", message));
        }
    });
    result?;
    // A position takes its dtype from the match, which is one of a position along the same axis.
    let (mut matched, mut made) = (Vec::new(), Vec::new());
    rule.left.positions(&mut matched);
    rule.right.positions(&mut made);
    if let Some(axis) = made.iter().find(|axis| !matched.contains(axis)) {
        let message = format!("`(iota ?{axis})` has no dtype: it does not occur on the left");
        return Err(error("unbound-variable", message));
    }
    let assumed: &[Condition] = if let Class::Domain(list) = &rule.class { list } else { &[] };
    for name in rule.truth.iter().chain(&rule.profit).chain(assumed).flat_map(|c| &c.arguments) {
        if !seen.iter().any(|s| s.0 == *name) {
            return Err(error("unbound-variable", format!("a condition names `?{name}`, which is not on the left")));
        }
    }
    Ok(())
}
