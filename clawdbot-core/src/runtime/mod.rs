//! What computing needs and models share: threads, the memory budget, the kernels chosen, the log hook.

mod budget;
mod cpus;
mod driver;
mod holders;
mod machine;
mod own_thread;
#[cfg(feature = "candle")]
mod rows;
mod swap;
mod topology;
mod turns;
mod worker;

use std::fmt;
use std::sync::{Arc, Weak};
#[cfg(feature = "candle")]
use std::sync::{Mutex, PoisonError};

pub(crate) use budget::{Budget, Reservation};
pub use cpus::Cpus;
pub(crate) use driver::{Driven, DriverThread};
pub(crate) use holders::Holder;
#[cfg(feature = "candle")]
pub(crate) use rows::{RowSizes, SharedRows};
#[cfg(test)]
pub(crate) use swap::Faults;
pub(crate) use swap::{Extent, ExtentReader, SwapSpace};
pub(crate) use turns::Next;

use clawdbot_kernels::KernelSet;
use clawdbot_kernels::threads::ThreadPool;

use crate::cancel::{Sleeper, Ticket};
use crate::error::{Error, Result};
use crate::metrics::{BOUNDS, Meter, Meters, Metrics};
use crate::options::{Driver, Numa, RuntimeOptions};

/// Bytes read over and over to measure the memory: more than any cache holds. Fewer where the budget has no more, but not
/// so few that a cache would be measured.
const LIMITS_BUFFER: u64 = 2 << 30;
const SMALLEST_LIMITS_BUFFER: u64 = 256 << 20;

/// How much a log record matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something that was asked for is not quite what happens.
    Warning = 1,
    /// What was chosen: kernels, threads, sizes.
    Info = 2,
}

/// One message to the log hook.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogRecord {
    /// How much it matters.
    pub level: LogLevel,
    /// The text, one line.
    pub message: String,
}

/// What a machine can do at most: the roofs that rates are compared with.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes read from memory, in 10^9 per second, on average over 0.3 seconds.
    pub dram_gb_per_s: f64,
    /// int8 multiplications and additions, in 10^9 per second.
    pub int8_gop_per_s: f64,
    /// f32 multiplications and additions, in 10^9 per second.
    pub f32_gflop_per_s: f64,
}

/// A tier of kernels that this CPU has, but that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RefusedKernels {
    /// The tier.
    pub name: &'static str,
    /// What it computed wrongly in its self-test, or that the system does not permit it.
    pub reason: &'static str,
}

type LogHook = dyn Fn(&LogRecord) + Send + Sync;

/// Threads, memory budget and log hook. Cheap to clone; models keep theirs alive.
///
/// Worker threads start at the first computation. After a `fork`, the child must make its own runtime: everything
/// that needs this one answers `ForkedRuntime` there.
///
/// On Linux with AMX, the first load of a model (not making a runtime, and not with `kernels` of another name) asks the
/// system for the tile registers. That is for the whole process and for good: from then on, threads that handle signals on
/// alternate stacks need larger ones (`getauxval(AT_MINSIGSTKSZ)` says how large), and where one is too small already, the
/// system refuses, and tiles are not used.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    pool: ThreadPool,
    numa: Numa,
    budget: Budget,
    kernels: &'static KernelSet,
    on_log: Option<Box<LogHook>>,
    meters: Meters,
    swap: Option<SwapSpace>,
    /// With `driver` thread
    driver: Option<DriverThread>,
    /// Of the layers that there are.
    #[cfg(feature = "candle")]
    rows: Mutex<Weak<Mutex<SharedRows>>>,
}

impl Runtime {
    /// A runtime with these options.
    ///
    /// # Errors
    /// `Io` or `NotFound` if no file can be made in `swap_directory`; `InvalidArgument` for options out of range, for a value of `numa` that this machine cannot do, and when `CLAWDBOT_ISA`
    /// names a tier that this CPU does not have or that failed its self-test.
    pub fn new(options: &RuntimeOptions) -> Result<Self> {
        Self::build(options, None)
    }

