//! A fixed pool of threads. Work is split statically, so the number of threads never changes a result: every grid item
//! is computed whole by one thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A job: called once by each thread with its number and the number of threads.
type Job = Arc<dyn Fn(usize, usize) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    /// Counts jobs; workers spin on it for a moment before they sleep, since launches follow each other closely.
    epoch: AtomicUsize,
    left: AtomicUsize,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    epoch: usize,
    stop: bool,
}

/// A pool of `n` threads, the caller's included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// How often a waiting thread looks before it sleeps; about 20 microseconds.
const SPINS: usize = 4_000;

impl Pool {
    /// A pool of `threads` threads, at least one. Threads that the system refuses are left out.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            done: Condvar::new(),
            epoch: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        });
        let mut workers: Vec<JoinHandle<()>> = Vec::new();
        let total = Arc::new(AtomicUsize::new(1));
        for number in 1..threads.max(1) {
            let (shared, total) = (shared.clone(), total.clone());
            let spawned = std::thread::Builder::new()
                .name(format!("tilewright-{number}"))
                .spawn(move || work(&shared, number, &total));
            match spawned {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        total.store(workers.len() + 1, Ordering::Release);
        Pool { shared, workers }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(thread, threads)` once on every thread and returns when all have.
    pub fn run(&self, job: &(dyn Fn(usize, usize) + Send + Sync)) {
        let threads = self.threads();
        if threads == 1 {
            job(0, 1);
            return;
        }
        // SAFETY: the workers drop their clone of the job before they count down `left`, and this function returns only
        // when `left` is 0, so the borrow outlives every use.
        let job: &'static (dyn Fn(usize, usize) + Send + Sync) = unsafe { std::mem::transmute(job) };
        let shared = &self.shared;
        shared.left.store(threads - 1, Ordering::Release);
        {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.job = Some(Arc::new(job));
            state.epoch += 1;
            shared.epoch.store(state.epoch, Ordering::Release);
        }
        shared.wake.notify_all();
        job(0, threads);
        for _ in 0..SPINS {
            if shared.left.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while shared.left.load(Ordering::Acquire) != 0 {
            state = shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(shared: &Shared, number: usize, total: &AtomicUsize) {
    let mut seen = 0;
    loop {
        for _ in 0..SPINS {
            if shared.epoch.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let job = {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.epoch == seen && !state.stop {
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            seen = state.epoch;
            state.job.clone()
        };
        if let Some(job) = job {
            job(number, total.load(Ordering::Acquire));
        }
        if shared.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The lock makes sure that the caller is either before its check or already waiting.
            drop(shared.state.lock().unwrap_or_else(PoisonError::into_inner));
            shared.done.notify_all();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker only ends early if a job panicked; there is nothing left to save then.
            let _ = worker.join();
        }
    }
}

/// The items of `0..n` that thread `thread` of `threads` computes: contiguous, sizes differ by at most one.
pub fn share(n: usize, thread: usize, threads: usize) -> std::ops::Range<usize> {
    let (each, more) = (n / threads, n % threads);
    let start = thread * each + thread.min(more);
    start..start + each + usize::from(thread < more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn shares_partition_the_items() {
        for n in [0, 1, 2, 7, 64] {
            for threads in 1..6 {
                let all: Vec<usize> = (0..threads).flat_map(|t| share(n, t, threads)).collect();
                assert_eq!(all, (0..n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn every_thread_runs_every_job_once() {
        let pool = Pool::new(3);
        let calls = AtomicU64::new(0);
        for _ in 0..1000 {
            pool.run(&|thread, _| {
                calls.fetch_add(1 << (16 * thread), Ordering::Relaxed);
            });
        }
        let calls = calls.load(Ordering::Relaxed);
        for thread in 0..pool.threads() {
            assert_eq!(calls >> (16 * thread) & 0xffff, 1000);
        }
    }
}
