//! Embeddings, scores and tokens.

use clawdbot_core::{EmbedOptions, Model, ModelOptions, RerankOptions, WeightType};
use serde_json::{Value, json};

use crate::support::{app, app_of, json, model, post};

/// The model of [`app_of`], without a server.
fn alone(directory: &str) -> Model {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests").join(directory);
    let options = ModelOptions::default().weights(WeightType::F32);
    let runtime = clawdbot_core::Runtime::new(&Default::default()).unwrap();
    runtime.load(&path.as_path().into(), &options).unwrap()
}

#[tokio::test]
async fn vectors_are_the_cores() {
    let app = app_of("golden/embeddings/bert");
    let body = json!({"model": "model", "input": ["a text", "another"], "user": "u"});
    let found = json(post(&app, "/v1/embeddings", &body).await, 200).await;
    let expected = alone("golden/embeddings/bert");
    let expected = expected.embed(vec!["a text".into(), "another".into()], &EmbedOptions::default()).unwrap();
    assert_eq!(found["usage"]["total_tokens"], expected.tokens);
    for (index, row) in expected.rows().enumerate() {
        let found: Vec<f32> = serde_json::from_value(found["data"][index]["embedding"].clone()).unwrap();
        assert_eq!(found, row);
    }

    let body = json!({"input": "a text", "encoding_format": "base64", "dimensions": 4});
    let found = json(post(&app, "/v1/embeddings", &body).await, 200).await;
    // 16 bytes.
    assert_eq!(found["data"][0]["embedding"].as_str().unwrap().len(), 24);

    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"input": "a", "dimensions": 100_000}), "dimensions"),
        (json!({"input": "a", "temperature": 1}), "temperature"),
    ] {
        let found = json(post(&app, "/v1/embeddings", &body).await, 400).await;
        assert_eq!(found["error"]["param"], param, "{found}");
    }
}

#[tokio::test]
async fn documents_come_in_order() {
    let app = app_of("golden/embeddings/bert_score");
    let documents = ["one", "the other", "a third one"];
    let body = json!({"query": "which", "documents": documents, "top_n": 2});
    let found = json(post(&app, "/v1/rerank", &body).await, 200).await;
    let model = alone("golden/embeddings/bert_score");
    let scores = model.rerank("which", &documents, &RerankOptions::default()).unwrap();
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = usize::try_from(result["index"].as_u64().unwrap()).unwrap();
        assert_eq!(result["relevance_score"].as_f64().unwrap() as f32, scores[index]);
        assert_eq!(result["document"]["text"], documents[index]);
    }
    assert!(results[0]["relevance_score"].as_f64() >= results[1]["relevance_score"].as_f64());

    let body = json!({"text_1": "which", "text_2": documents});
    let found = json(post(&app, "/v1/score", &body).await, 200).await;
    let found: Vec<f32> =
        (0..3).map(|index| found["data"][index]["score"].as_f64().unwrap() as f32).collect();
    assert_eq!(found, scores);
    let uneven = json!({"text_1": ["a", "b"], "text_2": documents});
    assert_eq!(json(post(&app, "/v1/score", &uneven).await, 400).await["error"]["param"], "text_1");
}

#[tokio::test]
async fn vectors_give_scores_of_pairs() {
    let app = app_of("golden/embeddings/bert");
    let body = json!({"text_1": ["a text", "a text"], "text_2": ["a text", "something else"]});
    let found = json(post(&app, "/v1/score", &body).await, 200).await;
    let score = |index: usize| found["data"][index]["score"].as_f64().unwrap();
    assert!((score(0) - 1.0).abs() < 1e-5 && score(1) < score(0), "{found}");
}

#[tokio::test]
async fn tokens_and_texts_go_both_ways() {
    let app = app();
    let found = json(post(&app, "/tokenize", &json!({"prompt": "Once upon"})).await, 200).await;
    let expected = model().tokenizer().unwrap().encode("Once upon", true.into()).unwrap();
    assert_eq!((&found["tokens"], &found["count"]), (&json!(expected), &json!(expected.len())));
    let plain = json!({"prompt": "Once upon", "add_special_tokens": false, "return_token_strs": true});
    let plain = json(post(&app, "/tokenize", &plain).await, 200).await;
    assert_eq!(plain["token_strs"].as_array().unwrap().len(), plain["tokens"].as_array().unwrap().len());
    let text = json(post(&app, "/detokenize", &json!({"tokens": plain["tokens"]})).await, 200).await;
    assert_eq!(text["prompt"], "Once upon");
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let chat = json(post(&app, "/tokenize", &chat).await, 200).await;
    let text = json(post(&app, "/detokenize", &json!({"tokens": chat["tokens"]})).await, 200).await;
    assert_eq!(text["prompt"], "user: Hi\nassistant: ");
    for (path, body, param) in [
        ("/tokenize", json!({}), json!("prompt")),
        ("/tokenize", json!({"prompt": "a", "temperature": 1}), json!("temperature")),
        ("/detokenize", json!({}), json!("tokens")),
        ("/detokenize", json!({"tokens": ["a"]}), json!("tokens")),
        ("/detokenize", json!({"tokens": [4_000_000_000_u32]}), Value::Null),
    ] {
        let found = json(post(&app, path, &body).await, 400).await;
        assert!(param.is_null() || found["error"]["param"] == param, "{found}");
    }
}
