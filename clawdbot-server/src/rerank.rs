//! `POST /v1/rerank` and `POST /v1/score`: how well documents answer a query.

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{CancelHandle, EmbedOptions, Error, Model, Prompt, RerankOptions};
use serde_json::{Value, json};

use crate::body::{Body, missing};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::{Field, Kind, OPENAI_IDLE, idle, read};
use crate::ids;

/// Fields of `/v1/rerank` besides the core's options.
const RERANK: &[Field] = &[
    read("model", Kind::Text),
    read("query", Kind::Text),
    read("documents", Kind::List),
    read("top_n", Kind::Whole),
    read("return_documents", Kind::Bool),
    idle("user", Kind::Text),
];

/// Fields of `/v1/score` besides the core's options.
const SCORE: &[Field] = &[read("model", Kind::Text), read("text_1", Kind::Any), read("text_2", Kind::Any)];

/// Most pairs of a request.
const MAX_PAIRS: usize = 2048;

/// `POST /v1/rerank`
pub(crate) async fn rerank(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) = Body::read::<RerankOptions>(&bytes, &[RERANK], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let query = body.text("query")?.ok_or_else(|| missing("query", "a text"))?;
    let documents = body.take("documents").ok_or_else(|| missing("documents", "a list of texts"))?;
    let documents = texts("documents", &documents)?;
    let most = body.whole("top_n")?;
    let with_documents = body.take("return_documents").is_none_or(|with| with == true);
    let options: RerankOptions = body.options()?;
    let kept = documents.clone();
    let scores = app
        .with_model(&name, move |model, cancel| scored(model, &query, &documents, &options, cancel))
        .await?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Documents that are equally good stay in their order.
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX)));
    let results = order.into_iter().map(|index| {
        let mut result = json!({"index": index, "relevance_score": scores[index]});
        if with_documents {
            result["document"] = json!({"text": kept[index]});
        }
        result
    });
    let results: Vec<Value> = results.collect();
    let answer = json!({"id": ids::id("rerank-"), "model": name, "results": results});
    Ok(ignored.told_in(Json(answer).into_response()))
}

/// `POST /v1/score`: a score for each pair, by a reranker, or by the cosine of vectors.
pub(crate) async fn score(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) =
        Body::read::<RerankOptions>(&bytes, &[SCORE, OPENAI_IDLE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let one = body.take("text_1").ok_or_else(|| missing("text_1", "a text or a list of texts"))?;
    let other = body.take("text_2").ok_or_else(|| missing("text_2", "a text or a list of texts"))?;
    let (mut one, other) = (texts("text_1", &one)?, texts("text_2", &other)?);
    if one.len() == 1 {
        one = vec![one.remove(0); other.len()];
    }
    if one.len() != other.len() {
        let message = format!(
            "field text_1: expected one text, or as many as text_2 has ({}), found {}",
            other.len(),
            one.len()
        );
        return Err(Fault::invalid(message).at("text_1"));
    }
    let options: RerankOptions = body.options()?;
    let scores = app.with_model(&name, move |model, cancel| {
        if model.info().plan.tasks.contains(&"rerank") {
            return pairs(model, &one, &other, &options, cancel);
        }
        cosines(model, one, other, cancel)
    });
    let scores = scores.await?;
    let data: Vec<Value> = scores
        .iter()
        .enumerate()
        .map(|(index, score)| json!({"index": index, "object": "score", "score": score}))
        .collect();
    let answer = json!({
        "id": ids::id("score-"), "object": "list", "created": ids::now(), "model": name, "data": data,
    });
    Ok(ignored.told_in(Json(answer).into_response()))
}

/// A text, or a list of texts or of objects with one.
fn texts(name: &str, value: &Value) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::field(name, "texts, at least one", value);
    let one = |value: &Value| value.as_str().or_else(|| value.get("text")?.as_str()).map(str::to_owned);
    let list = match value {
        Value::Array(list) => list.iter().map(one).collect::<Option<Vec<_>>>(),
        other => one(other).map(|text| vec![text]),
    };
    let list = list.filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    if list.len() > MAX_PAIRS {
        let message = format!("field {name}: expected at most {MAX_PAIRS} texts, found {}", list.len());
        return Err(Fault::invalid(message).at(name));
    }
    Ok(list)
}

fn scored(
    model: &Model,
    query: &str,
    documents: &[String],
    options: &RerankOptions,
    cancel: &CancelHandle,
) -> Result<Vec<f32>, Error> {
    let documents = documents.iter().map(Ok::<_, Error>);
    let go_on = |_| std::ops::ControlFlow::Continue(());
    let found = model.rerank_each(query, documents, options, cancel, go_on)?;
    found.faults.into_result().map(|()| found.scores)
}

/// Scores of pairs: those with the same first text together.
fn pairs(
    model: &Model,
    one: &[String],
    other: &[String],
    options: &RerankOptions,
    cancel: &CancelHandle,
) -> Result<Vec<f32>, Error> {
    let mut scores = Vec::new();
    while scores.len() < one.len() {
        let from = scores.len();
        let same = one[from..].iter().take_while(|text| **text == one[from]).count();
        scores.extend(scored(model, &one[from], &other[from..from + same], options, cancel)?);
    }
    Ok(scores)
}

/// The cosines between the vectors of texts.
fn cosines(
    model: &Model,
    one: Vec<String>,
    other: Vec<String>,
    cancel: &CancelHandle,
) -> Result<Vec<f32>, Error> {
    let count = one.len();
    let texts: Vec<_> = one.into_iter().chain(other).map(|text| Ok::<_, Error>(Prompt::Text(text))).collect();
    let options = EmbedOptions::default().normalize(true);
    let go_on = |_| std::ops::ControlFlow::Continue(());
    let found = model.embed_each(texts.into_iter(), &options, cancel, go_on)?;
    found.faults.into_result()?;
    let rows: Vec<&[f32]> = found.embeddings.rows().collect();
    let (one, other) = rows.split_at(count);
    let cosine = |(a, b): (&&[f32], &&[f32])| a.iter().zip(*b).map(|(a, b)| a * b).sum();
    Ok(one.iter().zip(other).map(cosine).collect())
}
