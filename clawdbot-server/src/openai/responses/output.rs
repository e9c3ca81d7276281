//! The items of an answer, and what a stream tells of them while they are written.

use clawdbot_core::{Completion, Event, FinishReason, Tokenizer};
use serde_json::{Map, Value, json};

use super::item::{Item, Status, Written};
use crate::openai::logprobs::of_chat;

/// What a stream is told: the name of an event, and its fields.
pub(super) type Told = (&'static str, Map<String, Value>);

/// The items of an answer.
#[derive(Default)]
pub(super) struct Output {
    /// What ids of items have of that of the response.
    stem: String,
    /// For log-probabilities.
    tokenizer: Option<Tokenizer>,
    /// Whether what is told of calls while they are written is certain.
    enforced: bool,
    items: Vec<Item>,
    /// The text that is written to.
    open: Option<usize>,
    /// Log-probabilities of tokens whose text is not certain yet.
    pending: Vec<Value>,
    /// Whether the next token is one of the reasoning.
    reasons: bool,
    tokens: usize,
    reasoning_tokens: usize,
    /// Why it is not complete, at the end.
    incomplete: bool,
    told: Vec<Told>,
}

impl Output {
    pub(super) fn new(stem: &str, tokenizer: Option<Tokenizer>, enforced: bool) -> Self {
        Output { stem: stem.to_owned(), tokenizer, enforced, ..Output::default() }
    }

    /// What happened since the last call.
    pub(super) fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The items as they are now.
    pub(super) fn json(&self) -> Value {
        self.items.iter().map(Item::json).collect()
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    pub(super) fn reasoning_tokens(&self) -> usize {
        self.reasoning_tokens
    }

    /// Takes an event. At the last one, returns the completion.
    pub(super) fn event(&mut self, event: Event) -> Option<Box<Completion>> {
        match event {
            Event::Reasoning { text } => {
                self.reasons = true;
                self.write(Written::Reasoning, &text, Vec::new());
            }
            Event::Token { text, logprobs, .. } => {
                self.tokens += 1;
                if std::mem::take(&mut self.reasons) {
                    self.reasoning_tokens = self.tokens;
                    self.pending.clear();
                }
                let entry = logprobs.zip(self.tokenizer.as_ref());
                let entry = entry.map(|(logprobs, tokenizer)| of_chat(tokenizer, &logprobs));
                if self.reasoning_tokens < self.tokens {
                    self.pending.extend(entry);
                }
                if !text.is_empty() {
                    let logprobs = std::mem::take(&mut self.pending);
                    self.write(Written::Message, &text, logprobs);
                }
            }
            Event::ToolCallDelta(delta) if self.enforced => {
                let at = self.call(delta.index, delta.id.as_deref(), delta.name.as_deref());
                self.append(at, &delta.arguments, Vec::new());
            }
            Event::ToolCall(call) => {
                let at = self.call(call.index, Some(&call.id), Some(&call.name));
                let written = self.items.get(at).map_or(0, |item| item.text.len());
                self.append(at, call.arguments.get(written..).unwrap_or_default(), Vec::new());
                self.end(at, Status::Completed);
            }
            Event::Done(completion) => {
                self.finish(&completion);
                return Some(completion);
            }
            _ => {}
        }
        None
    }

    /// Takes a completion that came without events.
    pub(super) fn whole(&mut self, completion: &Completion) {
        if !completion.reasoning.is_empty() {
            self.write(Written::Reasoning, &completion.reasoning, Vec::new());
            let encoded = self.tokenizer.as_ref().map(|one| one.encode(&completion.reasoning, false.into()));
            self.reasoning_tokens = encoded.and_then(Result::ok).map_or(0, |tokens| tokens.len());
        }
        if !completion.text.is_empty() {
            let of = completion.logprobs.as_deref().unwrap_or_default();
            let entries = of.iter().zip(std::iter::repeat(self.tokenizer.as_ref()));
            let entries = entries.filter_map(|(one, tokenizer)| Some(of_chat(tokenizer?, one)));
            let logprobs = entries.collect();
            self.write(Written::Message, &completion.text, logprobs);
        }
        for call in &completion.tool_calls {
            self.event(Event::ToolCall(call.clone()));
        }
        self.finish(completion);
    }

    /// Ends all items.
    fn finish(&mut self, completion: &Completion) {
        // Text of a call that was cut off comes with the completion alone.
        let mut told = completion.text.as_str();
        for item in self.items.iter().filter(|item| item.written == Written::Message) {
            told = told.strip_prefix(item.text.as_str()).unwrap_or_default();
        }
        if !told.is_empty() {
            self.write(Written::Message, told, Vec::new());
        }
        if self.items.is_empty() {
            self.add(Written::Message);
        }
        self.incomplete = completion.finish_reason != FinishReason::Stop;
        for at in 0..self.items.len() {
            let item = self.items.get(at).filter(|item| item.status == Status::InProgress);
            let Some(item) = item else { continue };
            // A call that was begun and is none.
            self.incomplete |= item.is_call();
            self.end(at, if self.incomplete { Status::Incomplete } else { Status::Completed });
        }
    }

    /// Writes text of the reasoning or of the answer.
    fn write(&mut self, written: Written, text: &str, logprobs: Vec<Value>) {
        let open = self.open.filter(|&at| self.items.get(at).is_some_and(|item| item.written == written));
        let at = open.unwrap_or_else(|| self.add(written));
        self.append(at, text, logprobs);
    }

    /// The place of the call with this index, which begins if there is none.
    fn call(&mut self, index: usize, id: Option<&str>, name: Option<&str>) -> usize {
        self.pending.clear();
        let has = |item: &Item| matches!(&item.written, Written::Call { index: of, .. } if *of == index);
        self.items.iter().position(has).unwrap_or_else(|| {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            self.add(Written::Call { index, call_id: text(id), name: text(name) })
        })
    }

    /// Begins an item. The text before it is complete.
    fn add(&mut self, written: Written) -> usize {
        if let Some(open) = self.open.take() {
            self.end(open, Status::Completed);
        }
        let at = self.items.len();
        let item = Item::new(&self.stem, at, written);
        self.open = (!item.is_call()).then_some(at);
        tell(&mut self.told, "response.output_item.added", at, None, json!({"item": item.begun()}));
        if let Some(part) = item.part("", &[]) {
            tell(&mut self.told, "response.content_part.added", at, Some(&item), json!({"part": part}));
        }
        self.items.push(item);
        at
    }

    fn append(&mut self, at: usize, text: &str, logprobs: Vec<Value>) {
        let Some(item) = self.items.get_mut(at).filter(|_| !text.is_empty()) else { return };
        item.text.push_str(text);
        let mut fields = json!({"delta": text});
        if item.written == Written::Message {
            item.logprobs.extend_from_slice(&logprobs);
            fields["logprobs"] = logprobs.into();
        }
        tell(&mut self.told, item.delta_event(), at, Some(item), fields);
    }

    /// Ends an item.
    fn end(&mut self, at: usize, status: Status) {
        let Some(item) = self.items.get_mut(at) else { return };
        item.status = status;
        let fields = match &item.written {
            Written::Reasoning => json!({"text": item.text}),
            Written::Message => json!({"text": item.text, "logprobs": item.logprobs}),
            Written::Call { name, .. } => json!({"name": name, "arguments": item.text}),
        };
        tell(&mut self.told, item.done_event(), at, Some(item), fields);
        if let Some(part) = item.part(&item.text, &item.logprobs) {
            tell(&mut self.told, "response.content_part.done", at, Some(item), json!({"part": part}));
        }
        tell(&mut self.told, "response.output_item.done", at, None, json!({"item": item.json()}));
    }
}

/// Tells of the item at `at`, or of what is within `item`.
fn tell(told: &mut Vec<Told>, name: &'static str, at: usize, item: Option<&Item>, fields: Value) {
    let mut all = Map::new();
    all.insert("output_index".into(), at.into());
    if let Some(item) = item {
        all.insert("item_id".into(), item.id.as_str().into());
        if !item.is_call() {
            all.insert("content_index".into(), 0.into());
        }
    }
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    told.push((name, all));
}
