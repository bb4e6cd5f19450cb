//! Sentence embeddings at the sizes of usual peers' benchmarks: median and least time of a run.
//!
//! `cargo run --release --example encoder -- models/minilm 2` for two threads; a third argument prints the time of each
//! kernel for the size of that name. Ids are arbitrary: time does not depend on them.

use std::path::Path;
use std::time::Instant;
use tilewright::compile::Options;
use tilewright::embed::{EncoderFolder, SentenceEncoder};
use tilewright_ir::diag::Diagnostic;

/// Name, texts, tokens of the longest, whether the others are shorter: 8 tokens and more.
const SIZES: &[(&str, usize, usize, bool)] =
    &[("1x16", 1, 16, false), ("1x128", 1, 128, false), ("32x64", 32, 64, false), ("32x64 padded", 32, 64, true)];

fn main() -> Result<(), Diagnostic> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = EncoderFolder::open(Path::new(args.first().map_or("models/minilm", String::as_str)))?;
    let threads = args.get(1).and_then(|t| t.parse().ok()).unwrap_or(2);
    let options = Options { threads, ..Options::host()? };
    let start = Instant::now();
    let mut model = SentenceEncoder::new(&folder, &options)?;
    println!("compiled in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    if args.len() > 2 {
        model.enable_profile();
    }
    for (name, batch, tokens, padded) in SIZES.iter().filter(|s| args.get(2).is_none_or(|name| name == s.0)) {
        let length = |i: usize| if *padded && i > 0 { 8 + i * 37 % (tokens - 7) } else { *tokens };
        let vocabulary = folder.config.vocabulary;
        let texts: Vec<Vec<u32>> =
            (0..*batch).map(|i| (0..length(i)).map(|j| ((i * 131 + j * 31) % vocabulary) as u32).collect()).collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        model.embed(&texts)?;
        model.embed(&texts)?;
        if let Some(profile) = model.profile() {
            profile.clear();
        }
        let (mut times, mut total) = (Vec::new(), 0.0);
        while times.len() < 7 || (total < 1.0 && times.len() < 500) {
            let start = Instant::now();
            model.embed(&texts)?;
            times.push(start.elapsed().as_secs_f64());
            total += times[times.len() - 1];
        }
        times.sort_by(f64::total_cmp);
        let (median, least) = (times[times.len() / 2], times[0]);
        println!(
            "{name}: median {:.3} ms, least {:.3} ms, {:.0} texts/s",
            median * 1e3,
            least * 1e3,
            *batch as f64 / median
        );
        if let Some(profile) = model.profile() {
            print!("{} runs:\n{profile}", times.len());
        }
    }
    Ok(())
}
