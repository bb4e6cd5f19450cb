//! Runtime: devices, memory plan, launch plan, threads.
