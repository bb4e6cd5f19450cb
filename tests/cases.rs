//! Cases: small `.tw` files under `tests/cases`, each with the texts that it must give in snapshots beside it.
//!
//! The first line says what is shown, with names of the command line:
//! `// emit: graph kernel | level: 0 1 | isa: avx512 | target: cpu sm_80`. Each stage is a trial at each level for each target.
//! Stages after the graph need a level, so that texts do not depend on the default; what else is left out is avx512, cpu.
//! `// emit: error` wants a diagnostic of the parser, the verifier or the stages beside it, `error kernel`. After a wanted
//! change: `INSTA_UPDATE=always cargo test --test cases`, and read the difference.
//!
//! Texts must be the same everywhere: `asm` has no cases, and `clif` of products is for `portable`, which every machine has.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use clap::ValueEnum;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tilewright::compile::{Options, Precision, Target, UserRules, optimized};
use tilewright::emit::{Stage, emit_for};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::text::{difference, parse};
use tilewright_passes::egraph::Numerics;

/// What one trial shows.
#[derive(Clone)]
struct Show {
    /// Name of the snapshot.
    name: String,
    /// None is the diagnostic.
    stages: Vec<Stage>,
    error: bool,
    options: Options,
    target: Target,
}

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let (mut files, mut snapshots) = (Vec::new(), BTreeSet::new());
    collect(&root, &mut files, &mut snapshots);
    let mut trials = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let relative = file.strip_prefix(&root).unwrap().with_extension("");
        match header(&relative, &text) {
            Ok(shows) => {
                for show in shows {
                    snapshots.remove(&file.with_file_name(format!("{}.snap", show.name)));
                    let (file, text) = (file.clone(), text.clone());
                    let name = relative.with_file_name(&show.name).display().to_string();
                    trials.push(Trial::test(name, move || check(&file, &text, &show)));
                }
            }
            Err(e) => trials.push(Trial::test(relative.display().to_string(), move || Err(e.into()))),
        }
    }
    trials.push(Trial::test("every_snapshot_has_a_case", move || {
        if snapshots.is_empty() { Ok(()) } else { Err(format!("snapshots without a case: {snapshots:?}").into()) }
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>, snapshots: &mut BTreeSet<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files, snapshots);
        } else if path.extension().is_some_and(|e| e == "tw") {
            files.push(path);
        } else if path.extension().is_some_and(|e| e == "snap") {
            snapshots.insert(path);
        }
    }
}

/// What the first line asks for.
fn header(file: &Path, text: &str) -> Result<Vec<Show>, String> {
    let line = text.lines().next().and_then(|l| l.strip_prefix("// ")).ok_or("the first line is no `// emit: ..`")?;
    let (mut stages, mut error, mut levels) = (Vec::new(), false, Vec::<u8>::new());
    let (mut isa, mut targets) = (Isa::Avx512, Vec::new());
    for part in line.split('|') {
        let (key, value) = part.split_once(':').ok_or("expected `key: values`")?;
        let values = value.split_whitespace();
        match key.trim() {
            "emit" => {
                for word in values {
                    if word == "error" {
                        error = true;
                    } else {
                        stages.push(Stage::from_str(word, false)?);
                    }
                }
            }
            "level" => {
                levels = values.map(|v| v.parse().map_err(|_| format!("no level {v}"))).collect::<Result<_, _>>()?
            }
            "isa" => {
                let found = Isa::ALL.iter().find(|isa| isa.name() == value.trim());
                isa = *found.ok_or_else(|| format!("no instruction set {}", value.trim()))?;
            }
            "target" => targets = values.map(|v| Target::from_str(v, false)).collect::<Result<_, _>>()?,
            other => return Err(format!("expected emit, level, isa or target, found `{other}`")),
        }
    }
    match (levels.is_empty(), stages.iter().any(|s| *s != Stage::Graph)) {
        (true, true) => return Err("expected `level: ..`, as stages after the graph depend on it".into()),
        (true, false) => levels.push(0),
        (false, _) => {}
    }
    let stem = file.file_name().unwrap_or_default().to_string_lossy().to_string();
    let options = |opt_level| Options {
        opt_level,
        numerics: Numerics::default(),
        precision: Precision::default(),
        threads: 1,
        isa,
        verify: true,
        max_work: None,
        rules: UserRules::default(),
        device: None,
        tuned: None,
        budget: tilewright::compile::DEFAULT_BUDGET,
    };
    if error {
        let name = format!("{stem}.error");
        return Ok(vec![Show {
            name,
            stages,
            error,
            options: options(levels[0]),
            target: targets.first().copied().unwrap_or_default(),
        }]);
    }
    let mut shows = Vec::new();
    if targets.is_empty() {
        targets.push(Target::Cpu);
    }
    for stage in stages {
        let stage_name = name_of(stage);
        for &target in &targets {
            // The graph does not depend on how it is compiled.
            let count = if stage == Stage::Graph { 1 } else { levels.len() };
            for &level in &levels[..count] {
                let mut name = format!("{stem}.{stage_name}");
                if stage != Stage::Graph {
                    name += &format!(".{level}");
                }
                if targets.len() > 1 {
                    name += &format!(".{}", name_of(target));
                }
                shows.push(Show { name, stages: vec![stage], error, options: options(level), target });
            }
        }
    }
    if shows.is_empty() { Err("nothing to emit".into()) } else { Ok(shows) }
}

fn name_of<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or(String::new(), |v| v.get_name().to_string())
}

fn check(file: &Path, text: &str, show: &Show) -> Result<(), Failed> {
    let name = format!("{}.tw", file.file_stem().unwrap_or_default().to_string_lossy());
    let shown = parse(&name, text).and_then(|module| {
        tilewright_ir::verify::verify(&module)?;
        let each = |&stage: &Stage| {
            let text = emit_for(&module, stage, &show.options, show.target)?;
            if stage == Stage::Optimized {
                // What is shown is a program: the same one again.
                let (again, same) = (parse(&name, &text)?, optimized(&module, &show.options, show.target)?);
                assert_eq!(difference(&again, &same), None, "{text}");
            }
            Ok(text)
        };
        show.stages.iter().map(each).collect::<Result<String, _>>()
    });
    let shown = match shown {
        Ok(shown) if !show.error => shown,
        Ok(_) => return Err("expected a diagnostic, found none".into()),
        Err(d) if show.error => d.to_string(),
        Err(d) => return Err(d.to_string().into()),
    };
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(file.parent().unwrap_or(file));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(show.name.clone(), shown));
    Ok(())
}
