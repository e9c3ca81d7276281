//! The answers to a request, as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use clawdbot_core::{Completion, Error, ErrorKind, Event, GenerateOptions, Stream};
use futures_util::StreamExt;

use crate::caller::{Caller, Holder};
use crate::fault::Fault;
use crate::ids;
use crate::prompt::Ask;

/// Events of several answers, each with the number of its answer. Dropping it cancels them.
pub(crate) struct Answers {
    streams: Vec<Option<Stream>>,
    /// Which is asked first next time: none has to wait for the others.
    next: usize,
    holder: Holder,
    /// Tokens of each answer that were taken from the key's limit.
    charged: Vec<usize>,
}

impl Answers {
    fn new(streams: Vec<Stream>, holder: Holder) -> Self {
        let charged = vec![0; streams.len()];
        Answers { streams: streams.into_iter().map(Some).collect(), next: 0, holder, charged }
    }

    /// Takes the tokens of an event from the key's limit: at once, as a client may go before the end.
    fn charge(&mut self, index: usize, event: &Event) {
        let Some(charged) = self.charged.get_mut(index) else { return };
        let tokens = match event {
            Event::Progress { done, .. } => *done,
            Event::Token { .. } => *charged + 1,
            Event::Done(completion) => tokens(completion),
            _ => return,
        };
        self.holder.used(tokens.saturating_sub(*charged));
        *charged = tokens.max(*charged);
    }
}

impl futures_util::Stream for Answers {
    type Item = (usize, Result<Event, Error>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let count = self.streams.len();
        let mut done = true;
        for step in 0..count {
            let index = (self.next + step) % count;
            let Some(stream) = &mut self.streams[index] else { continue };
            match stream.poll_next_unpin(context) {
                Poll::Pending => done = false,
                Poll::Ready(None) => self.streams[index] = None,
                Poll::Ready(Some(event)) => {
                    self.next = index + 1;
                    if let Ok(event) = &event {
                        self.charge(index, event);
                    }
                    return Poll::Ready(Some((index, event)));
                }
            }
        }
        if done { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// Tokens of a prompt and its completions.
fn tokens(completion: &Completion) -> usize {
    let others: usize = completion.alternatives.iter().map(|other| other.usage.completion_tokens).sum();
    completion.usage.prompt_tokens + completion.usage.completion_tokens + others
}

/// Whether all completions of a prompt are made together.
pub(crate) fn together(options: &GenerateOptions) -> bool {
    options.n > 1 || options.num_beams > 1 || options.best_of.is_some_and(|best_of| best_of > 1)
}

/// Begins the answers to `asks`, each with as many completions as `n` says. Answer number `i * n + j` is completion `j` of ask `i`.
pub(crate) async fn begin(
    app: &Caller,
    name: &str,
    asks: Vec<Ask>,
    options: GenerateOptions,
) -> Result<Answers, Fault> {
    for (option, set) in [("num_beams", options.num_beams > 1), ("best_of", options.best_of.is_some())] {
        if set {
            let message =
                format!("option {option}: expected none with stream, as no text is certain before the end");
            return Err(Fault::invalid(message).at(option));
        }
    }
    let options = app.limited(name, &asks, options).await?;
    let streams = app.with_model(name, move |model, _| {
        let seed = options.seed.unwrap_or_else(ids::seed);
        let mut streams = Vec::new();
        for ask in &asks {
            for number in 0..options.n {
                let mut own = options.clone();
                if options.n > 1 {
                    (own.n, own.seed) = (1, Some(seed.wrapping_add(u64::from(number))));
                }
                streams.push(ask.stream(model, &own)?);
            }
        }
        Ok(streams)
    });
    Ok(Answers::new(streams.await?, app.holder().clone()))
}

/// Answers all of `asks`: a completion for each, which has the others as its alternatives.
pub(crate) async fn complete(
    app: &Caller,
    name: &str,
    asks: Vec<Ask>,
    options: GenerateOptions,
) -> Result<Vec<Completion>, Fault> {
    let options = app.limited(name, &asks, options).await?;
    if together(&options) {
        let completions = app.with_model(name, move |model, cancel| {
            asks.iter().map(|ask| ask.complete(model, &options, cancel)).collect::<Result<Vec<_>, _>>()
        });
        let completions: Vec<Completion> = completions.await?;
        app.holder().used(completions.iter().map(tokens).sum());
        return Ok(completions);
    }
    let streams = app.with_model(name, move |model, _| {
        asks.iter().map(|ask| ask.submit(model, &options)).collect::<Result<Vec<_>, _>>()
    });
    let mut completions = Vec::new();
    for mut stream in streams.await? {
        loop {
            match StreamExt::next(&mut stream).await {
                Some(Ok(Event::Done(completion))) => {
                    app.holder().used(tokens(&completion));
                    completions.push(*completion);
                    break;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(no_end().into()),
            }
        }
    }
    Ok(completions)
}

/// The error of an answer that has ended without a completion.
pub(crate) fn no_end() -> Error {
    Error::new(ErrorKind::Internal, "the answer ended without a completion: a bug in clawdbot")
}
