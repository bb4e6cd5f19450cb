//! CUDA C to cubins with NVRTC, whichever major version is installed. No GPU is needed.

use super::cache::Cache;
use super::report::Usage;
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use tilewright_ir::diag::Diagnostic;

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code for one architecture.
    pub cubin: Vec<u8>,
    /// The compiler's log with ptxas's report.
    pub log: String,
    /// Numbers of the report.
    pub usage: Usage,
    /// Came from the disk cache.
    pub cached: bool,
}

/// The compiler. Made by [`Nvrtc::load`].
#[derive(Clone, Debug)]
pub struct Nvrtc {
    version: (i32, i32),
    cache: Option<Cache>,
}

impl Nvrtc {
    /// Finds the library: in the folder or file that `TILEWRIGHT_NVRTC` names, in `target/nvrtc` where
    /// `scripts/install-nvrtc.sh` puts it, then where the system looks.
    ///
    /// # Errors
    /// `nvrtc-missing` where there is none.
    pub fn load() -> Result<Nvrtc, Diagnostic> {
        static FOUND: OnceLock<Result<(i32, i32), Diagnostic>> = OnceLock::new();
        let version = FOUND.get_or_init(find).clone()?;
        Ok(Nvrtc { version, cache: None })
    }

    /// Keeps compiled kernels in a folder.
    #[must_use]
    pub fn with_cache(mut self, folder: &Path) -> Nvrtc {
        self.cache = Some(Cache::new(folder));
        self
    }

    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles one kernel's text for `target` (`sm_80`, `sm_89`, `sm_90a`, ...).
    ///
    /// # Errors
    /// `nvrtc-compile` with the compiler's log; `nvrtc-failed` for other failures of the library.
    pub fn compile(&self, name: &str, text: &str, target: &str) -> Result<Compiled, Diagnostic> {
        let options = [format!("--gpu-architecture={target}"), "--std=c++17".into(), "--ptxas-options=-v".into()];
        let (major, minor) = self.version;
        let key = format!("nvrtc {major}.{minor}\n{}\n{text}", options.join(" "));
        if let Some((log, cubin)) = self.cache.as_ref().and_then(|c| c.get(&key)) {
            let usage = Usage::from_log(&log).unwrap_or_default();
            return Ok(Compiled { cubin, log, usage, cached: true });
        }
        let (log, cubin) = compile(name, text, &options)?;
        if let Some(c) = &self.cache {
            c.put(&key, &log, &cubin);
        }
        let usage = Usage::from_log(&log).unwrap_or_default();
        Ok(Compiled { cubin, log, usage, cached: false })
    }
}

/// Loads the library and asks its version.
fn find() -> Result<(i32, i32), Diagnostic> {
    for path in candidates() {
        // SAFETY: loading NVIDIA's library runs its initialisers only.
        if let Ok(library) = unsafe { libloading::Library::new(&path) } {
            // cudarc loads by file name; the loader then finds this one, so it stays loaded.
            std::mem::forget(library);
            break;
        }
    }
    // SAFETY: as above; only looks whether a library loads.
    if !unsafe { sys::is_culib_present() } {
        return Err(Diagnostic::new("nvrtc-missing", "expected NVIDIA's runtime compiler libnvrtc, found none")
            .note("scripts/install-nvrtc.sh installs it; TILEWRIGHT_NVRTC may name its folder"));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is present, both pointers are valid.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) }, "nvrtcVersion")?;
    Ok((major, minor))
}

/// Files that may be the library, the newest version first.
fn candidates() -> Vec<PathBuf> {
    let named = std::env::var_os("TILEWRIGHT_NVRTC").map(PathBuf::from);
    let mut roots: Vec<PathBuf> = named.into_iter().collect();
    roots.push(PathBuf::from("target/nvrtc"));
    let mut files = Vec::new();
    for root in roots {
        if root.is_file() {
            files.push(root);
            continue;
        }
        let mut found = Vec::new();
        look(&root, 4, &mut found);
        found.sort();
        files.extend(found.into_iter().rev());
    }
    // The loader takes a path without a slash for a name to search.
    files.into_iter().filter_map(|f| f.canonicalize().ok()).collect()
}

/// `libnvrtc.so*` below a folder.
fn look(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            look(&path, depth - 1, found);
        } else if entry.file_name().to_string_lossy().starts_with("libnvrtc.so") {
            found.push(path);
        }
    }
}

/// Destroys the program at the end of a compilation.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by nvrtcCreateProgram, destroyed once. A failure here has no remedy.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn compile(name: &str, text: &str, options: &[String]) -> Result<(String, Vec<u8>), Diagnostic> {
    let c_string = |s: &str| {
        CString::new(s).map_err(|_| Diagnostic::new("nvrtc-compile", "expected a text without zero bytes, found one"))
    };
    let (source, file) = (c_string(text)?, c_string(&format!("{name}.cu"))?);
    let options = options.iter().map(|o| c_string(o)).collect::<Result<Vec<CString>, Diagnostic>>()?;
    let pointers: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();
    let count = i32::try_from(pointers.len()).unwrap_or(0);
    let mut raw = null_mut();
    // SAFETY: strings end with zero and live through the call; there are no headers.
    let made = unsafe { sys::nvrtcCreateProgram(&mut raw, source.as_ptr(), file.as_ptr(), 0, null(), null()) };
    check(made, "nvrtcCreateProgram")?;
    let program = Program(raw);
    // SAFETY: the program is valid, `pointers` has `count` strings that live through the call.
    let done = unsafe { sys::nvrtcCompileProgram(program.0, count, pointers.as_ptr()) };
    let log = bytes(
        // SAFETY: the program is valid; `bytes` gives as much room as the size says.
        |n| unsafe { sys::nvrtcGetProgramLogSize(program.0, n) },
        |p| unsafe { sys::nvrtcGetProgramLog(program.0, p) },
        "nvrtcGetProgramLog",
    )?;
    let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
    if done == sys::nvrtcResult::NVRTC_ERROR_COMPILATION || done == sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION {
        return Err(Diagnostic::new("nvrtc-compile", format!("kernel `{name}` does not compile")).note(log));
    }
    check(done, "nvrtcCompileProgram").map_err(|d| d.note(log.clone()))?;
    let cubin = bytes(
        // SAFETY: as above, after a compilation that succeeded.
        |n| unsafe { sys::nvrtcGetCUBINSize(program.0, n) },
        |p| unsafe { sys::nvrtcGetCUBIN(program.0, p) },
        "nvrtcGetCUBIN",
    )?;
    Ok((log, cubin))
}

/// Asks for a size, then for that many bytes.
fn bytes(
    size: impl Fn(*mut usize) -> sys::nvrtcResult,
    get: impl Fn(*mut std::ffi::c_char) -> sys::nvrtcResult,
    what: &str,
) -> Result<Vec<u8>, Diagnostic> {
    let mut n = 0usize;
    check(size(&mut n), what)?;
    let mut out = vec![0u8; n];
    check(get(out.as_mut_ptr().cast()), what)?;
    Ok(out)
}

fn check(result: sys::nvrtcResult, what: &str) -> Result<(), Diagnostic> {
    if result == sys::nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: returns a static string for every code.
    let text = unsafe { sys::nvrtcGetErrorString(result) };
    let text =
        if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() };
    Err(Diagnostic::new("nvrtc-failed", format!("{what} failed: {text}")))
}
