//! A fixed pool of threads. Items are split into one share a thread, each taken in a few chunks; who is done helps with
//! the chunks that nobody has taken yet, so a thread that the system does not let run costs nothing. An item is computed
//! whole by one thread, so neither the number of threads nor who computes what changes a result.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Items for the threads: `job(thread, range)` for disjoint ranges that cover `0..items`.
#[derive(Clone, Copy)]
struct Task {
    items: usize,
    threads: usize,
    chunk: usize,
    job: &'static (dyn Fn(usize, Range<usize>) + Sync),
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    /// Counts tasks; workers spin on it for a moment before they sleep, since launches follow each other closely.
    epoch: AtomicUsize,
    /// Workers that hold the task.
    inside: AtomicUsize,
    /// Per share of the task, the items that are taken.
    taken: Vec<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// What there is to do; none once the caller has found no more chunks.
    task: Option<Task>,
    epoch: usize,
    sleeping: usize,
    caller_waits: bool,
    stop: bool,
}

/// A pool of `n` threads, the caller's included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

/// How often a waiting thread looks before it sleeps; about 20 microseconds.
const SPINS: usize = 4_000;
/// Chunks of a thread's share.
const CHUNKS: usize = 4;

impl Pool {
    /// A pool of `threads` threads, at least one. Threads that the system refuses are left out.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            done: Condvar::new(),
            epoch: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            taken: (0..threads.max(1)).map(|_| AtomicUsize::new(0)).collect(),
        });
        let spawn = |number: usize| {
            let shared = shared.clone();
            let name = format!("tilewright-{number}");
            std::thread::Builder::new().name(name).spawn(move || serve(&shared, number)).ok()
        };
        let workers = (1..threads.max(1)).map_while(spawn).collect();
        Pool { shared, workers, running: Mutex::new(()) }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(thread, range)` for ranges that cover `0..items` once, and returns when all are done. At any time each
    /// thread number is in at most one call. Calls from several threads wait for each other.
    pub fn run(&self, items: usize, job: &(dyn Fn(usize, Range<usize>) + Sync)) {
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.workers.is_empty() || items <= 1 {
            if items > 0 {
                job(0, 0..items);
            }
            return;
        }
        // SAFETY: `Open` is dropped before this function ends, by a panic too; it takes the task back and waits until no
        // worker holds it, so the borrow outlives every use.
        let job: &'static (dyn Fn(usize, Range<usize>) + Sync) = unsafe { std::mem::transmute(job) };
        let threads = self.threads();
        let task = Task { items, threads, chunk: items.div_ceil(threads * CHUNKS), job };
        // Nobody is inside, so nobody reads these now.
        self.shared.taken.iter().for_each(|t| t.store(0, Ordering::Relaxed));
        let open = self.shared.open(task);
        self.shared.work(task, 0);
        drop(open);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, task: Task) -> Open<'_> {
        let mut state = self.lock();
        state.task = Some(task);
        state.epoch += 1;
        self.epoch.store(state.epoch, Ordering::Release);
        let sleeping = state.sleeping;
        drop(state);
        if sleeping > 0 {
            self.wake.notify_all();
        }
        Open { shared: self }
    }

    /// Takes chunks until there are none: first of the own share, then of the others'.
    fn work(&self, task: Task, thread: usize) {
        for owner in (0..task.threads).map(|k| (thread + k) % task.threads) {
            let share = share(task.items, owner, task.threads);
            loop {
                let start = share.start + self.taken[owner].fetch_add(task.chunk, Ordering::Relaxed);
                if start >= share.end {
                    break;
                }
                (task.job)(thread, start..share.end.min(start + task.chunk));
            }
        }
    }
}

/// A task that workers may take; dropping it waits for those that did.
struct Open<'s> {
    shared: &'s Shared,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        shared.lock().task = None;
        for _ in 0..SPINS {
            if shared.inside.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut state = shared.lock();
        state.caller_waits = true;
        while shared.inside.load(Ordering::Acquire) != 0 {
            state = shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.caller_waits = false;
    }
}

/// A worker that holds the task.
struct Inside<'s> {
    shared: &'s Shared,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.shared.inside.fetch_sub(1, Ordering::AcqRel) == 1 && self.shared.lock().caller_waits {
            self.shared.done.notify_all();
        }
    }
}

fn serve(shared: &Shared, number: usize) {
    let mut seen = 0;
    loop {
        for _ in 0..SPINS {
            if shared.epoch.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut state = shared.lock();
        while state.epoch == seen && !state.stop {
            state.sleeping += 1;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
        if state.stop {
            return;
        }
        seen = state.epoch;
        if let Some(task) = state.task {
            // Under the lock: the caller takes the task back under it, and then counts who is inside.
            shared.inside.fetch_add(1, Ordering::AcqRel);
            drop(state);
            let inside = Inside { shared };
            shared.work(task, number);
            drop(inside);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        // A worker that spins sees the epoch, one that sleeps is woken.
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker only ends early if a job panicked; there is nothing left to save then.
            let _ = worker.join();
        }
    }
}

/// The items of `0..n` that thread `thread` of `threads` computes: contiguous, sizes differ by at most one.
fn share(n: usize, thread: usize, threads: usize) -> std::ops::Range<usize> {
    let (each, more) = (n / threads, n % threads);
    let start = thread * each + thread.min(more);
    start..start + each + usize::from(thread < more)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_item_is_computed_once_and_a_thread_is_in_one_call() {
        let pool = Pool::new(3);
        // Miri interprets: it sees each number of items once, and none of the large ones.
        let rounds = if cfg!(miri) { 40 } else { 2000 };
        for items in (0..40).chain([1000, 4097]).cycle().take(rounds) {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            let busy: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
            pool.run(items, &|thread, range| {
                assert_eq!(busy[thread].fetch_add(1, Ordering::SeqCst), 0);
                range.for_each(|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                busy[thread].fetch_sub(1, Ordering::SeqCst);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{items} items");
        }
    }

    #[test]
    fn a_thread_that_is_held_up_does_not_hold_up_the_others() {
        let pool = Pool::new(2);
        // Whoever takes item 0 waits until somebody has done the last item of the other share.
        let last = AtomicUsize::new(0);
        pool.run(16, &|_, range| {
            for item in range {
                if item == 0 {
                    while last.load(Ordering::Acquire) == 0 {
                        std::thread::yield_now();
                    }
                }
                if item == 15 {
                    last.store(1, Ordering::Release);
                }
            }
        });
        assert_eq!(last.load(Ordering::Acquire), 1);
    }

    #[test]
    fn calls_from_several_threads_wait_for_each_other() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(9, &|_, range| {
                            total.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 200 * 9);
    }
}
