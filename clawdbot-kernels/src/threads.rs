//! The pool of one runtime: a *region* wakes the workers once, and the leader hands them job after job.
//!
//! A forward pass runs inside one region. The leader (the calling thread) executes the pass sequentially and calls
//! [`Region::parallel`] for each step that is worth splitting. Every thread has a contiguous share of the tasks and
//! takes them in ascending order, so that it reads neighbouring data as one long stream. A thread that is done takes tasks
//! from the end of another's share, so a thread that the system has descheduled delays the job by no more than its one task.
//! Workers spin briefly for the next job, then sleep: an idle pool uses no CPU. The leader is a thread of the host, which
//! may itself use `park` and `unpark`, so it sleeps on a condition variable of the pool.
//!
//! A [`Region`] is not `Sync`, but the closures that tasks run are, so a task cannot hold its own region: a job that begins
//! inside a job does not compile. Tasks may hold [`Region::stop`].
//!
//! Threads do not survive a fork. In the child, [`ThreadPool::region`] fails with `Forked`, and dropping the pool does not
//! wait for threads that do not exist.
#![allow(unsafe_code, reason = "handing borrowed closures to other threads is this module's purpose")]

mod shares;
mod sync;

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

pub(crate) use self::shares::share;
use self::shares::{End, Share};
use self::sync::{
    Arc, AtomicBool, AtomicU64, Builder, Cell, Condvar, JoinHandle, Mutex, MutexGuard, Spin, fence, park,
};
use crate::error::{Error, Result};
use crate::memory::{AlignedBuf, Pod};
use crate::numa::Placement;

/// `state`: generation in the high half, OPEN bit, number of workers inside the job in the low bits.
const OPEN: u64 = 1 << 31;
const COUNT: u64 = OPEN - 1;
const GENERATION: u64 = 1 << 32;

type Job = *const (dyn Fn(usize) + Sync);

/// Worker threads and the rules for using them. One per runtime.
pub struct ThreadPool {
    threads: usize,
    placement: Option<Placement>,
    pid: u32,
    /// Started at the first region; held while a region is open.
    workers: Mutex<Option<Workers>>,
}

struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    state: AtomicU64,
    job: Cell<Option<Job>>,
    /// For each thread, the leader first: its tasks that nobody has taken.
    shares: Vec<Share>,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    shutdown: AtomicBool,
    asleep: Vec<AtomicBool>,
    /// Whether the leader waits for `empty`.
    leader_asleep: AtomicBool,
    /// The last worker has left the job.
    empty: (Mutex<()>, Condvar),
}

// SAFETY: all fields but `job` are `Sync`. `job` is written by the leader only while the job is closed and no worker is inside
// (`parallel`), and read by workers only after they entered the open job, with acquire on `state` (`wait_for_job`).
unsafe impl Sync for Shared {}
// SAFETY: all fields but `job` are `Send`, and the pointer in `job` is used only as `Sync` above says, on any thread: the
// closure it points to is `Sync`.
unsafe impl Send for Shared {}

impl ThreadPool {
    /// A pool that computes on `threads` threads, the caller's included. No thread is started yet.
    pub fn new(threads: usize) -> Self {
        ThreadPool {
            threads: threads.max(1),
            placement: None,
            pid: std::process::id(),
            workers: Mutex::new(None),
        }
    }

