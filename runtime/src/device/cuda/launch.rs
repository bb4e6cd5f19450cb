//! Memory and launches of one NVIDIA device through the driver.

use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;

/// One device with its stream. Made by [`Cuda::open`].
#[derive(Clone, Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

/// A kernel on the device.
#[derive(Clone, Debug)]
pub struct LoadedKernel {
    function: CudaFunction,
    threads: u32,
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A buffer, passed as its address.
    Buffer(&'a CudaSlice<u8>),
    /// The value of a symbol.
    Symbol(i64),
}

impl Cuda {
    /// Opens a device by number.
    ///
    /// # Errors
    /// `cuda-missing` where there is no driver or no such device.
    pub fn open(ordinal: usize) -> Result<Cuda, Diagnostic> {
        let missing =
            |why: String| Diagnostic::new("cuda-missing", format!("expected CUDA device {ordinal}, found {why}"));
        // SAFETY: only looks whether the driver's library loads; without it every driver call would panic.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(missing("no driver".into()));
        }
        let count = CudaContext::device_count().map_err(|e| missing(format!("no usable driver: {e}")))?;
        if usize::try_from(count).is_ok_and(|n| ordinal >= n) {
            return Err(missing(format!("{count} devices")));
        }
        let context = CudaContext::new(ordinal).map_err(|e| missing(format!("an error: {e}")))?;
        let stream = context.default_stream();
        Ok(Cuda { context, stream })
    }

    /// The target whose cubins this device runs: `sm_80`, `sm_90a`, ...
    ///
    /// # Errors
    /// The driver's.
    pub fn target(&self) -> Result<String, Diagnostic> {
        let (major, minor) = self.context.compute_capability().map_err(|e| failed("compute capability", &e))?;
        // Architecture-specific instructions exist from 9.0 on.
        Ok(format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" }))
    }

    /// Loads a cubin's kernel, which runs with `threads` threads a block.
    ///
    /// # Errors
    /// A name with a zero byte, the driver's.
    pub fn load(&self, cubin: &[u8], name: &str, threads: u32) -> Result<LoadedKernel, Diagnostic> {
        if name.contains('\0') {
            return Err(Diagnostic::new("cuda-failed", "expected a kernel name without zero bytes, found one"));
        }
        let module = self.context.load_module(Ptx::from_binary(cubin.to_vec())).map_err(|e| failed("loading", &e))?;
        let function = module.load_function(name).map_err(|e| failed("finding the kernel", &e))?;
        Ok(LoadedKernel { function, threads })
    }

    /// A buffer with these bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn upload(&self, bytes: &[u8]) -> Result<CudaSlice<u8>, Diagnostic> {
        self.stream.clone_htod(bytes).map_err(|e| failed("copying to the device", &e))
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// The driver's.
    pub fn zeros(&self, bytes: usize) -> Result<CudaSlice<u8>, Diagnostic> {
        self.stream.alloc_zeros(bytes).map_err(|e| failed("allocating", &e))
    }

    /// The bytes of a buffer, after everything that was launched.
    ///
    /// # Errors
    /// The driver's, errors of earlier launches among them.
    pub fn download(&self, buffer: &CudaSlice<u8>) -> Result<Vec<u8>, Diagnostic> {
        let bytes = self.stream.clone_dtoh(buffer).map_err(|e| failed("copying from the device", &e))?;
        self.stream.synchronize().map_err(|e| failed("waiting", &e))?;
        Ok(bytes)
    }

    /// Launches `blocks` blocks; nothing where there are none.
    ///
    /// # Errors
    /// Too many blocks, the driver's.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in order, and large enough for what it reads and writes; buffers that it
    /// writes are not used by anybody else.
    pub unsafe fn launch(&self, kernel: &LoadedKernel, blocks: u64, arguments: &[Argument]) -> Result<(), Diagnostic> {
        if blocks == 0 {
            return Ok(());
        }
        let grid = u32::try_from(blocks).ok().filter(|n| *n <= i32::MAX.unsigned_abs());
        let grid =
            grid.ok_or_else(|| Diagnostic::new("cuda-failed", format!("expected under 2^31 blocks, found {blocks}")))?;
        let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (kernel.threads, 1, 1), shared_mem_bytes: 0 };
        let mut builder = self.stream.launch_builder(&kernel.function);
        for a in arguments {
            match a {
                Argument::Buffer(b) => builder.arg(*b),
                Argument::Symbol(n) => builder.arg(n),
            };
        }
        // SAFETY: promised by the caller.
        unsafe { builder.launch(config) }.map(|_| ()).map_err(|e| failed("launching", &e))
    }

    /// Waits for everything that was launched.
    ///
    /// # Errors
    /// The driver's.
    pub fn synchronize(&self) -> Result<(), Diagnostic> {
        self.stream.synchronize().map_err(|e| failed("waiting", &e))
    }
}

fn failed(what: &str, e: &cudarc::driver::DriverError) -> Diagnostic {
    Diagnostic::new("cuda-failed", format!("{what} failed: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        assert_eq!(Cuda::open(4096).map(|_| ()).map_err(|d| d.code), Err("cuda-missing"));
    }
}
