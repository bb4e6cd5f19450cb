//! CPU code: micro-kernels and the Cranelift emitter.