    /// As [`new`](Self::new), with threads and weights where `placement` says. While a region is open, the calling thread runs
    /// on the CPUs of the first seat; then it may run again where it did before.
    ///
    /// # Errors
    /// `InvalidArgument` for seats of another number of threads; `Placement` when the system refuses.
    pub fn placed(threads: usize, placement: Placement) -> Result<Self> {
        let mut pool = ThreadPool::new(threads);
        if let Placement::Local(seats) = &placement
            && seats.len() != pool.threads
        {
            let (expected, found) = (pool.threads, seats.len());
            return Err(Error::InvalidArgument(format!(
                "expected seats of {expected} threads, found {found}"
            )));
        }
        placement.probe()?;
        pool.placement = Some(placement);
        Ok(pool)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether this process is a fork of the one that made the pool.
    ///
    /// # Errors
    /// `Forked`.
    pub fn check_fork(&self) -> Result<()> {
        if std::process::id() == self.pid {
            return Ok(());
        }
        Err(Error::Forked { pool_pid: self.pid, pid: std::process::id() })
    }

    /// Runs `f` with the workers awake. One region at a time: concurrent callers wait.
    ///
    /// # Errors
    /// `Forked` in a forked child, `Thread` when the system cannot start a thread.
    pub fn region<R>(&self, f: impl FnOnce(&Region<'_>) -> R) -> Result<R> {
        self.open(None, f)
    }

    /// As [`ThreadPool::region`], but once `stop` has returned true, no further task begins: see [`Stop`].
    ///
    /// # Errors
    /// As [`ThreadPool::region`].
    pub fn region_until<R>(
        &self,
        stop: &(dyn Fn() -> bool + Sync),
        f: impl FnOnce(&Region<'_>) -> R,
    ) -> Result<R> {
        self.open(Some(&Asked { ask: stop, yes: AtomicBool::new(false) }), f)
    }

    fn open<R>(&self, asked: Option<&Asked<'_>>, f: impl FnOnce(&Region<'_>) -> R) -> Result<R> {
        self.check_fork()?;
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let placement = self.placement.as_ref();
        if workers.is_none() {
            *workers = Some(Workers::start(self.threads - 1, placement)?);
        }
        let _seated = placement.and_then(|placement| placement.seat(0));
        Ok(f(&Region {
            threads: self.threads,
            placement,
            workers: Some(workers),
            stop: Stop(asked),
            #[cfg(feature = "bench-support")]
            steps: None,
            not_sync: PhantomData,
        }))
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let workers = self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Workers { shared, handles }) = workers else { return };
        if std::process::id() != self.pid {
            std::mem::forget(handles);
            return;
        }
        shared.shutdown.store(true, Ordering::Release);
        for handle in handles {
            handle.thread().unpark();
            // A worker catches panics of jobs, so joining cannot fail.
            let _ = handle.join();
        }
    }
}

impl Workers {
    fn start(count: usize, placement: Option<&Placement>) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Cell::new(None),
            shares: (0..=count).map(|_| Share::empty()).collect(),
            panic: Mutex::new(None),
            shutdown: AtomicBool::new(false),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            leader_asleep: AtomicBool::new(false),
            empty: (Mutex::new(()), Condvar::new()),
        });
        let mut workers = Workers { shared, handles: Vec::with_capacity(count) };
        for index in 0..count {
            let shared = Arc::clone(&workers.shared);
            let builder = Builder::new().name(format!("clawdbot-{}", index + 1));
            // A thread begins with the CPUs of the one that starts it.
            let _seated = placement.and_then(|placement| placement.seat(index + 1));
            match builder.spawn(move || worker(&shared, index)).map_err(Error::Thread) {
                Ok(handle) => workers.handles.push(handle),
                Err(error) => {
                    workers.shared.shutdown.store(true, Ordering::Release);
                    for handle in workers.handles {
                        handle.thread().unpark();
                        let _ = handle.join();
                    }
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    while let Some(generation) = wait_for_job(shared, index, seen) {
        seen = generation;
        // SAFETY: this thread entered the open job in `wait_for_job`; the leader keeps the closure alive and `job`
        // unchanged until the count of workers inside is zero again.
        let job = shared.job.with(|job| unsafe { *job });
        if let Some(function) = job {
            // SAFETY: this thread is still inside the job: `parallel` borrows the closure until it has seen that all have left.
            run_tasks(shared, index + 1, unsafe { &*function });
        }
        if shared.state.fetch_sub(1, Ordering::AcqRel) & COUNT != 1 {
            continue;
        }
        // With the fence of `wait_until_empty`: the leader sees the count, or this thread sees that the leader sleeps.
        fence(Ordering::SeqCst);
        if shared.leader_asleep.load(Ordering::Relaxed) {
            let (lock, empty) = &shared.empty;
            // With the lock, the leader has not looked yet or is asleep.
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
            empty.notify_one();
        }
    }
}

/// Waits until a job newer than `seen` is open, enters it and returns its generation. `None` at shutdown.
fn wait_for_job(shared: &Shared, index: usize, seen: u64) -> Option<u64> {
    let try_enter = || {
        let state = shared.state.load(Ordering::Acquire);
        let generation = state & !(GENERATION - 1);
        if state & OPEN == 0 || generation == seen {
            return None;
        }
        let entered = shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
        entered.is_ok().then_some(generation)
    };
    loop {
        let mut spin = Spin::new();
        loop {
            if let Some(generation) = try_enter() {
                return Some(generation);
            }
            if !spin.again() {
                break;
            }
        }
        shared.asleep[index].store(true, Ordering::Relaxed);
        // With the fence of `Region::parallel`: this thread sees the open job, or the leader sees the flag and unparks.
        fence(Ordering::SeqCst);
        loop {
            if shared.shutdown.load(Ordering::Acquire) {
                return None;
            }
            let state = shared.state.load(Ordering::Relaxed);
            if state & OPEN != 0 && state & !(GENERATION - 1) != seen {
                break;
            }
            park();
        }
        shared.asleep[index].store(false, Ordering::Relaxed);
    }
}

/// Runs tasks as thread `thread` (0 is the leader) until none is left to take.
fn run_tasks(shared: &Shared, thread: usize, function: &(dyn Fn(usize) + Sync)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while let Some(task) = shared.shares[thread].take(End::First) {
            function(task);
        }
        let (before, after) = shared.shares.split_at(thread);
        for share in after[1..].iter().chain(before) {
            while let Some(task) = share.take(End::Last) {
                function(task);
            }
        }
    }));
    if let Err(panic) = outcome {
        // The other tasks are pointless now.
        shared.shares.iter().for_each(|share| share.set(0..0));
        *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

/// Whether a region is to stop early. Tasks that have not begun are then skipped, and what they would have written stays as it
/// was, so the results of the region must not be used. Once set, it stays set.
#[derive(Clone, Copy)]
pub struct Stop<'a>(Option<&'a Asked<'a>>);

struct Asked<'a> {
    ask: &'a (dyn Fn() -> bool + Sync),
    yes: AtomicBool,
}

