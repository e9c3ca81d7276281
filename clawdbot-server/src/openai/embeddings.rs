//! `POST /v1/embeddings`

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawdbot_core::{EmbedOptions, Prompt};
use serde_json::{Value, json};

use crate::body::{Body, missing};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::{Field, Kind, OPENAI_IDLE, read};
use crate::prompt::prompts;

/// Fields besides the core's options.
const FIELDS: &[Field] =
    &[read("model", Kind::Text), read("input", Kind::Any), read("encoding_format", Kind::Text)];

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// A list of numbers.
    Float,
    /// Their bytes, little-endian f32, in base64: what OpenAI's clients ask for.
    Base64,
}

impl Encoding {
    fn of(name: Option<String>) -> Result<Self, Fault> {
        match name.as_deref() {
            None | Some("float") => Ok(Encoding::Float),
            Some("base64") => Ok(Encoding::Base64),
            Some(other) => Err(Fault::field("encoding_format", "float or base64", &other.into())),
        }
    }

    fn write(self, vector: &[f32]) -> Value {
        match self {
            Encoding::Float => vector.into(),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                STANDARD.encode(bytes).into()
            }
        }
    }
}

/// `POST /v1/embeddings`
pub(crate) async fn embed(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) =
        Body::read::<EmbedOptions>(&bytes, &[FIELDS, OPENAI_IDLE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let encoding = Encoding::of(body.text("encoding_format")?)?;
    let input =
        body.take("input").ok_or_else(|| missing("input", "a text or token ids, or a list of either"))?;
    let texts: Vec<Prompt> = prompts("input", &input)?;
    let options: EmbedOptions = body.options()?;
    let found = app.with_model(&name, move |model, cancel| {
        let texts = texts.into_iter().map(Ok::<_, clawdbot_core::Error>);
        let go_on = |_| std::ops::ControlFlow::Continue(());
        let found = model.embed_each(texts, &options, cancel, go_on)?;
        found.faults.into_result().map(|()| found.embeddings)
    });
    let found = found.await?;
    app.holder().used(found.tokens);
    let data: Vec<Value> = found
        .rows()
        .enumerate()
        .map(|(index, row)| json!({"object": "embedding", "index": index, "embedding": encoding.write(row)}))
        .collect();
    let usage = json!({"prompt_tokens": found.tokens, "total_tokens": found.tokens});
    let answer = json!({"object": "list", "data": data, "model": name, "usage": usage});
    Ok(ignored.told_in(Json(answer).into_response()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_two_forms() {
        let vector = [1.0, -0.5];
        assert_eq!(Encoding::of(None).expect("one").write(&vector), json!([1.0, -0.5]));
        assert_eq!(Encoding::of(Some("base64".into())).expect("one").write(&vector), json!("AACAPwAAAL8="));
        assert_eq!(
            Encoding::of(Some("int8".into())).expect_err("refused").param.as_deref(),
            Some("encoding_format")
        );
    }
}
