use crate::Result;
use std::path::Path;
#[derive(Clone, Debug)]
pub struct Tokenizer;
impl Tokenizer {
    pub fn from_file(_: &Path) -> Result<Self> {
        Ok(Tokenizer)
    }
    pub fn from_bytes(_: &[u8]) -> Result<Self> {
        Ok(Tokenizer)
    }
    pub fn vocab_size(&self) -> usize {
        1
    }
    pub fn encode(&self, _: &str, _: bool) -> Result<Vec<u32>> {
        Ok(vec![])
    }
}
#[derive(Debug)]
pub struct StreamDecoder;
impl StreamDecoder {
    pub fn new(_: &Tokenizer, _: bool) -> Self {
        StreamDecoder
    }
    pub fn push(&mut self, _: u32) -> Result<String> {
        Ok(String::new())
    }
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
pub struct StopOutcome {
    pub emit: String,
    pub stopped: bool,
}
#[derive(Debug)]
pub struct StopMatcher;
impl StopMatcher {
    pub fn new(_: &[String]) -> Self {
        StopMatcher
    }
    pub fn push(&mut self, s: &str) -> StopOutcome {
        StopOutcome { emit: s.to_string(), stopped: false }
    }
    pub fn flush(&mut self) -> String {
        String::new()
    }
}
