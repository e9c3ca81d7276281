//! Loading a model of a pool: its turn, room for it, and what the others learn of it.

use std::ops::ControlFlow;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::evict::{Candidate, victims};
use super::{Entry, Instance, Place, Pool, PoolModel};
use crate::api::loaded::Loaded;
use crate::api::model::Model;
use crate::cancel::{CancelHandle, cancelled};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Budget;

/// How long memory that was given up may take to be free: the driver thread may look at it just now.
const FREED_WITHIN: Duration = Duration::from_secs(1);

/// When a call that came too late may try again: loads take about as long.
const RETRY_AFTER_MS: u64 = 1000;

/// The error of a call that waited `wait` for other loads.
pub(super) fn late(message: &str, wait: Duration) -> Error {
    let error = Error::new(ErrorKind::Overloaded, message).with("waited_ms", wait.as_millis() as u64);
    error.with("retry_after_ms", RETRY_AFTER_MS)
}

/// Ends a load, whatever becomes of it: its turn, and the wait of the others.
struct Turn<'a> {
    pool: &'a Pool,
    name: &'a str,
    model: &'a Arc<PoolModel>,
    number: u64,
    /// What became of it; none after a panic.
    outcome: Option<Result<Vec<Instance>>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        {
            let mut state = self.pool.lock();
            state.loading.retain(|&number| number != self.number);
            let outcome = self.outcome.take();
            // Another one may have come under its name.
            let same = |entry: &&mut Entry| {
                Arc::ptr_eq(&entry.model, self.model) && matches!(entry.place, Place::Loading)
            };
            match state.entries.get_mut(self.name).filter(same) {
                Some(entry) => {
                    entry.loads += 1;
                    entry.failed = None;
                    entry.place = match outcome {
                        Some(Ok(instances)) => Place::Loaded(instances),
                        Some(Err(error)) => {
                            // What one call had no patience for, another one may have.
                            let own = matches!(
                                error.kind(),
                                ErrorKind::OutOfBudget | ErrorKind::Overloaded | ErrorKind::Cancelled
                            );
                            entry.failed = (!own).then_some(error);
                            Place::Unloaded
                        }
                        None => Place::Unloaded,
                    };
                }
                // Removed meanwhile.
                None => left.extend(outcome),
            }
        }
        drop(left);
        self.pool.changed.notify_all();
    }
}

impl Pool {
    /// Loads the model `name`, whose place says that it is being loaded by the call `number`.
    pub(super) fn load(
        self: &Arc<Self>,
        name: &str,
        model: &Arc<PoolModel>,
        number: u64,
        until: Option<Instant>,
        cancel: &CancelHandle,
    ) -> Result<Model> {
        let mut turn = Turn { pool: self, name, model, number, outcome: None };
        let loaded = self.in_turn(number, until, cancel).and_then(|()| self.make(model, until, cancel));
        let handle = match &loaded {
            Ok(instances) => {
                for instance in instances {
                    let engine = instance.loaded.engine.lock().unwrap_or_else(PoisonError::into_inner);
                    engine.meter().count(|metrics| metrics.pool_name = Some(name.to_owned()));
                    drop(engine);
                    let pool: Weak<Pool> = Arc::downgrade(self);
                    instance.loaded.users.when_freed(Box::new(move || {
                        if let Some(pool) = pool.upgrade() {
                            pool.changed.notify_all();
                            // Which looks when it is idle for long enough.
                            pool.runtime.wake_driver();
                        }
                    }));
                }
                let first = instances.first().ok_or_else(|| Error::internal("a model without instances"));
                first.map(|first| Model::pooled(Arc::clone(&first.loaded), first.info.clone()))
            }
            Err(error) => Err(error.clone()),
        };
        turn.outcome = Some(loaded);
        drop(turn);
        if let Some(entry) = self.lock().entries.get_mut(name) {
            entry.used = entry.used.max(number);
        }
        handle
    }

    /// Waits until the load `number` is the first.
    fn in_turn(&self, number: u64, until: Option<Instant>, cancel: &CancelHandle) -> Result<()> {
        let started = Instant::now();
        let mut state = self.lock();
        while state.loading.front().is_some_and(|&first| first != number) {
            if until.is_some_and(|until| until <= Instant::now()) {
                let others = state.loading.iter().position(|&other| other == number).unwrap_or(0);
                let message =
                    format!("{others} other models of the pool are loaded first, and took all the time");
                return Err(late(&message, started.elapsed()));
            }
            state = self.wait(state, until, cancel)?;
        }
        Ok(())
    }

