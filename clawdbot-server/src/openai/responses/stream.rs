//! Events of `POST /v1/responses` with `stream`.

use axum::response::sse::Event as Sent;
use clawdbot_core::Event;
use serde_json::{Map, Value, json};

use super::output::{Output, Told};
use super::record::{Record, error_code};
use crate::answers::no_end;
use crate::caller::Caller;
use crate::fault::Fault;
use crate::sse::Teller;

/// Tells a response in events.
pub(super) struct Events {
    /// Whose store keeps the response.
    app: Caller,
    record: Record,
    output: Output,
    /// The number of the next event.
    sequence: u64,
    ended: bool,
}

impl Events {
    pub(super) fn new(app: Caller, record: Record, output: Output) -> Self {
        Events { app, record, output, sequence: 0, ended: false }
    }

    fn sent(&mut self, name: &'static str, fields: Map<String, Value>) -> Sent {
        let mut all = Map::new();
        all.insert("type".into(), name.into());
        all.insert("sequence_number".into(), self.sequence.into());
        all.extend(fields);
        self.sequence += 1;
        Sent::default().event(name).data(Value::Object(all).to_string())
    }

    fn response(&mut self, name: &'static str, response: Value) -> Sent {
        self.sent(name, Map::from_iter([("response".to_owned(), response)]))
    }

    fn done() -> Sent {
        Sent::default().data("[DONE]")
    }
}

impl Teller for Events {
    fn begin(&mut self) -> Vec<Sent> {
        let names = ["response.created", "response.in_progress"];
        names.map(|name| self.response(name, self.record.begun())).into()
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<Sent> {
        let completion = self.output.event(event);
        let told: Vec<Told> = self.output.told();
        let mut sent: Vec<Sent> = told.into_iter().map(|(name, fields)| self.sent(name, fields)).collect();
        if let Some(completion) = completion {
            self.ended = true;
            // Kept before the client knows its end: the next request may follow at once.
            let response = self.record.ended(&self.output, &completion, self.app.responses());
            let incomplete = self.output.is_incomplete();
            let name = if incomplete { "response.incomplete" } else { "response.completed" };
            sent.push(self.response(name, response));
        }
        sent
    }

    fn end(&mut self) -> Vec<Sent> {
        match self.ended {
            true => vec![Self::done()],
            false => self.fault(&no_end().into()),
        }
    }

    fn fault(&mut self, fault: &Fault) -> Vec<Sent> {
        if self.ended {
            return vec![Self::done()];
        }
        let error = json!({"code": error_code(fault), "message": fault.message, "param": fault.param});
        let Value::Object(error) = error else { return Vec::new() };
        let failed = self.record.failed(&self.output, fault);
        vec![self.sent("error", error), self.response("response.failed", failed), Self::done()]
    }
}
