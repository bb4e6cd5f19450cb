//! Fetching ahead of what is read: a processor's own prefetch begins anew at every page, and knows nothing of rows.

/// Bytes between what is read and what is fetched. Measured on Zen 5, one thread. Columns in q4_0: none 31 GB/s, 1 KiB 29,
/// 4 KiB 35, 8 KiB 40, 16 KiB 43 (runs differ by some 10 %); two threads reach the memory's 60 from 8 KiB on. Sixteen rows
/// times 576 x 1536 of f32 out of memory: none 330 us, 2 KiB 260, 4 KiB 210, 8 KiB and 16 KiB 215; 128 rows times 3072 x 768:
/// 3300, 2950, 2740, 2610, 2600.
pub const DISTANCE: usize = 8192;

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Fetches the lines of `bytes` bytes, a constant where it is called, that come after `panel` by the distance.
#[inline(always)]
pub fn fetch(panel: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(LINE) {
        fetch_line(panel.wrapping_add(DISTANCE + LINE * line));
    }
}

/// Fetches the lines of `bytes` bytes from `row` on. Generated code calls it.
pub extern "C" fn fetch_row(bytes: usize, row: *const u8) {
    for line in 0..bytes.div_ceil(LINE) {
        fetch_line(row.wrapping_add(LINE * line));
    }
}

#[inline(always)]
fn fetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may point anywhere, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
