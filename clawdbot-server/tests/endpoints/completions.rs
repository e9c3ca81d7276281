//! `POST /v1/completions`

use serde_json::{Value, json};

use crate::support::{app, events, json, model, post};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn prompts_and_choices_are_in_order() {
    let app = app();
    let body = |stream: bool| json!({"prompt": ["Once upon", "The sea"], "n": 2, "seed": 3, "temperature": 1, "max_tokens": 6, "ignore_eos": true, "stream": stream});
    let whole = json(post(&app, PATH, &body(false)).await, 200).await;
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(whole["usage"]["completion_tokens"], 24);
    let chunks = events(post(&app, PATH, &body(true)).await).await;
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(index), &json!("length")));
        let of = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let text: String = of.map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(choice["text"], text);
    }
    // OpenAI's default.
    let short = json(post(&app, PATH, &json!({"prompt": "Once", "ignore_eos": true})).await, 200).await;
    assert_eq!(short["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn echoes_score_the_prompt() {
    let app = app();
    let body = json!({"prompt": "Once upon a time", "echo": true, "max_tokens": 0, "logprobs": 1});
    let found = json(post(&app, PATH, &body).await, 200).await;
    let choice = &found["choices"][0];
    assert_eq!(
        (&choice["text"], &found["usage"]["completion_tokens"]),
        (&json!("Once upon a time"), &json!(0))
    );
    let values = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(values[0], Value::Null);
    assert_eq!(values.len(), choice["logprobs"]["tokens"].as_array().unwrap().len());
    assert_eq!(values.len(), choice["logprobs"]["text_offset"].as_array().unwrap().len());
    // What the core gives for the same tokens.
    let model = model();
    let ids = model.tokenizer().unwrap().encode("Once upon a time", true.into()).unwrap();
    let scored = model.score(ids[..1].to_vec(), &[ids[1..].to_vec().into()]);
    let expected: Vec<f32> = scored.unwrap()[0].logprobs.clone();
    let values: Vec<f32> = values[1..].iter().map(|value| value.as_f64().unwrap() as f32).collect();
    assert_eq!(values, expected);

    let both = json!({"prompt": ids, "echo": true, "max_tokens": 3, "logprobs": 0, "temperature": 0});
    let found = json(post(&app, PATH, &both).await, 200).await;
    let tokens = found["choices"][0]["logprobs"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), ids.len() + 3);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = app();
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, "a"]}), "prompt"),
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of"),
        (json!({"prompt": "a", "echo": true, "logprobs": 1, "stream": true}), "logprobs"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
    ] {
        let found = json(post(&app, PATH, &body).await, 400).await;
        assert_eq!(found["error"]["param"], param, "{found}");
    }
}
