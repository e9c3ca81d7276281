//! The answers to a request, as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use clawdbot_core::{Completion, Error, ErrorKind, Event, GenerateOptions, Stream};
use futures_util::StreamExt;

use crate::app::App;
use crate::fault::Fault;
use crate::ids;
use crate::prompt::Ask;

/// Events of several answers, each with the number of its answer. Dropping it cancels them.
pub(crate) struct Answers {
    streams: Vec<Option<Stream>>,
    /// Which is asked first next time: none has to wait for the others.
    next: usize,
}

impl Answers {
    fn new(streams: Vec<Stream>) -> Self {
        Answers { streams: streams.into_iter().map(Some).collect(), next: 0 }
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
                    return Poll::Ready(Some((index, event)));
                }
            }
        }
        if done { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// Whether all completions of a prompt are made together.
pub(crate) fn together(options: &GenerateOptions) -> bool {
    options.n > 1 || options.num_beams > 1 || options.best_of.is_some_and(|best_of| best_of > 1)
}

/// Begins the answers to `asks`, each with as many completions as `n` says. Answer number `i * n + j` is completion `j` of ask `i`.
pub(crate) async fn begin(
    app: &App,
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
    Ok(Answers::new(streams.await?))
}

/// Answers all of `asks`: a completion for each, which has the others as its alternatives.
pub(crate) async fn complete(
    app: &App,
    name: &str,
    asks: Vec<Ask>,
    options: GenerateOptions,
) -> Result<Vec<Completion>, Fault> {
    if together(&options) {
        let completions = app.with_model(name, move |model, cancel| {
            asks.iter().map(|ask| ask.complete(model, &options, cancel)).collect::<Result<Vec<_>, _>>()
        });
        return completions.await;
    }
    let streams = app.with_model(name, move |model, _| {
        asks.iter().map(|ask| ask.submit(model, &options)).collect::<Result<Vec<_>, _>>()
    });
    let mut completions = Vec::new();
    for mut stream in streams.await? {
        loop {
            match StreamExt::next(&mut stream).await {
                Some(Ok(Event::Done(completion))) => {
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