impl Stop<'_> {
    /// Of a region that never stops early.
    #[cfg(test)]
    pub const NEVER: Stop<'static> = Stop(None);

    /// Whether to stop. The leader, or a task that loops over steps, asks between steps.
    pub fn is_set(self) -> bool {
        let Some(Asked { ask, yes }) = self.0 else { return false };
        if !yes.load(Ordering::Relaxed) && !ask() {
            return false;
        }
        yes.store(true, Ordering::Relaxed);
        true
    }
}

/// The steps of a simulated region that have more than one task: how many, and how long all of them took.
#[cfg(feature = "bench-support")]
pub type Steps = std::cell::RefCell<Vec<(usize, std::time::Duration)>>;

/// The leader's handle inside [`ThreadPool::region`].
pub struct Region<'p> {
    threads: usize,
    placement: Option<&'p Placement>,
    /// None inside a task.
    workers: Option<MutexGuard<'p, Option<Workers>>>,
    stop: Stop<'p>,
    #[cfg(feature = "bench-support")]
    steps: Option<&'p Steps>,
    /// With a shared reference, a task could begin a job inside a job.
    not_sync: PhantomData<*const ()>,
}

impl<'p> Region<'p> {
    /// The calling thread alone, for use inside a task of another region, whose `stop` it takes.
    pub fn alone(stop: Stop<'p>) -> Region<'p> {
        Region {
            threads: 1,
            placement: None,
            workers: None,
            stop,
            #[cfg(feature = "bench-support")]
            steps: None,
            not_sync: PhantomData,
        }
    }

    /// The calling thread alone, which does what `threads` threads would, and notes it.
    #[cfg(feature = "bench-support")]
    pub fn simulated(threads: usize, steps: &'p Steps) -> Region<'p> {
        Region { threads, steps: Some(steps), ..Region::alone(Stop(None)) }
    }

    /// What stops it early.
    pub fn stop(&self) -> Stop<'p> {
        self.stop
    }

    /// Number of threads that may take tasks, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Zeros for an array of a matrix, `[columns, ...]`. Where the pool says so, its pages will be on the node of the thread
    /// that takes those columns, or alternate between nodes.
    ///
    /// # Errors
    /// `OutOfMemory` without memory; `Placement` when the system refuses.
    pub fn zeroed<T: Pod>(&self, len: usize) -> Result<AlignedBuf<T>> {
        let mut buffer = AlignedBuf::zeroed(len)?;
        if let Some(placement) = self.placement {
            placement.place(&mut buffer)?;
        }
        Ok(buffer)
    }

    /// Calls `f(0)`, ..., `f(tasks - 1)`, each once, on any of the threads, and returns when all are done. Neighbouring
    /// tasks run on the same thread one after another, in ascending order, as far as that keeps all threads busy. After
    /// [`Stop`], tasks are left out.
    ///
    /// # Panics
    /// With the panic of a task, after all threads have left the job.
    pub fn parallel(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        let stop = self.stop;
        let f = |task| {
            if !stop.is_set() {
                f(task);
            }
        };
        #[cfg(feature = "bench-support")]
        if let Some(steps) = self.steps.filter(|_| tasks > 1) {
            let start = std::time::Instant::now();
            (0..tasks).for_each(f);
            return steps.borrow_mut().push((tasks, start.elapsed()));
        }
        let workers = self.workers.as_deref().and_then(Option::as_ref);
        let (shared, count) = match (workers, u32::try_from(tasks)) {
            (Some(Workers { shared, handles }), Ok(count)) if tasks > 1 && !handles.is_empty() => {
                (shared, count)
            }
            _ => return (0..tasks).for_each(f),
        };
        let function: &(dyn Fn(usize) + Sync) = &f;
        // SAFETY: only the lifetime is erased; `wait_until_empty` below returns only after every worker has left the job, and
        // nothing before it unwinds: `run_tasks` catches panics.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(function) };
        // SAFETY: the job is closed and nobody is inside, so nobody reads the cell: the previous call left it so and has
        // returned, because no task can hold this region (`Region` is not `Sync`) and there is one region at a time (`open`
        // holds the lock).
        shared.job.with_mut(|cell| unsafe { *cell = Some(job) });
        let threads = shared.shares.len() as u64;
        for (thread, own) in (0..).zip(&shared.shares) {
            own.set(share(count, thread, threads));
        }
        let state = shared.state.load(Ordering::Relaxed);
        let open = (state & !(GENERATION - 1)).wrapping_add(GENERATION) | OPEN;
        // Publishes the job and the shares to whoever enters.
        shared.state.store(open, Ordering::Release);
        fence(Ordering::SeqCst);
        if let Some(Workers { handles, .. }) = workers {
            for (handle, asleep) in handles.iter().zip(&shared.asleep) {
                if asleep.load(Ordering::Relaxed) {
                    handle.thread().unpark();
                }
            }
        }
        run_tasks(shared, 0, function);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        wait_until_empty(shared);
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and calls `f(index, chunk)` in parallel.
    pub fn parallel_chunks_mut<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        struct Base<T>(*mut T);
        // SAFETY: tasks touch disjoint chunks, see below; `T: Send` may be sent to the threads that write them.
        unsafe impl<T: Send> Sync for Base<T> {}
        let (len, chunk) = (data.len(), chunk.max(1));
        let base = Base(data.as_mut_ptr());
        let base = &base;
        self.parallel(len.div_ceil(chunk), |index| {
            let start = index * chunk;
            let first = base.0.wrapping_add(start);
            // SAFETY: `start < len`, because `index < len.div_ceil(chunk)`; each index is handed out once, so the chunks are
            // disjoint; `data` is borrowed exclusively until `parallel` returns.
            let slice = unsafe { std::slice::from_raw_parts_mut(first, chunk.min(len - start)) };
            f(index, slice);
        });
    }
}

/// Waits until no worker is inside the closed job: spins, then sleeps until the last one leaves.
fn wait_until_empty(shared: &Shared) {
    let empty = || shared.state.load(Ordering::Acquire) & COUNT == 0;
    let mut spin = Spin::new();
    loop {
        if empty() {
            return;
        }
        if !spin.again() {
            break;
        }
    }
    shared.leader_asleep.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let (lock, condition) = &shared.empty;
    let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    while !empty() {
        guard = condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    drop(guard);
    shared.leader_asleep.store(false, Ordering::Relaxed);
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