    /// A runtime that reports to `on_log`. The hook may be called from any thread that uses the runtime.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_log(
        options: &RuntimeOptions,
        on_log: impl Fn(&LogRecord) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::build(options, Some(Box::new(on_log)))
    }

    fn build(options: &RuntimeOptions, on_log: Option<Box<LogHook>>) -> Result<Self> {
        options.validate()?;
        let kernels = clawdbot_kernels::select(options.kernels.as_deref()).map_err(|error| {
            let error = Error::from(error);
            if options.kernels.is_some() { error.with("option", "kernels") } else { error }
        })?;
        let threads = options.threads.map_or_else(|| Cpus::detect().threads(), |n| n as usize);
        let placement = topology::placement(options.numa, threads)?;
        let placed = placement.as_ref().map(topology::describe);
        let pool = match placement {
            Some(placement) => topology::pool(options.numa, threads, placement)?,
            None => ThreadPool::new(threads),
        };
        let swap = match options.swap_space {
            0 => None,
            bytes => {
                let dir = options.swap_directory.clone().unwrap_or_else(std::env::temp_dir);
                Some(SwapSpace::new(&dir, bytes)?)
            }
        };
        let runtime = Runtime(Arc::new(Inner {
            pool,
            swap,
            numa: options.numa,
            budget: Budget::with_memory(options.memory_budget, machine::memory(), machine::reserved(threads)),
            kernels,
            on_log,
            meters: Meters::new(),
            driver: (options.driver == Driver::Thread).then(DriverThread::new),
            #[cfg(feature = "candle")]
            rows: Mutex::default(),
        }));
        for RefusedKernels { name, reason } in Self::refused_kernels() {
            runtime.log(LogLevel::Warning, || {
                format!("kernels {name} are switched off: their self-test failed: {reason}")
            });
        }
        runtime.log(LogLevel::Info, || format!("{threads} threads, kernels {}", kernels.name));
        if let Some(placed) = placed {
            runtime.log(LogLevel::Info, || format!("numa {}: {placed}", options.numa));
        }
        Ok(runtime)
    }

    /// Number of threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.0.pool.threads()
    }

    /// Where threads run and weights lie, as the option `numa` says.
    pub fn numa(&self) -> Numa {
        self.0.numa
    }

    /// What its models have done since they were loaded, and what they do now. Waits for no pass: of a model that computes one, it
    /// says how things were when that began.
    pub fn metrics(&self) -> Metrics {
        // In the child of a fork, somebody may hold a lock for ever.
        let here = self.0.pool.check_fork().is_ok();
        if here {
            self.budget().holders().report();
        }
        Metrics {
            memory_used: self.memory_used(),
            memory_budget: self.memory_budget(),
            swap_used: self.0.swap.as_ref().filter(|_| here).map_or(0, SwapSpace::used),
            histogram_bounds: BOUNDS,
            models: if here { self.0.meters.read() } else { Vec::new() },
        }
    }

    /// Where pages go that memory has no room for.
    pub(crate) fn swap(&self) -> Option<&SwapSpace> {
        self.0.swap.as_ref()
    }

    /// Where a model of that name counts.
    pub(crate) fn meter(&self, model: &str) -> Meter {
        self.0.meters.add(model)
    }

    /// Who computes, as the option `driver` says.
    pub fn driver(&self) -> Driver {
        if self.0.driver.is_some() { Driver::Thread } else { Driver::Caller }
    }

    /// Lets the driver thread, if there is one, work for `driven` as long as that has owners, with a share of its time.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread.
    pub(crate) fn drive(&self, driven: Weak<dyn Driven>, share: u32) -> Result<()> {
        self.0.driver.as_ref().map_or(Ok(()), |driver| driver.add(driven, share))
    }

    /// Tells the driver thread, if there is one, that there may be work.
    pub(crate) fn wake_driver(&self) {
        self.0.driver.iter().for_each(DriverThread::wake);
    }

    /// The driver thread, if there is one, for those that have work for it.
    pub(crate) fn sleeper(&self) -> Option<Arc<dyn Sleeper>> {
        self.0.driver.as_ref().map(DriverThread::sleeper)
    }

    /// Lets whoever stops the job of `ticket` wake the driver thread, if there is one.
    pub(crate) fn wake_when_cancelled(&self, ticket: &Ticket) {
        self.0.driver.iter().for_each(|driver| ticket.wakes(&driver.sleeper()));
    }

    /// The instruction-set tier in use, such as `x86_64-avx512-vnni`.
    pub fn kernels(&self) -> &'static str {
        self.0.kernels.name
    }

    /// The tiers that this CPU can run, best first, all with equal bits; the option `kernels` or `CLAWDBOT_ISA` chooses one
    /// by name.
    pub fn available_kernels() -> Vec<&'static str> {
        clawdbot_kernels::available().iter().map(|set| set.name).collect()
    }

    /// Further tiers of this CPU, which compute with bf16 weights in numerics of their own: activations are rounded to
    /// bf16, and sums are those of the tier's instruction (`docs/numerics.md`). They are taken only when the option
    /// `kernels` or `CLAWDBOT_ISA` names one.
    pub fn named_kernels() -> Vec<&'static str> {
        clawdbot_kernels::named()
    }

    /// The tiers that this CPU has, but that failed the self-test which some go through before their first use: that of
    /// `avx512-amx` is when a model is first loaded.
    pub fn refused_kernels() -> Vec<RefusedKernels> {
        clawdbot_kernels::refused()
            .map(|clawdbot_kernels::RefusedSet { name, reason }| RefusedKernels { name, reason })
            .collect()
    }

    /// Names of the kernels that do most of the work, as architecture, types and tile.
    pub fn kernel_names(&self) -> [&'static str; 2] {
        [self.0.kernels.int8_gemm_name, self.0.kernels.float_gemm_name]
    }

    /// Measures what this machine can do at most with these threads and kernels. Takes about a second.
    ///
    /// # Errors
    /// `OutOfBudget` without memory for the buffers, `ForkedRuntime`, `Io` when a thread cannot be started.
    pub fn measure_limits(&self) -> Result<Limits> {
        let kernels = self.0.kernels;
        let bytes = self.budget().left().clamp(SMALLEST_LIMITS_BUFFER, LIMITS_BUFFER);
        let _reservation = self.budget().reserve_growing(bytes, "the buffer of the measurement")?;
        self.0.pool.region(|region| {
            Ok(Limits {
                dram_gb_per_s: kernels.dram_gb_per_s(region, bytes as usize)?,
                int8_gop_per_s: kernels.int8_gop_per_s(region),
                f32_gflop_per_s: kernels.f32_gflop_per_s(region),
            })
        })?
    }

    /// Bytes that models of this runtime hold now.
    pub fn memory_used(&self) -> u64 {
        self.0.budget.used()
    }

    /// The memory budget in bytes, if there is one.
    pub fn memory_budget(&self) -> Option<u64> {
        self.0.budget.limit()
    }

    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.0.pool
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// To be called before a model is loaded: what is asked at the first use of kernels is asked now, and the log told.
    pub(crate) fn prove_kernels(&self) {
        let kernels = self.0.kernels;
        if let Some(reason) = (kernels.refusal)() {
            self.log(LogLevel::Warning, || {
                format!("kernels {}: tiles are switched off: {reason}", kernels.name)
            });
        }
    }

    pub(crate) fn kernel_set(&self) -> &'static KernelSet {
        self.0.kernels
    }

    /// What layers that are not part of a model quantize to, one at a time.
    #[cfg(feature = "candle")]
    pub(crate) fn shared_rows(&self) -> Arc<Mutex<SharedRows>> {
        let mut rows = self.0.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *rows = Arc::downgrade(&new);
            new
        })
    }

    pub(crate) fn log(&self, level: LogLevel, message: impl FnOnce() -> String) {
        if let Some(hook) = &self.0.on_log {
            hook(&LogRecord { level, message: message() });
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("threads", &self.threads())
            .field("kernels", &self.kernels())
            .field("memory_budget", &self.memory_budget())
            .field("memory_used", &self.memory_used())
            .finish_non_exhaustive()
    }
}
