//! Prompts, one or many in one call.

use std::collections::BTreeMap;
use std::iter::{Enumerate, Peekable};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::alternatives::Alternatives;
use super::beams::{Beams, Next};
use super::items::Item;
use super::loaded::Loaded;
use super::model::Model;
use super::pending::Pending;
use super::reply::Reply;
use super::session::{Delivery, Prompt, Session, Stream, Wanted, run_together};
use crate::cancel::{CancelHandle, Progress, cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Completion;
use crate::options::{GenerateOptions, PromptKind};

/// Requests that are under way, in units of the sequences of a forward pass: enough that those that end are replaced.
const PASSES_AHEAD: usize = 2;

/// A prompt and how to generate from it: one of several in [`Model::generate_each`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub options: GenerateOptions,
}

impl Request {
    /// A request.
    pub fn new(prompt: impl Into<Prompt>, options: GenerateOptions) -> Self {
        Request { prompt: prompt.into(), options }
    }
}

impl Model {
    /// Generates from `prompt`, event by event.
    ///
    /// # Errors
    /// `EmptyPrompt`, `ContextOverflow`, `InvalidArgument`, `Closed`, `ForkedRuntime`; as [`Model::session`].
    pub fn stream(&self, prompt: impl Into<Prompt>, options: &GenerateOptions) -> Result<Stream> {
        self.request(prompt.into(), options, Delivery::each_token(), &CancelHandle::default())
    }

    /// As [`Model::stream`], with the completion as the only event: for callers that await it alone.
    ///
    /// # Errors
    /// As [`Model::stream`].
    pub fn submit(&self, prompt: impl Into<Prompt>, options: &GenerateOptions) -> Result<Stream> {
        self.submit_since(prompt, options, Instant::now())
    }

    /// As [`Model::submit`], for a call that was made at `called` and handed to this thread: its deadline counts from then.
    ///
    /// # Errors
    /// As [`Model::stream`].
    pub fn submit_since(
        &self,
        prompt: impl Into<Prompt>,
        options: &GenerateOptions,
        called: Instant,
    ) -> Result<Stream> {
        self.request(prompt.into(), options, Delivery::at_the_end_since(called), &CancelHandle::default())
    }

    fn request(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        delivery: Delivery,
        cancel: &CancelHandle,
    ) -> Result<Stream> {
        let mut session = Session::once(self.generating()?)?;
        let options = &options.for_prompt(PromptKind::Text);
        let add_special_tokens = (options.add_special_tokens == Some(true)).into();
        session.extend_until(prompt, add_special_tokens, Wanted::of(options), cancel)?;
        session.request(options, delivery, cancel.ticket())
    }

