//! The other engines of the budget: what they hold for nobody is room for this one, and the other way round.
//!
//! An engine is asked while the one that asks is locked, so nobody waits for it. Where one was busy, requests that find no
//! memory wait instead of failing, and who has the step computed asks again without a lock ([`Engine::take_wanted`]).

use std::time::Duration;

use super::Engine;
use super::sequence::Spare;
use crate::runtime::Budget;

pub(super) struct Others {
    budget: Budget,
    /// This engine's number among them.
    number: u64,
    /// Bytes that were wanted in this step while one was busy.
    busy_for: Option<u64>,
    /// Bytes that a request waits for, of those that were busy.
    wanted: Option<u64>,
    /// They were all asked, and had nothing.
    had_nothing: bool,
}

impl Others {
    pub(super) fn new(budget: &Budget) -> Self {
        let number = budget.holders().number();
        Others { budget: budget.clone(), number, busy_for: None, wanted: None, had_nothing: false }
    }

    /// Asks them for `bytes` bytes. Returns whether there were any.
    pub(super) fn ask(&mut self, bytes: u64) -> bool {
        let given = self.budget.holders().ask(self.number, bytes, false);
        if given.busy && given.bytes < bytes {
            self.busy_for = Some(bytes.max(self.busy_for.unwrap_or(0)));
        }
        given.bytes > 0
    }

    /// Whether a request that has found no memory is to wait: it may be that one that was busy has some.
    pub(super) fn may_give(&mut self) -> bool {
        let bytes = self.busy_for.filter(|_| !self.had_nothing);
        self.wanted = self.wanted.max(bytes);
        bytes.is_some()
    }

    /// A step begins.
    pub(super) fn begin_step(&mut self) {
        (self.busy_for, self.wanted) = (None, None);
    }

    /// A step has ended.
    pub(super) fn end_step(&mut self) {
        self.had_nothing = false;
    }
}

impl Engine {
    /// Its number among the holders of the budget.
    pub(crate) fn number(&self) -> u64 {
        self.others.number
    }

    /// Bytes of other engines that a request waits for since the latest step: they are to be asked now, without this engine's lock.
    pub(crate) fn take_wanted(&mut self) -> Option<u64> {
        self.others.wanted.take()
    }

    /// They were asked, and had nothing.
    pub(crate) fn others_had_nothing(&mut self) {
        self.others.had_nothing = true;
    }

    /// For another engine: gives back `bytes` bytes or more of what nobody needs now (pages in reserve, those of the prefix cache, those
    /// of idle sessions and of streams that nobody reads, and those that are lent), or as many as there are. Returns how many.
    pub(crate) fn give_way(&mut self, bytes: u64) -> u64 {
        let before = self.held_bytes();
        self.cache.trim_reserve();
        loop {
            let given = before.saturating_sub(self.held_bytes());
            let gives = given < bytes
                && (self.cache.forget_prefix() || self.evict_idle() || self.cache.take_back(Duration::ZERO));
            if !gives {
                self.measure();
                return given;
            }
            self.cache.trim_reserve();
        }
    }

    /// Evicts a sequence that nobody waits for. Returns whether there was one.
    fn evict_idle(&mut self) -> bool {
        let holders = self.sequences.iter().filter(|(_, sequence)| sequence.tables.hold_pages());
        let idle = holders.filter_map(|(&id, sequence)| Some((sequence.spare()?, id)));
        let idle = idle.filter(|(spare, _)| matches!(spare, Spare::Idle(_) | Spare::Unread(_))).min();
        let Some((_, id)) = idle else { return false };
        self.evict(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::api::model::Model;
    use crate::error::ErrorKind;
    use crate::event::Event;
    use crate::load::source::Source;
    use crate::options::{Driver, GenerateOptions, ModelOptions, RuntimeOptions};
    use crate::runtime::Runtime;

    const LENGTH: u32 = 300;

    /// Two models of one runtime, with room for one long request.
    fn pair(driver: Driver) -> [Model; 2] {
        let options = ModelOptions::default().max_batch(2_u32).prefix_cache(true);
        let load = |runtime: &Runtime| [0, 1].map(|_| runtime.load(&Source::Builtin, &options).unwrap());
        let of_runtime = RuntimeOptions::default().threads(2_u32).driver(driver);
        let free = Runtime::new(&of_runtime).unwrap();
        let models = load(&free);
        let room = 384 * models[0].info().plan.kv_bytes_per_token + (32 << 10);
        let budget = free.memory_used() + room;
        load(&Runtime::new(&of_runtime.memory_budget(budget)).unwrap())
    }

    fn prompt(salt: u32) -> Vec<u32> {
        (0..LENGTH).map(|i| 3 + (i * 7 + salt) % 400).collect()
    }

    fn greedy() -> GenerateOptions {
        GenerateOptions::default().temperature(0.0).max_tokens(20_u32).ignore_eos(true)
    }

    /// A request of the first model that begins while somebody has the other one's engine.
    fn begin_while_busy(models: &[Model; 2]) -> crate::error::Result<Vec<u32>> {
        let loaded = models[1].loaded().unwrap();
        let busy = loaded.engine().unwrap();
        std::thread::scope(|scope| {
            let done = scope.spawn(|| models[0].generate(prompt(1), &greedy()).map(|done| done.token_ids));
            std::thread::sleep(Duration::from_millis(100));
            drop(busy);
            done.join().unwrap()
        })
    }

    #[test]
    fn a_request_waits_for_an_engine_that_is_busy() {
        for driver in [Driver::Caller, Driver::Thread] {
            let models = pair(driver);
            let expected = models[0].generate(prompt(1), &greedy()).unwrap().token_ids;
            models[1].generate(prompt(2), &greedy()).unwrap();
            assert_eq!(begin_while_busy(&models).unwrap(), expected);
        }
    }

    /// Pages of a request that runs are not idle, and nobody waits for ever.
    #[test]
    fn what_others_need_is_not_given() {
        let models = pair(Driver::Caller);
        let mut stream = models[1].stream(prompt(2), &greedy()).unwrap();
        while !matches!(stream.next_event().unwrap(), Some(Event::Token { .. })) {}
        assert_eq!(begin_while_busy(&models).unwrap_err().kind(), ErrorKind::OutOfBudget);
        assert_eq!(stream.finish().unwrap().token_ids.len(), 20);
        assert_eq!(begin_while_busy(&models).unwrap().len(), 20);
    }
}