    /// Loads all instances, and makes room for them where it can be made.
    fn make(
        &self,
        model: &PoolModel,
        until: Option<Instant>,
        cancel: &CancelHandle,
    ) -> Result<Vec<Instance>> {
        let (needed, budget) = (self.needed(model)?, self.runtime.budget());
        loop {
            if cancel.is_cancelled() {
                return Err(cancelled());
            }
            // Nothing is read, and nobody gives way, before there can be room for all of it.
            let room = budget.reserve(needed, "the model, with all its instances,").map(drop);
            let error = match room.and_then(|()| self.try_make(model, cancel)) {
                Err(error) if error.kind() == ErrorKind::OutOfBudget => error,
                done => return done,
            };
            if budget.limit().is_some_and(|limit| needed > limit) {
                return Err(error);
            }
            let Some(lacking) = Budget::lacking(&error) else { return Err(error) };
            let mut state = self.lock();
            let candidates =
                state.entries.iter().filter_map(|(name, entry)| candidate(name, entry)).collect();
            let chosen: Option<Vec<String>> =
                victims(candidates, lacking).map(|names| names.into_iter().map(str::to_owned).collect());
            match chosen.filter(|chosen| !chosen.is_empty()) {
                Some(chosen) => {
                    let mut given_up = Vec::new();
                    for name in &chosen {
                        given_up.extend(state.entries.get_mut(name).into_iter().flat_map(Entry::unload));
                    }
                    drop(state);
                    give_up(given_up);
                }
                None if until.is_some_and(|until| until <= Instant::now()) => return Err(error),
                None => drop(self.wait(state, until, cancel)?),
            }
        }
    }

    /// Bytes that loading all instances needs of the budget.
    fn needed(&self, model: &PoolModel) -> Result<u64> {
        let mut sum = 0_u64;
        for (number, options) in model.instances.iter().enumerate() {
            let plan = self.runtime.plan(&model.source, &options.clone().verify(false))?;
            // The first one brings what all share.
            let shared = if number == 0 { 0 } else { plan.weights_bytes.saturating_add(plan.draft_bytes) };
            sum = sum.saturating_add(plan.load_bytes.saturating_sub(shared));
        }
        Ok(sum)
    }

    fn try_make(&self, model: &PoolModel, cancel: &CancelHandle) -> Result<Vec<Instance>> {
        let Some((options, others)) = model.instances.split_first() else { return Ok(Vec::new()) };
        let go_on =
            |_| if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let first = self.runtime.load_with_progress(&model.source, options, go_on)?;
        let loaded = first.loaded()?;
        let mut instances = vec![Instance { loaded, info: first.info().clone() }];
        for options in others {
            let (loaded, info) = first.loaded()?.another(options, first.info())?;
            instances.push(Instance { loaded, info });
        }
        Ok(instances)
    }
}

/// Frees what was unloaded, and waits until it is free.
fn give_up(instances: Vec<Instance>) {
    let weak: Vec<Weak<Loaded>> = instances.iter().map(|instance| Arc::downgrade(&instance.loaded)).collect();
    drop(instances);
    let started = Instant::now();
    while weak.iter().any(|loaded| loaded.strong_count() > 0) && started.elapsed() < FREED_WITHIN {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn candidate<'a>(name: &'a str, entry: &Entry) -> Option<Candidate<&'a str>> {
    let instances = entry.instances();
    (!instances.is_empty()).then(|| Candidate {
        name,
        bytes: held_bytes(instances),
        used: entry.used,
        idle: entry.users() == 0 && !entry.model.pin && !has_others(instances),
    })
}

/// Whether the weights have users besides these instances: then unloading these does not free them.
fn has_others(instances: &[Instance]) -> bool {
    instances.first().is_some_and(|first| Arc::strong_count(&first.loaded.shared) > instances.len())
}

/// Bytes that instances hold: weights once, buffers, adapters, and what is cached, unless a pass is computed just now.
pub(super) fn held_bytes(instances: &[Instance]) -> u64 {
    let weights = instances.first().map_or(0, |first| first.loaded.reservation.bytes());
    let own = |instance: &Instance| {
        let loaded = &instance.loaded;
        let held = |engine: MutexGuard<'_, Engine>| engine.held_bytes();
        // Of those without users, nobody has the engine for longer than a look.
        let cached = match loaded.users.count() {
            0 => held(loaded.engine.lock().unwrap_or_else(PoisonError::into_inner)),
            _ => loaded.engine.try_lock().map_or(0, held),
        };
        let adapters = loaded.adapters.read().unwrap_or_else(PoisonError::into_inner);
        let adapters: u64 = adapters.values().map(|adapter| adapter.reservation.bytes()).sum();
        loaded.bounds.bytes().saturating_add(cached).saturating_add(adapters)
    };
    instances.iter().map(own).fold(weights, u64::saturating_add)
}
