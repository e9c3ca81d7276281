//! Energy of the processor, where the system tells it: the counters of RAPL in the powercap tree of Linux
//! (<https://docs.kernel.org/power/powercap/powercap.html>).
//!
//! The counters tell what whole processors take, whoever works on them. They are read while passes are computed, now and then, and
//! what they say is divided among the passes of that time by their seconds.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::ModelMetrics;

/// Where Linux has the tree.
pub(crate) const POWERCAP: &str = "/sys/class/powercap";
/// Time between two looks at the counters, which take some microseconds and are updated each millisecond.
const INTERVAL: Duration = Duration::from_millis(50);
/// Most zones: as many as the largest machines have.
const MAX_ZONES: usize = 256;
/// Longest number in a file.
const MAX_DIGITS: u64 = 64;

/// A counter of microjoules.
#[derive(Debug)]
struct Zone {
    file: File,
    /// The counter begins again at 0 after this.
    range: u64,
    last: u64,
}

impl Zone {
    fn read(file: &mut File) -> Option<u64> {
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(MAX_DIGITS).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn open(dir: &Path) -> Option<Self> {
        let mut file = File::open(dir.join("energy_uj")).ok()?;
        let last = Self::read(&mut file)?;
        let range = Self::read(&mut File::open(dir.join("max_energy_range_uj")).ok()?)?;
        Some(Zone { file, range, last })
    }

    /// Microjoules since the last time.
    fn more(&mut self) -> Option<u64> {
        let now = Self::read(&mut self.file)?;
        let more = match now.checked_sub(self.last) {
            Some(more) => more,
            // It has begun again.
            None => self.range.saturating_sub(self.last).saturating_add(now),
        };
        self.last = now;
        Some(more)
    }
}

/// The counters of all processors and their memories.
#[derive(Debug)]
struct Rapl(Vec<Zone>);

impl Rapl {
    /// `None` where there are none, or where they must not be read.
    fn open(root: &Path) -> Option<Self> {
        let mut zones = Vec::new();
        for entry in fs::read_dir(root).ok()?.take(MAX_ZONES) {
            let dir = entry.ok()?.path();
            let zone =
                dir.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("intel-rapl:"));
            let (Some(_), Ok(name)) = (zone, fs::read_to_string(dir.join("name"))) else { continue };
            // Cores and the like are part of their package; `psys` has packages as its parts. Memory is a zone apart.
            let name = name.trim();
            if name.starts_with("package-") || name == "dram" {
                // A part of the sum would be a wrong number.
                zones.push(Zone::open(&dir)?);
            }
        }
        (!zones.is_empty()).then_some(Rapl(zones))
    }

    /// Joules since the last time.
    fn more(&mut self) -> Option<f64> {
        self.0.iter_mut().map(Zone::more).sum::<Option<u64>>().map(|microjoules| microjoules as f64 / 1e6)
    }
}

/// Seconds of passes, or joules.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Parts {
    /// For prompts.
    pub(crate) prefill: f64,
    /// For tokens after the first.
    pub(crate) decode: f64,
}

/// The energy of a runtime's passes.
#[derive(Debug)]
pub(crate) struct Energy(Mutex<State>);

#[derive(Debug)]
struct State {
    /// None once it cannot be read any more.
    rapl: Option<Rapl>,
    /// When it was read last.
    read: Instant,
    /// Seconds of passes since then.
    passes: Vec<(Weak<Mutex<ModelMetrics>>, Parts)>,
}

impl Energy {
    /// `None` where it cannot be read.
    pub(crate) fn open(root: &Path) -> Option<Self> {
        let rapl = Rapl::open(root)?;
        Some(Energy(Mutex::new(State { rapl: Some(rapl), read: Instant::now(), passes: Vec::new() })))
    }

    /// A pass begins.
    pub(super) fn begin(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).look(now, INTERVAL);
    }

    /// A pass of a model has ended, which took so many seconds.
    pub(super) fn end(&self, model: &Arc<Mutex<ModelMetrics>>, seconds: Parts, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.passes.iter_mut().find(|(other, _)| other.as_ptr() == Arc::as_ptr(model)) {
            Some((_, parts)) => {
                parts.prefill += seconds.prefill;
                parts.decode += seconds.decode;
            }
            None => state.passes.push((Arc::downgrade(model), seconds)),
        }
        state.look(now, INTERVAL);
    }

    /// Counts what has not been counted. Returns whether it could be read all the time.
    pub(super) fn settle(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.look(now, Duration::ZERO);
        state.rapl.is_some()
    }
}

