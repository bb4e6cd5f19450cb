//! What `--ptxas-options=-v` says about a kernel.

/// Resources of a compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of spill stores of a thread.
    pub spill_stores: u32,
    /// Bytes of spill loads of a thread.
    pub spill_loads: u32,
    /// Bytes of static shared memory of a block.
    pub shared_bytes: u32,
}

impl Usage {
    /// Reads the log; `None` where it names no registers. With several kernels: the largest numbers.
    pub fn from_log(log: &str) -> Option<Usage> {
        let all = |after: &str| numbers_before(log, after).max();
        let registers = numbers_before(log, " registers").max()?;
        Some(Usage {
            registers,
            spill_stores: all(" bytes spill stores").unwrap_or(0),
            spill_loads: all(" bytes spill loads").unwrap_or(0),
            shared_bytes: all(" bytes smem").unwrap_or(0),
        })
    }
}

/// The kernels of a log with their resources, in its order.
pub fn per_kernel(log: &str) -> Vec<(String, Usage)> {
    let parts = log.split("Compiling entry function '").skip(1);
    let named = parts.filter_map(|part| Some((part.split_once('\'')?.0.to_string(), Usage::from_log(part)?)));
    named.collect()
}

/// The numbers that stand right before each occurrence of `after`.
fn numbers_before<'a>(log: &'a str, after: &'a str) -> impl Iterator<Item = u32> + 'a {
    log.match_indices(after).filter_map(move |(i, _)| {
        let head = log.get(..i)?;
        let digits = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        head.get(i - digits..)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_report() {
        let log = "ptxas info    : Compiling entry function 'k' for 'sm_80'\n\
            ptxas info    : Function properties for k\n    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
            ptxas info    : Used 38 registers, used 1 barriers, 32 bytes smem, 392 bytes cmem[0]\n";
        let expected = Usage { registers: 38, spill_stores: 12, spill_loads: 16, shared_bytes: 32 };
        assert_eq!(Usage::from_log(log), Some(expected));
        assert_eq!(Usage::from_log("ptxas info: nothing"), None);
        assert_eq!(Usage::from_log("99999999999999999999 registers"), None);
    }
}
