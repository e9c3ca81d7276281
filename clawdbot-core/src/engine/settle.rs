//! What groups were charged for requests is corrected when these have ended: how many tokens they would generate was a guess.

use std::collections::HashMap;

use super::Engine;
use super::entry::SequenceId;
use super::queue::{Corrections, Group, Settled};
use super::sequence::{Job, Sequence};

impl Job {
    fn group(&self) -> Group {
        (self.options.priority, self.options.group.clone())
    }
}

impl Engine {
    /// Corrects what was charged for the jobs of these sequences, which have ended or are stopped.
    pub(super) fn settle(&mut self, ids: &[SequenceId]) {
        let mut ended: HashMap<Group, Vec<Settled>> = HashMap::new();
        for id in ids {
            let Some(Sequence { job: Some(job), rank, .. }) = self.sequences.get_mut(id) else { continue };
            let (charged, computed) =
                (std::mem::take(&mut job.charged), job.reached.saturating_sub(job.cached));
            if charged != 0 && charged != computed {
                ended.entry(job.group()).or_default().push(Settled::new(*rank, charged, computed));
            }
        }
        if ended.is_empty() {
            return;
        }
        let corrections = ended.into_iter().map(|(group, ended)| {
            let corrections = self.queue.settle(&group, ended);
            (group, corrections)
        });
        let corrections: HashMap<Group, Corrections> = corrections.collect();
        for sequence in self.sequences.values_mut().filter(|sequence| sequence.turn.passes == 0) {
            let Some(job) = sequence.job.as_ref().filter(|job| !job.is_finished()) else { continue };
            let Some(corrections) = corrections.get(&job.group()) else { continue };
            sequence.turn.since = corrections.of(sequence.turn.since);
            if job.prefill_started.is_none() && !sequence.turn.admitted {
                sequence.rank = sequence.rank.corrected(corrections);
            }
        }
    }

    /// As [`Engine::settle`], for all jobs that have ended.
    pub(super) fn settle_ended(&mut self) {
        let ended = |(&id, sequence): (&SequenceId, &Sequence)| {
            let job = sequence.job.as_ref()?;
            (job.is_finished() && job.charged > 0).then_some(id)
        };
        let ended: Vec<SequenceId> = self.sequences.iter().filter_map(ended).collect();
        self.settle(&ended);
    }
}
