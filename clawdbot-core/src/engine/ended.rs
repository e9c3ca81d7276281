//! When jobs have ended: their last pages are kept for others, and what their groups were charged is corrected, since how many
//! tokens they would generate was a guess.

use std::collections::HashMap;

use super::Engine;
use super::entry::SequenceId;
use super::queue::{Corrections, Group, Settled};
use super::sequence::{Job, Sequence};

impl Job {
    fn charged_group(&self) -> Group {
        (self.options.priority, self.options.group.clone())
    }
}

impl Engine {
    /// The jobs of these sequences have ended or are stopped. What happened already is left out.
    pub(super) fn end_jobs(&mut self, ids: &[SequenceId]) {
        let mut ended: HashMap<Group, Vec<Settled>> = HashMap::new();
        for id in ids {
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            // What a step of a search ends with is what the next one begins with.
            if sequence.job.as_ref().is_some_and(|job| job.charged > 0 && job.next.is_none()) {
                sequence.remember_tail(&mut self.cache);
            }
            let Sequence { job: Some(job), rank, .. } = sequence else { continue };
            let (charged, computed) =
                (std::mem::take(&mut job.charged), job.reached.saturating_sub(job.cached));
            if charged != 0 && charged != computed {
                ended.entry(job.charged_group()).or_default().push(Settled::new(*rank, charged, computed));
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
            let Some(corrections) = corrections.get(&job.charged_group()) else { continue };
            if job.prefill_started.is_none() && !sequence.turn.admitted {
                sequence.rank = sequence.rank.corrected(corrections);
            }
        }
    }

    /// As [`Engine::end_jobs`], for all jobs that have ended.
    pub(super) fn end_finished_jobs(&mut self) {
        let ended = |(&id, sequence): (&SequenceId, &Sequence)| {
            let job = sequence.job.as_ref()?;
            (job.is_finished() && job.charged > 0).then_some(id)
        };
        let ended: Vec<SequenceId> = self.sequences.iter().filter_map(ended).collect();
        self.end_jobs(&ended);
    }
}
