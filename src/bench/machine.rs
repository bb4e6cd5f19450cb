//! What is measured beside time: what others did with the machine meanwhile, memory, the processor's features.

use std::time::Instant;
use tilewright_codegen::cpu::ukernel::Isa;

/// Ticks per second of `/proc/stat`: the kernel's interface fixes 100.
const TICKS: f64 = 100.0;

/// Watches what takes the cores away from this process.
pub struct Others {
    start: Instant,
    busy: Option<f64>,
}

impl Others {
    /// From now on.
    pub fn watch() -> Others {
        Others { start: Instant::now(), busy: others_seconds() }
    }

    /// Mean number of cores that other processes and the hypervisor used since; none where the system does not tell.
    pub fn cores(&self) -> Option<f64> {
        let busy = others_seconds()? - self.busy?;
        Some((busy / self.start.elapsed().as_secs_f64().max(1e-9)).max(0.0))
    }
}

/// Core seconds since the start of the machine that were not idle and not ours.
fn others_seconds() -> Option<f64> {
    let all = std::fs::read_to_string("/proc/stat").ok()?;
    // user nice system idle iowait irq softirq steal
    let fields = all.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.map(|t| t.parse().unwrap_or(0.0)).collect();
    let waiting = ticks.get(3)? + ticks.get(4)?;
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name in parentheses: utime and stime are fields 14 and 15.
    let (_, rest) = own.rsplit_once(')')?;
    let times = rest.split_whitespace().skip(11).take(2);
    let own: f64 = times.map(|t| t.parse().unwrap_or(0.0)).sum();
    Some((ticks.iter().sum::<f64>() - waiting - own) / TICKS)
}

/// Largest resident set so far, in MB, where the system tells.
pub fn peak_rss_mb() -> Option<u64> {
    peak_rss_kb().map(|kb| kb / 1024)
}

/// Largest resident set since the start or [`reset_peak_rss`], in units of 1024 bytes, where the system tells.
pub fn peak_rss_kb() -> Option<u64> {
    status("VmHWM:")
}

/// Resident set, in units of 1024 bytes, where the system tells.
pub fn rss_kb() -> Option<u64> {
    status("VmRSS:")
}

/// Lets [`peak_rss_kb`] begin anew, where the system can.
pub fn reset_peak_rss() {
    // Elsewhere what is measured stays that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()
}

/// The features of this processor that decide how fast it multiplies, and the instruction set that is used.
pub fn features(isa: Isa) -> String {
    const INTERESTING: [&str; 9] =
        ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"];
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    let there: Vec<&str> = flags.split_whitespace().filter(|f| INTERESTING.contains(f)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores; {}; uses {}", there.join(" "), isa.name())
}
