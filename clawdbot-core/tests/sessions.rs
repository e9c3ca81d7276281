//! What sessions and streams do at their edges: cancelling, truncating to what is computed already.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use clawdbot_core::{ErrorKind, Event, FinishReason, GenerateOptions, Model};

fn greedy(max_tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(max_tokens)
}

#[test]
fn a_cancelled_stream_ends_with_its_completion() {
    let model = Model::builtin().unwrap();
    let mut stream = model.stream("Once upon a time", &greedy(200)).unwrap();
    stream.next_event().unwrap();
    stream.cancel_handle().cancel();
    let completion = stream.finish().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Cancelled);
}

#[test]
fn closing_the_model_ends_a_stream() {
    let model = Model::builtin().unwrap();
    let stream = model.stream("Once upon a time", &greedy(200)).unwrap();
    model.close();
    assert_eq!(stream.finish().unwrap().finish_reason, FinishReason::Cancelled);
}

#[test]
fn truncating_to_the_prompt_generates_the_same_again() {
    let model = Model::builtin().unwrap();
    let mut session = model.session().unwrap();
    let length = session.append("Once upon a time", true).unwrap();
    let first = session.generate(&greedy(5)).unwrap();
    session.truncate(length).unwrap();
    let again = session.generate(&greedy(5)).unwrap();
    assert_eq!(again.token_ids, first.token_ids);
    assert_eq!(again.usage.cached_tokens, length - 1, "all but the last token of the prompt");
}

fn tiny() -> (Model, GenerateOptions) {
    (Model::builtin().unwrap(), greedy(5))
}

#[test]
fn an_old_stream_does_not_touch_the_next_request() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    session.append("Once upon a time", true).unwrap();
    let mut old = session.stream(&options).unwrap();
    for _ in 0..5 {
        assert!(matches!(old.next_event().unwrap(), Some(Event::Token { .. })));
    }
    // Its end was not taken, but the session is free.
    let new = session.stream(&options).unwrap();
    assert_eq!(old.next_event().unwrap_err().kind(), ErrorKind::Closed);
    drop(old);
    assert_eq!(new.finish().unwrap().token_ids.len(), 5);
}

#[test]
fn a_refused_request_changes_nothing() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    let bad = options.clone().stop_token_ids([u32::MAX]);
    assert_eq!(session.stream(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(session.tokens().unwrap().is_empty(), "no token of the beginning stays behind");
}

#[test]
fn sessions_of_a_closed_model_are_closed() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    session.append("Once", true).unwrap();
    model.close();
    assert_eq!(session.append("upon", false).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(session.generate(&options).unwrap_err().kind(), ErrorKind::Closed);
}
