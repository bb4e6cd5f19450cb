//! The tile product of bf16 on AMX: 32 x 32 sums in four tile registers, 32 steps of the fold at a time. Panels are those of
//! [`pairs`](super::pairs).
//!
//! Numerics: the products are exact. Of 32 steps, two chains of f32 additions from 0, one of the even steps and one of the odd
//! ones, are added to each other and then to what there is, each rounded to nearest. Operands, products and sums below the
//! least normal f32 count as 0, which the instruction does whatever the mode of the processor. A fold goes on from the old
//! `c`, so cutting it where 32 steps end changes no bit. Source: Intel's Software Developer's Manual, TDPBF16PS.

use super::pairs;
use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a full tile.
pub const MR: usize = 2 * ROWS;
/// Columns of a tile.
pub const NR: usize = pairs::NR;
/// Rows of a register.
const ROWS: usize = 16;
/// Bytes of a row of a register.
const ROW_BYTES: usize = 64;
/// Steps of the fold that one instruction takes.
const STEPS: usize = 32;

/// The layout of `ldtilecfg`'s operand.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Sums of the first 16 rows in registers 0 and 1, of the others in 2 and 3; rows of `a` in 4 and 5, columns in 6 and 7.
    /// A register has the rows and steps that there are, so that nothing beyond them is touched.
    fn new(m: usize, steps: usize) -> Config {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut set = |registers: &[usize], rows: usize, bytes: usize| {
            for &register in registers.iter().filter(|_| rows > 0) {
                (config.rows[register], config.row_bytes[register]) = (rows as u8, bytes as u16);
            }
        };
        let (upper, lower) = (m.min(ROWS), m.saturating_sub(ROWS));
        set(&[0, 1], upper, ROW_BYTES);
        set(&[2, 3], lower, ROW_BYTES);
        set(&[4], upper, 2 * steps);
        set(&[5], lower, 2 * steps);
        set(&[6, 7], steps / 2, ROW_BYTES);
        config
    }
}

/// See [`TileProduct`](super::TileProduct); the panel is `[k / 2][NR][2]`, `k` even.
///
/// # Safety
/// `a` has `m` rows of `k` bf16 `lda` apart, `b` `k` times NR bf16, `c` `m` rows of NR f32 `ldc` apart that overlap neither;
/// all are aligned to an element, and [`available`] holds.
pub unsafe extern "C" fn product(
    m: usize,
    k: usize,
    a: *const u8,
    lda: usize,
    b: *const u8,
    _ldb: usize,
    c: *mut u8,
    ldc: usize,
    accumulate: usize,
) {
    let (whole, rest) = (k / STEPS, k % STEPS);
    // SAFETY: the caller's contract; `whole` blocks of 32 steps and one of `rest` are the `k` steps.
    unsafe {
        if k == 0 && accumulate == 0 {
            for i in 0..m {
                c.cast::<f32>().add(i * ldc).write_bytes(0, NR);
            }
        }
        if whole > 0 {
            blocks(&Config::new(m, STEPS), m, whole, (a, 2 * lda), b, (c, 4 * ldc), accumulate != 0);
        }
        if rest > 0 {
            let (a, b) = (a.add(2 * whole * STEPS), b.add(2 * whole * STEPS * NR));
            blocks(&Config::new(m, rest), m, 1, (a, 2 * lda), b, (c, 4 * ldc), accumulate != 0 || whole > 0);
        }
    }
}

/// Fetches lines of the panel that far from where it is read, in bytes; see [`ahead`](super::ahead).
macro_rules! fetch {
    ($($bytes:literal)+) => { concat!($("prefetcht0 [{b} + ", $bytes, "]\n"),+) };
}

/// `count > 0` times as many steps as the configuration has.
///
/// The registers are set up and given back in here: in use they would be saved at each switch of threads.
///
/// # Safety
/// That of [`product`], with distances of rows in bytes; the configuration is that of `m` rows.
#[inline]
unsafe fn blocks(
    config: &Config,
    m: usize,
    count: usize,
    (a, a_row): (*const u8, usize),
    b: *const u8,
    (c, c_row): (*mut u8, usize),
    accumulate: bool,
) {
    let flags = u32::from(accumulate) | u32::from(m > ROWS) << 1;
    // SAFETY: the tiles of the configuration have the rows and columns that there are, of which the caller says that they may be
    // read or written; those of the lower half are used only where there is one. All tiles are given up at the end, and no
    // other code uses them.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            // A new configuration has zeros in all tiles.
            "test {flags:e}, 1",
            "jz 2f",
            "tileloadd tmm0, [{c} + {c_row}]",
            "tileloadd tmm1, [{c} + {c_row} + 64]",
            "test {flags:e}, 2",
            "jz 2f",
            "tileloadd tmm2, [{lower_c} + {c_row}]",
            "tileloadd tmm3, [{lower_c} + {c_row} + 64]",
            "2:",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm7, [{b} + {b_row} + 64]",
            fetch!(8192 8256 8320 8384 8448 8512 8576 8640 8704 8768 8832 8896 8960 9024 9088 9152),
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "test {flags:e}, 2",
            "jz 3f",
            "tileloadd tmm5, [{lower_a} + {a_row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "3:",
            fetch!(9216 9280 9344 9408 9472 9536 9600 9664 9728 9792 9856 9920 9984 10048 10112 10176),
            "add {a}, 64",
            "add {lower_a}, 64",
            "add {b}, 2048",
            "dec {count}",
            "jnz 2b",
            "tilestored [{c} + {c_row}], tmm0",
            "tilestored [{c} + {c_row} + 64], tmm1",
            "test {flags:e}, 2",
            "jz 4f",
            "tilestored [{lower_c} + {c_row}], tmm2",
            "tilestored [{lower_c} + {c_row} + 64], tmm3",
            "4:",
            "tilerelease",
            config = in(reg) config,
            flags = in(reg) flags,
            count = inout(reg) count => _,
            a = inout(reg) a => _,
            lower_a = inout(reg) a.wrapping_add(ROWS * a_row) => _,
            a_row = in(reg) a_row,
            b = inout(reg) b => _,
            b_row = in(reg) 2 * ROW_BYTES,
            c = in(reg) c,
            lower_c = in(reg) c.wrapping_add(ROWS * c_row),
            c_row = in(reg) c_row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Whether the processor has tiles and their products of bf16, and the system lets this process use them. The first call asks
/// it; the permission then holds for every thread.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && permitted())
}

/// Bits of CPUID leaf 7, register EDX. The library's own name for them is not stable yet.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;

fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Safe in some versions of the library and unsafe in others.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has the instruction.
    let found = unsafe { if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 } };
    found & AMX_BF16 != 0 && found & AMX_TILE != 0
}

/// Asks the system for the state of tiles. It refuses where it does not know them, or where a thread's stack for signals is too
/// small to save them.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    /// `arch_prctl`, its request of permission for a part of the processor's state, and the part that holds tiles.
    const ARCH_PRCTL: isize = 158;
    const REQUEST: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call touches no memory of this process; the system changes no register but these.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
