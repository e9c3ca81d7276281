//! Functions of the host that change logits.
#![allow(clippy::unwrap_used, reason = "a test")]

use clawdbot_core::{
    Driver, Error, ErrorKind, GenerateOptions, Model, ModelOptions, Result, Runtime, RuntimeOptions,
    SharedProcessor, Source, Speculation,
};

fn load(driver: Driver, speculation: Speculation) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver);
    let options = ModelOptions::default().speculation(speculation);
    Runtime::new(&runtime).unwrap().load(&Source::Builtin, &options).unwrap()
}

/// Leaves tokens that are odd where the output's length is, and makes those likely that occurred.
fn odd_or_even(prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()> {
    for (id, logit) in logits.iter_mut().enumerate() {
        if id % 2 != output.len() % 2 {
            *logit = f32::NEG_INFINITY;
        }
    }
    for &id in prompt.iter().chain(output) {
        logits[id as usize] += 2.0;
    }
    Ok(())
}

#[test]
fn tokens_are_what_the_processor_leaves_with_the_same_bits() {
    let base = GenerateOptions::default().ignore_eos(true).max_tokens(60_u32).logprobs(1_u32);
    let plain = load(Driver::Caller, Speculation::None);
    let greedy = base.clone().temperature(0.0);
    let sampled = base.temperature(1.0).seed(5_u64).repetition_penalty(1.1);
    for options in [greedy, sampled] {
        let options = options.logits_processor(SharedProcessor::new(odd_or_even));
        let expected = plain.generate("Once upon a time", &options).unwrap();
        assert!(expected.token_ids.iter().enumerate().all(|(at, id)| *id as usize % 2 == at % 2));
        assert!(!expected.options.contains_key("logits_processor"));
        for driver in [Driver::Caller, Driver::Thread] {
            let model = load(driver, Speculation::Ngram);
            let found = model.generate("Once upon a time", &options).unwrap();
            assert_eq!(found, expected);
            let several = model.generate("Once upon a time", &options.clone().n(3_u32)).unwrap();
            assert_eq!(several.token_ids, expected.token_ids);
        }
    }
}

#[test]
fn what_a_processor_refuses_ends_its_request_alone() {
    let model = load(Driver::Thread, Speculation::None);
    let options = GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(40_u32);
    let expected = model.generate("Once", &options).unwrap();
    let other = model.stream("Once", &options).unwrap();
    let refuses = |_: &[u32], output: &[u32], _: &mut [f32]| match output.len() {
        0..5 => Ok(()),
        5 => Err(Error::new(ErrorKind::InvalidUtf8, "enough")),
        _ => panic!("called again"),
    };
    let panics = |_: &[u32], _: &[u32], _: &mut [f32]| -> Result<()> { panic!("in a test") };
    let error = model.generate("Once", &options.clone().logits_processor(SharedProcessor::new(refuses)));
    assert_eq!(error.unwrap_err().message(), "enough");
    let error = model.generate("Once", &options.clone().logits_processor(SharedProcessor::new(panics)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(other.finish().unwrap(), expected);
}
