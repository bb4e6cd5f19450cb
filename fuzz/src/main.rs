//! `tilewright-fuzz TARGET --runs N --seed S`: see the crate's documentation.
//!
//! The work is done in a second process, which writes each input to a journal before it runs, so that aborts, overflows
//! of the stack and hangs are found with their input.

use clap::Parser;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};
use tilewright::formats::write_whole;
use tilewright_fuzz::driver::{Limits, Settings, fuzz, run};
use tilewright_fuzz::targets::{self, Target};

#[derive(Parser)]
#[command(about = "Mutation fuzzing of Tilewright's readers", max_term_width = 100)]
struct Args {
    /// What to fuzz: tw, lower, kernel, op-program, rules, gguf, safetensors, tokenizer, or all
    target: String,
    /// Inputs at most, per target
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// Start of the random numbers; the same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes at most, per target
    #[arg(long)]
    minutes: Option<f64>,
    /// Run this file instead of mutated ones
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where inputs that fail are written
    #[arg(long, value_name = "FOLDER", default_value = "target/fuzz")]
    failures: PathBuf,
    /// Of the process that does the work
    #[arg(long, hide = true, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// An input that runs as long as this is a hang, and its process is ended.
const HANG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed.
fn start(args: &Args) -> Result<bool, String> {
    let all = targets::all();
    let chosen: Vec<_> = all.iter().filter(|t| args.target == "all" || args.target == t.name()).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|t| t.name()).collect();
        return Err(format!("there is no target `{}`, expected one of {} or all", args.target, names.join(", ")));
    }
    let mut good = true;
    for target in chosen {
        good &= match (&args.replay, &args.journal) {
            (Some(path), _) => replay(&**target, path)?,
            (None, Some(journal)) => work(&**target, args, journal)?,
            (None, None) => watch(target.name(), args)?,
        };
    }
    Ok(good)
}

fn replay(target: &dyn Target, path: &Path) -> Result<bool, String> {
    let input = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let found = run(target, &input, Limits::default());
    println!("{}: {:?}, {:?}, {} bytes", target.name(), found.outcome, found.time, found.memory);
    Ok(found.outcome.is_ok())
}

/// Writes an input that failed; gives its path.
fn keep(args: &Args, target: &str, input: &[u8]) -> Result<PathBuf, String> {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    std::fs::create_dir_all(&args.failures).map_err(|e| format!("cannot make {}: {e}", args.failures.display()))?;
    let path = args.failures.join(format!("{target}-{hash:016x}"));
    write_whole(&path, |out| out.write_all(input)).map_err(|d| d.to_string())?;
    Ok(path)
}

fn work(target: &dyn Target, args: &Args, journal: &Path) -> Result<bool, String> {
    let journal = File::create(journal).map_err(|e| format!("cannot write {}: {e}", journal.display()))?;
    let time = args.minutes.map(|m| Duration::from_secs_f64(m.clamp(0.0, 1e6) * 60.0));
    let mut settings =
        Settings { runs: args.runs, seed: args.seed, time, journal: Some(journal), ..Settings::default() };
    let start = Instant::now();
    let report = fuzz(target, &mut settings).map_err(|e| format!("cannot write the journal: {e}"))?;
    println!(
        "{}: {} inputs, {} accepted, {} different outcomes, {} failures, seed {}, {:.0} s; most: {:?}, {} bytes",
        target.name(),
        report.runs,
        report.accepted,
        report.outcomes,
        report.failures.len(),
        args.seed,
        start.elapsed().as_secs_f64(),
        report.most.0,
        report.most.1
    );
    for failure in &report.failures {
        let path = keep(args, target.name(), &failure.input)?;
        println!("FAILED {}: {}", path.display(), failure.reason);
    }
    Ok(report.failures.is_empty())
}

/// The journal: number of the input, and the input.
fn last_input(journal: &Path) -> Option<(u64, Vec<u8>)> {
    let mut bytes = Vec::new();
    File::open(journal).ok()?.read_to_end(&mut bytes).ok()?;
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let input = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((u64::from_le_bytes(*number), input.to_vec()))
}

fn watch(target: &str, args: &Args) -> Result<bool, String> {
    let journal = std::env::temp_dir().join(format!("tilewright-fuzz-{target}-{}", std::process::id()));
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut command = Command::new(program);
    command.arg(target).arg("--runs").arg(args.runs.to_string()).arg("--seed").arg(args.seed.to_string());
    command.arg("--failures").arg(&args.failures).arg("--journal").arg(&journal);
    if let Some(minutes) = args.minutes {
        command.arg("--minutes").arg(minutes.to_string());
    }
    let child = command.spawn().map_err(|e| format!("cannot start the second process: {e}"))?;
    let ended = wait(child, &journal);
    let last = last_input(&journal);
    let _ = std::fs::remove_file(&journal);
    match ended? {
        Ended::Done(good) => Ok(good),
        Ended::Badly(how) => {
            let (number, input) = last.unwrap_or_default();
            let path = keep(args, target, &input)?;
            println!("{target}: input {number} of seed {} {how}\nFAILED {}", args.seed, path.display());
            Ok(false)
        }
    }
}

enum Ended {
    /// Whether nothing failed.
    Done(bool),
    /// In words.
    Badly(String),
}

fn wait(mut child: Child, journal: &Path) -> Result<Ended, String> {
    let failed = |e: std::io::Error| format!("cannot wait for the second process: {e}");
    let (mut number, mut since) = (None, Instant::now());
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(match status.code() {
                Some(0) => Ended::Done(true),
                Some(1) => Ended::Done(false),
                _ => Ended::Badly(format!("ended the process: {status}")),
            });
        }
        let now = last_input(journal).map(|l| l.0);
        if now != number {
            (number, since) = (now, Instant::now());
        }
        if number.is_some() && since.elapsed() > HANG {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Ok(Ended::Badly(format!("ran for more than {HANG:?}")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
