//! Memory and launches of one NVIDIA device through the driver.

use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;
use tilewright_codegen::cuda::CudaKernel;
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
    /// Bytes of shared memory that its launches allocate.
    dynamic: u32,
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
    /// `no-cuda-driver` where the driver's library is absent or does not start, `no-device` where it has no such device.
    pub fn open(ordinal: usize) -> Result<Cuda, Diagnostic> {
        let missing = |code, why: String| Diagnostic::new(code, format!("expected CUDA device {ordinal}, found {why}"));
        // SAFETY: only looks whether the driver's library loads; without it every driver call would panic.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(missing("no-cuda-driver", "no driver".into()));
        }
        let count = CudaContext::device_count();
        let count = count.map_err(|e| missing("no-cuda-driver", format!("no usable driver: {e}")))?;
        if !usize::try_from(count).is_ok_and(|n| ordinal < n) {
            return Err(missing("no-device", format!("{count} devices")));
        }
        let context = CudaContext::new(ordinal).map_err(|e| missing("no-device", format!("an error: {e}")))?;
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

    /// Loads kernels of one cubin, in their order.
    ///
    /// # Errors
    /// The driver's.
    pub fn load<'k>(
        &self,
        cubin: &[u8],
        kernels: impl Iterator<Item = &'k CudaKernel>,
    ) -> Result<Vec<LoadedKernel>, Diagnostic> {
        let module = self.context.load_module(Ptx::from_binary(cubin.to_vec())).map_err(|e| failed("loading", &e))?;
        let load = |k: &CudaKernel| {
            let size = |n: i64| u32::try_from(n).map_err(|_| Diagnostic::bug("a block of a negative size"));
            let (threads, dynamic) = (size(k.threads)?, size(k.dynamic_bytes)?);
            if k.name.contains('\0') {
                return Err(Diagnostic::bug("a kernel's name has a zero byte"));
            }
            let function = module.load_function(&k.name).map_err(|e| failed("finding the kernel", &e))?;
            if dynamic > 0 {
                let bytes = i32::try_from(dynamic).unwrap_or(i32::MAX);
                let set = function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
                set.map_err(|e| failed("allowing shared memory", &e))?;
            }
            Ok(LoadedKernel { function, threads, dynamic })
        };
        kernels.map(load).collect()
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

    /// A copy of a buffer.
    ///
    /// # Errors
    /// The driver's.
    pub fn duplicate(&self, buffer: &CudaSlice<u8>) -> Result<CudaSlice<u8>, Diagnostic> {
        self.stream.clone_dtod(buffer).map_err(|e| failed("copying on the device", &e))
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
        let config = LaunchConfig {
            grid_dim: (grid, 1, 1),
            block_dim: (kernel.threads, 1, 1),
            shared_mem_bytes: kernel.dynamic,
        };
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
        let code = Cuda::open(4096).map(|_| ()).map_err(|d| d.code);
        assert!(matches!(code, Err("no-cuda-driver" | "no-device")), "{code:?}");
    }
}