impl State {
    /// Divides what was taken since the last look among the passes since then, if that was at least `after` ago.
    fn look(&mut self, now: Instant, after: Duration) {
        let elapsed = now.saturating_duration_since(self.read);
        let Some(rapl) = self.rapl.as_mut().filter(|_| elapsed >= after) else { return };
        let more = rapl.more();
        self.read = now;
        let passes = std::mem::take(&mut self.passes);
        let Some(joules) = more else {
            self.rapl = None;
            return;
        };
        let busy: f64 = passes.iter().map(|(_, parts)| parts.prefill + parts.decode).sum();
        // Passes of several models may overlap.
        let seconds = elapsed.as_secs_f64().max(busy);
        if seconds <= 0.0 {
            return;
        }
        for (model, parts) in passes {
            let Some(model) = model.upgrade() else { continue };
            let mut metrics = model.lock().unwrap_or_else(PoisonError::into_inner);
            let add = |sum: &mut Option<f64>, part: f64| {
                *sum = Some(sum.unwrap_or(0.0) + joules * part / seconds);
            };
            add(&mut metrics.prefill_joules, parts.prefill);
            add(&mut metrics.decode_joules, parts.decode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Meters;
    use super::*;
    use crate::weights::testing::TempDir;

    fn zone(root: &Path, dir: &str, name: &str, energy: u64) {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("name"), format!("{name}\n")).unwrap();
        fs::write(dir.join("max_energy_range_uj"), "1000000000\n").unwrap();
        fs::write(dir.join("energy_uj"), format!("{energy}\n")).unwrap();
    }

    fn tree() -> TempDir {
        let root = TempDir::new();
        zone(root.path(), "intel-rapl:0", "package-0", 500);
        zone(root.path(), "intel-rapl:1", "package-1", 999_999_000);
        zone(root.path(), "intel-rapl:2", "psys", 7);
        zone(root.path(), "intel-rapl:0:0", "core", 7);
        zone(root.path(), "intel-rapl:0:1", "dram", 0);
        fs::create_dir(root.path().join("intel-rapl")).unwrap();
        root
    }

    fn set(root: &Path, dir: &str, energy: u64) {
        fs::write(root.join(dir).join("energy_uj"), energy.to_string()).unwrap();
    }

    #[test]
    fn packages_and_memory_are_added_and_counters_begin_again() {
        let root = tree();
        let mut rapl = Rapl::open(root.path()).unwrap();
        assert_eq!(rapl.more(), Some(0.0));
        set(root.path(), "intel-rapl:0", 1_000_500);
        set(root.path(), "intel-rapl:1", 1_999_000);
        set(root.path(), "intel-rapl:2", 900_000_000);
        set(root.path(), "intel-rapl:0:0", 900_000);
        set(root.path(), "intel-rapl:0:1", 500_000);
        assert_eq!(rapl.more(), Some(1.0 + 2.0 + 0.5));
        assert_eq!(rapl.more(), Some(0.0));
        set(root.path(), "intel-rapl:0", 0);
        fs::write(root.path().join("intel-rapl:1/energy_uj"), "nonsense").unwrap();
        assert_eq!(rapl.more(), None);
    }

    #[test]
    fn nothing_is_better_than_a_part() {
        assert!(Rapl::open(Path::new("/no/such/tree")).is_none());
        let root = tree();
        fs::remove_file(root.path().join("intel-rapl:1/energy_uj")).unwrap();
        assert!(Rapl::open(root.path()).is_none());
        let empty = TempDir::new();
        zone(empty.path(), "intel-rapl:0", "psys", 7);
        assert!(Rapl::open(empty.path()).is_none());
    }

    #[test]
    fn passes_get_their_parts() {
        let root = tree();
        let meters = Meters::with_energy(Energy::open(root.path()));
        let (a, b) = (meters.add("a"), meters.add("b"));
        let joules = || {
            let models = meters.read();
            [0, 1].map(|model| (models[model].prefill_joules.unwrap(), models[model].decode_joules.unwrap()))
        };
        assert_eq!(joules(), [(0.0, 0.0); 2]);
        let start = Instant::now() + Duration::from_secs(100);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        // What was taken before is nobody's.
        set(root.path(), "intel-rapl:0", 50_000_500);
        a.begin_pass(at(0.0));
        a.end_pass(Parts { prefill: 0.02, decode: 0.0 }, at(0.02));
        b.begin_pass(at(0.02));
        set(root.path(), "intel-rapl:0", 60_000_500);
        b.end_pass(Parts { prefill: 0.02, decode: 0.06 }, at(0.1));
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
        let [(a_prefill, a_decode), (b_prefill, b_decode)] = joules();
        assert!(near(a_prefill, 2.0) && a_decode == 0.0, "{a_prefill} {a_decode}");
        assert!(near(b_prefill, 2.0) && near(b_decode, 6.0), "{b_prefill} {b_decode}");
        // Of a time with pauses, a pass gets its part.
        set(root.path(), "intel-rapl:0", 60_000_500);
        a.begin_pass(at(1.0));
        a.end_pass(Parts { prefill: 0.0, decode: 0.01 }, at(1.01));
        set(root.path(), "intel-rapl:0", 62_000_500);
        b.begin_pass(at(1.1));
        let [(_, a_decode), (_, b_decode)] = joules();
        assert!(near(a_decode, 0.2) && near(b_decode, 6.0), "{a_decode} {b_decode}");
        // One that cannot be read any more is not counted on.
        fs::write(root.path().join("intel-rapl:0/energy_uj"), "").unwrap();
        a.begin_pass(at(2.0));
        a.end_pass(Parts { prefill: 1.0, decode: 0.0 }, at(3.0));
        assert!(
            meters.read().iter().all(|model| model.prefill_joules.is_none() && model.decode_joules.is_none())
        );
    }

    #[test]
    fn without_counters_there_are_no_joules() {
        let meters = Meters::with_energy(None);
        let meter = meters.add("a");
        meter.begin_pass(Instant::now());
        meter.end_pass(Parts { prefill: 1.0, decode: 1.0 }, Instant::now());
        assert_eq!((meters.read()[0].prefill_joules, meters.read()[0].decode_joules), (None, None));
    }
}