    /// A request for all that `options` ask for, which gives no events.
    fn begin(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<(Vec<Stream>, Pending)> {
        if options.has_beams() {
            let (beams, streams) = self.beams(prompt, options, called, cancel)?;
            return Ok((streams, Pending::Beams(Box::new(beams))));
        }
        let (streams, ending) = if options.completions() == 1 {
            let stream = self.request(prompt, options, Delivery::at_the_end_since(called), cancel)?;
            (vec![stream], None)
        } else {
            let Alternatives { streams, ending } = self.alternatives(prompt, options, called, cancel)?;
            (streams, Some(Box::new(ending)))
        };
        let completions = streams.iter().map(|_| None).collect();
        Ok((streams, Pending::Completions { ending, completions }))
    }

    /// What a request for several completions begins with, with its options.
    fn tokens_of(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<(Arc<Loaded>, Vec<u32>, GenerateOptions)> {
        let (loaded, options) = (self.generating()?, options.for_prompt(PromptKind::Text));
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => {
                let add_special_tokens = (options.add_special_tokens == Some(true)).into();
                loaded.encode(&text, add_special_tokens, 0, Wanted::of(&options), cancel)?
            }
        };
        Ok((loaded, tokens, options))
    }

    /// A request for several completions.
    fn alternatives(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<Alternatives> {
        let (loaded, tokens, options) = self.tokens_of(prompt, options, cancel)?;
        Alternatives::begin(&loaded, tokens, &options, &Reply::of(&options)?, called, cancel)
    }

    /// A beam search.
    fn beams(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<(Beams, Vec<Stream>)> {
        let (loaded, tokens, options) = self.tokens_of(prompt, options, cancel)?;
        Beams::begin(&loaded, tokens, &options, Reply::of(&options)?, called, cancel)
    }

    /// Generates from `prompt`. With the option `n` above 1, the prompt is computed once; the completion has the others as its
    /// `alternatives`, each with the bits that it has alone. With `num_beams` above 1, they are the `n` best texts of a beam search.
    ///
    /// # Errors
    /// As [`Model::stream`]; `OutOfBudget`, `NonFinite` while computing.
    pub fn generate(&self, prompt: impl Into<Prompt>, options: &GenerateOptions) -> Result<Completion> {
        self.generate_until(prompt, options, &CancelHandle::default())
    }

    /// As [`Model::generate`], until `cancel` is asked to stop: the completion then ends with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled), before the next layer of the forward pass.
    ///
    /// # Errors
    /// As [`Model::generate`]; `Cancelled` when it is asked before all of the prompt is tokens.
    pub fn generate_until(
        &self,
        prompt: impl Into<Prompt>,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<Completion> {
        let called = Instant::now();
        if options.has_beams() {
            let (beams, streams) = self.beams(prompt.into(), options, called, cancel)?;
            return beams.finish(streams);
        }
        match options.completions() {
            1 => self.request(prompt.into(), options, Delivery::at_the_end_since(called), cancel)?.finish(),
            _ => self.alternatives(prompt.into(), options, called, cancel)?.finish(),
        }
    }

    /// Generates from several prompts, computed together. One result for each, in their order. However many there are,
    /// only some are under way at a time; the deadlines of all count from the call.
    ///
    /// # Errors
    /// Per prompt, as [`Model::generate`]; message and detail say which one it is, as [`Error::of_item`] does.
    pub fn generate_batch(&self, prompts: Vec<Prompt>, options: &GenerateOptions) -> Vec<Result<Completion>> {
        let requests = prompts.into_iter().map(|prompt| Ok(Request::new(prompt, options.clone())));
        self.generate_each(requests, &CancelHandle::default(), |_| ControlFlow::Continue(()))
    }

    /// As [`Model::generate_batch`], with options for each prompt, until `cancel` is asked to stop: what is under way then
    /// ends with [`FinishReason::Cancelled`](crate::FinishReason::Cancelled), before the next layer of the forward pass.
    /// `progress` gets the prompts that are done, and all of them, after each forward pass; a break cancels those that are
    /// not done. A request that is an error already stays that error.
    ///
    /// # Errors
    /// Per prompt, as [`Model::generate_batch`]; `Cancelled` for what had not begun, or was not tokens yet, and for what
    /// `progress` cancelled.
    pub fn generate_each<E: From<Error>>(
        &self,
        requests: impl ExactSizeIterator<Item = Result<Request, E>>,
        cancel: &CancelHandle,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Vec<Result<Completion, E>> {
        let count = requests.len();
        // A closed model refuses each request.
        let most = self.loaded().map_or(1, |loaded| PASSES_AHEAD * loaded.bounds.max_batch() as usize);
        let mut batch = Batch {
            requests: requests.enumerate().peekable(),
            running: Vec::new(),
            pending: BTreeMap::new(),
            results: (0..count).map(|_| None).collect(),
            done: 0,
            called: Instant::now(),
        };
        loop {
            while batch.running.len() < most
                && !cancel.is_cancelled()
                && batch.begin_next(self, cancel).is_continue()
            {}
            if batch.running.is_empty() {
                break;
            }
            for (key, ended) in run_together(&mut batch.running) {
                batch.end_stream(key, ended);
            }
            let now = Progress { done: batch.done, total: count as u64, stage: None };
            if progress(now).is_break() {
                break;
            }
        }
        let results = batch.results.into_iter();
        results.map(|result| result.unwrap_or_else(|| Err(E::from(cancelled())))).collect()
    }
}

/// Whether a request can begin once others have ended.
pub(super) fn waits_for_others(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::OutOfBudget | ErrorKind::Overloaded)
}

/// A request's number, and that of one of its completions or beams.
type Key = (usize, usize);

/// The requests of a call on their way.
struct Batch<I: Iterator, E> {
    requests: Peekable<Enumerate<I>>,
    /// Streams, with their requests and what they are of them.
    running: Vec<(Key, Stream)>,
    pending: BTreeMap<usize, Pending>,
    results: Vec<Option<Result<Completion, E>>>,
    done: u64,
    called: Instant,
}

impl<I: Iterator<Item = Result<Request, E>>, E: From<Error>> Batch<I, E> {
    /// Begins the next request. A break: there is none, or it waits for memory that those under way have.
    fn begin_next(&mut self, model: &Model, cancel: &CancelHandle) -> ControlFlow<()> {
        let Some((index, request)) = self.requests.peek() else { return ControlFlow::Break(()) };
        let index = *index;
        let begun = request
            .as_ref()
            .ok()
            .map(|Request { prompt, options }| model.begin(prompt.clone(), options, self.called, cancel));
        let refused = match begun {
            Some(Ok((streams, pending))) => {
                self.pending.insert(index, pending);
                self.run(index, streams);
                None
            }
            Some(Err(error)) if waits_for_others(&error) && !self.running.is_empty() => {
                return ControlFlow::Break(());
            }
            Some(Err(error)) => Some(E::from(error.of_item(Item::Prompt(index)))),
            None => None,
        };
        let given = self.requests.next().and_then(|(_, request)| request.err());
        if let Some(error) = refused.or(given) {
            self.end(index, Err(error));
        }
        ControlFlow::Continue(())
    }

    /// Runs all streams that a request has now.
    fn run(&mut self, index: usize, streams: Vec<Stream>) {
        let streams = streams.into_iter().enumerate();
        self.running.extend(streams.map(|(place, stream)| ((index, place), stream)));
    }

    /// A stream has ended; its request ends with the last of them, or with the first error.
    fn end_stream(&mut self, (index, place): Key, ended: Result<Stream>) {
        let Some(pending) = self.pending.get_mut(&index) else { return };
        let result = match ended.and_then(|stream| pending.take(place, stream)) {
            Ok(Next::Waits) => return,
            Ok(Next::Steps(streams)) => return self.run(index, streams),
            Ok(Next::Done(completion)) => Ok(*completion),
            Err(error) => Err(error),
        };
        self.pending.remove(&index);
        self.running.retain(|((other, _), _)| *other != index);
        self.end(index, result.map_err(|error| E::from(error.of_item(Item::Prompt(index)))));
    }

    fn end(&mut self, index: usize, result: Result<Completion, E>) {
        self.results[index] = Some(result);
        self.done += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::Chat;
    use crate::event::{Event, FinishReason};
    use crate::options::{ModelOptions, RuntimeOptions};
    use crate::{Runtime, Source};

    fn greedy(max_tokens: u32) -> GenerateOptions {
        GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(max_tokens)
    }

    #[test]
    fn each_request_has_its_options_and_its_error() {
        let model = Model::builtin().unwrap();
        let given = Error::new(ErrorKind::InvalidUtf8, "given").of_item(Item::Prompt(1));
        let requests = [
            Ok(Request::new("Once", greedy(2))),
            Err(given.clone()),
            Ok(Request::new(vec![u32::MAX], greedy(2))),
            Ok(Request::new("Once", greedy(3).min_tokens(4_u32))),
            Ok(Request::new("Once", greedy(3))),
        ];
        let mut seen = Vec::new();
        let found = model.generate_each(requests.into_iter(), &CancelHandle::default(), |now| {
            seen.push(now);
            ControlFlow::Continue(())
        });
        let tokens = |index: usize| found[index].as_ref().map(|found| found.token_ids.len());
        assert_eq!((tokens(0).unwrap(), tokens(4).unwrap()), (2, 3));
        assert_eq!(tokens(1).unwrap_err().message(), given.message());
        for index in [2, 3] {
            let error = tokens(index).unwrap_err();
            assert!(error.message().starts_with(&format!("prompt[{index}]: ")), "{error}");
            assert_eq!(
                (error.kind(), &error.detail()["prompt"]),
                (ErrorKind::InvalidArgument, &index.into())
            );
        }
        assert_eq!(seen.last(), Some(&Progress { done: 5, total: 5, stage: None }));
    }

    #[test]
    fn what_stops_a_batch_stops_no_more() {
        let model = Model::builtin().unwrap();
        let cancel = CancelHandle::default();
        let requests = || (0..3).map(|_| Ok::<_, Error>(Request::new("Once", greedy(90))));
        let found = model.generate_each(requests(), &cancel, |_| ControlFlow::Break(()));
        assert!(
            found.iter().all(|one| one.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled))
        );
        assert!(!cancel.is_cancelled());
        // What is under way when it is cancelled has a completion.
        let found = model.generate_each(requests(), &cancel, |_| {
            cancel.cancel();
            ControlFlow::Continue(())
        });
        let reasons: Vec<_> = found.into_iter().map(|one| one.unwrap().finish_reason).collect();
        assert_eq!(reasons, [FinishReason::Cancelled; 3]);
        let chat = Chat::new(serde_json::json!([{"role": "user", "content": "Hello"}]));
        let error = model.chat_until(&chat, &greedy(3), &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let cancel = CancelHandle::default();
        let found = model.chat_until(&chat, &greedy(3), &cancel).unwrap();
        assert_eq!(found, model.chat(&chat, &greedy(3)).unwrap());
        // Nor does closing the model.
        let stream = model.request("Once".into(), &greedy(90), Delivery::each_token(), &cancel).unwrap();
        model.close();
        assert_eq!(stream.finish().unwrap().finish_reason, FinishReason::Cancelled);
        assert!(!cancel.is_cancelled());
    }

    #[test]
    fn a_deadline_counts_from_the_call() {
        let model = Model::builtin().unwrap();
        let chat = Chat::new(serde_json::json!([{"role": "user", "content": "Hello"}]));
        let options = greedy(5).deadline_ms(600_000_u64);
        let begin = |called| {
            let streams = [
                model.submit_since("Once", &options, called).unwrap(),
                model.chat_submit_since(&chat, &options, called).unwrap(),
            ];
            streams.map(|stream| stream.finish().unwrap())
        };
        let now = Instant::now();
        assert!(begin(now).iter().all(|found| found.finish_reason == FinishReason::Length));
        let Some(called) = now.checked_sub(Duration::from_secs(601)) else { return };
        for found in begin(called) {
            assert_eq!((found.finish_reason, found.token_ids.len()), (FinishReason::Deadline, 0));
            assert_eq!(found.options["deadline_ms"], 600_000);
        }
    }

    #[test]
    fn the_deadlines_of_many_count_from_the_call() {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
        let model = runtime.load(&Source::Builtin, &ModelOptions::default().max_batch(1_u32)).unwrap();
        let requests =
            (1_u32..4).map(|n| Ok::<_, Error>(Request::new("Once", greedy(1).deadline_ms(40_u64).n(n))));
        let requests: Vec<_> = requests.collect();
        let found = model.generate_each(requests.into_iter(), &CancelHandle::default(), |_| {
            std::thread::sleep(Duration::from_millis(41));
            ControlFlow::Continue(())
        });
        // The last one has its turn when others have ended.
        let last = found[2].as_ref().unwrap();
        let all: Vec<_> = std::iter::once(last).chain(&last.alternatives).collect();
        assert_eq!(all.len(), 3);
        for one in all {
            assert_eq!((one.finish_reason, one.token_ids.len()), (FinishReason::Deadline, 0));
        }
    }

    #[test]
    fn several_completions_wait_as_one_request() {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
        let options = ModelOptions::default().max_batch(1_u32).max_queue(1_u32);
        let model = runtime.load(&Source::Builtin, &options).unwrap();
        let completion = model.generate("Once", &greedy(3).n(4_u32)).unwrap();
        assert_eq!(completion.alternatives.len(), 3);
        let scores = model.score("Once", &[" upon".into(), " a".into(), " time".into()]).unwrap();
        assert_eq!(scores.len(), 3);
        // It is one that waits, too.
        let _waits = model.stream("Once", &greedy(3)).unwrap();
        let error = model.generate("Once", &greedy(3).n(4_u32)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
    }

    #[test]
    fn a_listener_hears_events_until_it_breaks() {
        let model = Model::builtin().unwrap();
        let mut events = Vec::new();
        let mut stream = model.stream("Once", &greedy(3)).unwrap();
        let found = stream.run(|event| {
            events.push(event);
            ControlFlow::Continue(())
        });
        let found = found.unwrap();
        assert_eq!(events.last(), Some(&Event::Done(Box::new(found.clone()))));
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Token { .. })).count(), 3);
        assert_eq!(stream.run(|_| ControlFlow::Continue(())).unwrap_err().kind(), ErrorKind::Closed);
        let mut heard = 0;
        let found = model.stream("Once", &greedy(200)).unwrap().run(|_| {
            heard += 1;
            ControlFlow::Break(())
        });
        assert_eq!((found.unwrap().finish_reason, heard), (FinishReason::Cancelled, 1));
    }

    #[test]
    fn a_minimum_is_within_the_maximum() {
        let model = Model::builtin().unwrap();
        let error = model.generate("Once", &greedy(3).min_tokens(4_u32)).unwrap_err();
        assert_eq!(error.message(), "option min_tokens: expected at most max_tokens, 3, found 4");
        assert_eq!(
            (error.kind(), &error.detail()["option"]),
            (ErrorKind::InvalidArgument, &"min_tokens".into())
        );
        assert_eq!(model.generate("Once", &greedy(3).min_tokens(3_u32)).unwrap().token_ids.len(), 3);
        let mut session = model.session().unwrap();
        session.append("Once", true.into()).unwrap();
        let before = session.tokens().unwrap();
        assert!(session.generate(&greedy(3).min_tokens(4_u32)).is_err());
        assert_eq!(session.tokens().unwrap(), before);
        // Without a maximum, it must fit into the context.
        let open = GenerateOptions::default().min_tokens(100_000_u32);
        let error = model.generate("Once", &open).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContextOverflow);
        assert!(error.message().contains("at least 100000 to generate"), "{error}");
    }
}
