//! How sentence-transformers directories turn texts into vectors: `modules.json` with the modules' configurations,
//! `config_sentence_transformers.json` (prompts), `sentence_bert_config.json` (lengths).
//! Source: sentence-transformers 6, `base/modules/*.py`, `sentence_transformer/modules/pooling.py`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::ModelConfig;
use super::{Activation, DecoderSpec, DenseSpec};
use crate::error::{Error, Result};
use crate::json;
pub(crate) use crate::options::Pooling;
use crate::weights::model_files::ModelFiles;
use crate::weights::quoted;

const MODULES: &str = "modules.json";
/// Most modules of a model.
const MAX_MODULES: usize = 64;

/// Settings from the files that describe an embedding model.
#[derive(Debug, Clone, Default)]
pub(crate) struct EmbeddingConfig {
    /// `None` if not given.
    pub(crate) pooling: Option<Pooling>,
    /// Whether the tokens of a prompt are pooled too.
    pub(crate) include_prompt: bool,
    pub(crate) normalize: bool,
    /// Prompts by name.
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt_name: Option<String>,
    /// Most tokens of a text.
    pub(crate) max_tokens: Option<usize>,
    /// Whether texts are lower-cased.
    pub(crate) lowercase: bool,
    /// Whether scores are probabilities instead of logits.
    pub(crate) sigmoid: Option<bool>,
    /// Folders of modules with weights.
    pub(crate) folders: Vec<String>,
    /// The files of the modules.
    pub(crate) files: Vec<String>,
    /// Dense layers after pooling.
    dense: Vec<DenseSpec>,
}

/// Pooling modes: current name, former key, mode.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls", "pooling_mode_cls_token", Pooling::Cls),
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    ("max", "pooling_mode_max_tokens", Pooling::Max),
    ("lasttoken", "pooling_mode_lasttoken", Pooling::Last),
    ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
];

impl EmbeddingConfig {
    /// Reads the files that exist, in addition to the model's own `config`.
    ///
    /// # Errors
    /// `InvalidModel` for malformed files; `UnsupportedModel` for unknown modules and settings.
    pub(crate) fn read(files: &ModelFiles, config: &ModelConfig, hidden_size: usize) -> Result<Self> {
        let mut found = EmbeddingConfig { include_prompt: true, ..EmbeddingConfig::default() };
        for Module { kind, folder } in modules(files)? {
            found.module(files, &kind, &folder, hidden_size)?;
        }
        if let Some(settings) = optional(files, "sentence_bert_config.json")? {
            found.max_tokens = settings.opt_usize("max_seq_length")?;
            found.lowercase = settings.bool_or("do_lower_case", false)?;
        }
        let mut activation = config.opt_str("sbert_ce_default_activation_function")?.map(str::to_owned);
        if let Some(nested) = config.object("sentence_transformers")? {
            activation = nested.opt_str("activation_fn")?.map(str::to_owned).or(activation);
        }
        if let Some(settings) = optional(files, "config_sentence_transformers.json")? {
            found.prompts = prompts(&settings)?;
            found.default_prompt_name = settings.opt_str("default_prompt_name")?.map(str::to_owned);
            if let Some(name) = found.default_prompt_name.as_ref()
                && !found.prompts.contains_key(name)
            {
                return Err(settings.invalid("default_prompt_name", "the name of one of the prompts"));
            }
            activation = settings.opt_str("activation_fn")?.map(str::to_owned).or(activation);
        }
        found.sigmoid = match activation.as_deref().map(last_part) {
            None => None,
            Some("Sigmoid") => Some(true),
            Some("Identity") => Some(false),
            Some(other) => {
                let message = format!("activation of scores: expected Sigmoid or Identity, found {other:?}");
                return Err(Error::unsupported_model(format!("{}: {message}", config.file())));
            }
        };
        Ok(found)
    }

    fn module(&mut self, files: &ModelFiles, kind: &str, path: &str, hidden_size: usize) -> Result<()> {
        let misplaced = |expected: &str| {
            let message = format!("{}: {kind}: expected {expected}", files.path(MODULES));
            Err(Error::unsupported_model(message))
        };
        match kind {
            "Transformer" if path.is_empty() => return Ok(()),
            "Transformer" => return misplaced("its files in the directory itself"),
            _ if self.normalize => return misplaced("nothing after Normalize"),
            "Normalize" => {
                self.normalize = true;
                return Ok(());
            }
            _ => {}
        }
        if path.is_empty() {
            return misplaced("a folder of its own");
        }
        let name = format!("{path}/config.json");
        let config = ModelConfig::open(files, &name)?;
        self.files.push(name);
        match kind {
            "Pooling" if self.pooling.is_some() => misplaced("one pooling"),
            "Pooling" => {
                self.pooling = Some(pooling(&config)?);
                self.include_prompt = config.bool_or("include_prompt", true)?;
                for key in ["embedding_dimension", "word_embedding_dimension"] {
                    let size = config.opt_usize(key)?;
                    if size.is_some_and(|size| size != hidden_size) {
                        return Err(config.invalid(key, &format!("{hidden_size}, the model's hidden_size")));
                    }
                }
                Ok(())
            }
            "Dense" if self.pooling.is_none() => misplaced("it after the pooling"),
            "Dense" => {
                self.dense.push(dense(&config, path)?);
                self.folders.push(path.to_owned());
                Ok(())
            }
            _ => misplaced("Transformer, Pooling, Dense or Normalize"),
        }
    }

    /// Most tokens of a text if a sequence may have `max_context`.
    pub(crate) fn most_tokens(&self, max_context: usize) -> usize {
        self.max_tokens.map_or(max_context, |most| most.min(max_context))
    }

    /// Adds the modules' layers to `spec`.
    ///
    /// # Errors
    /// `UnsupportedModel` if the model itself has layers after its pooling.
    pub(crate) fn extend(&self, spec: &mut DecoderSpec) -> Result<()> {
        if spec.scores.is_some() && !self.dense.is_empty() {
            return Err(Error::unsupported_model(
                "modules.json: expected no Dense modules for a model that gives scores",
            ));
        }
        spec.dense_head.extend(self.dense.iter().cloned());
        // Such a directory is made for vectors: unless the output head is tied to the embedding, it is missing.
        spec.headless |= self.pooling.is_some() && !spec.tie_word_embeddings;
        Ok(())
    }
}

/// A module of a sentence-transformers directory.
struct Module {
    kind: String,
    folder: String,
}

/// The modules in `modules.json`; none without that file.
fn modules(files: &ModelFiles) -> Result<Vec<Module>> {
    let Some(json) = files.get(MODULES)? else { return Ok(Vec::new()) };
    let invalid = |what: &dyn std::fmt::Display| {
        Error::invalid_model(format!("{}: {what}", files.path(MODULES))).with("file", files.path(MODULES))
    };
    let list = match json::value(&json).map_err(|error| invalid(&error))? {
        Value::Array(list) => list,
        _ => return Err(invalid(&"expected a list of modules")),
    };
    if list.len() > MAX_MODULES {
        return Err(invalid(&format_args!("expected at most {MAX_MODULES} modules, found {}", list.len())));
    }
    let mut modules = Vec::new();
    for module in &list {
        let text = |key: &str| {
            let text = module.get(key).and_then(Value::as_str);
            text.ok_or_else(|| invalid(&format_args!("expected a string {key} in each module")))
        };
        let (kind, path) = (text("type")?, text("path")?);
        if !kind.starts_with("sentence_transformers.") {
            let message = format!(
                "{}: type: expected a module of sentence_transformers, found {}",
                files.path(MODULES),
                quoted(kind)
            );
            return Err(Error::unsupported_model(message));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !path.chars().all(plain) || path == "." || path == ".." {
            return Err(invalid(&format_args!("path: expected a plain folder name, found {}", quoted(path))));
        }
        modules.push(Module { kind: last_part(kind).to_owned(), folder: path.to_owned() });
    }
    Ok(modules)
}

fn optional(files: &ModelFiles, name: &str) -> Result<Option<ModelConfig>> {
    files.get(name)?.map(|json| ModelConfig::parse(&json, &files.path(name))).transpose()
}

/// The last part of a dotted name.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn prompts(config: &ModelConfig) -> Result<BTreeMap<String, String>> {
    let Some(object) = config.object("prompts")? else { return Ok(BTreeMap::new()) };
    let text = |name: &str| Ok((name.to_owned(), object.opt_str(name)?.unwrap_or_default().to_owned()));
    object.keys().map(text).collect()
}

fn pooling(config: &ModelConfig) -> Result<Pooling> {
    const KEY: &str = "pooling_mode";
    let one = || format!("one of {}", MODES.map(|(mode, ..)| mode).join(", "));
    if config.has(KEY) {
        let name = match config.get(KEY) {
            Some(Value::Array(modes)) if modes.len() == 1 => modes[0].as_str(),
            Some(Value::String(mode)) => Some(mode.as_str()),
            _ => None,
        };
        let known = MODES.iter().find(|(mode, ..)| Some(*mode) == name);
        return known.map(|&(_, _, pooling)| pooling).ok_or_else(|| config.unsupported(KEY, &one()));
    }
    let mut found = Vec::new();
    for (_, key, pooling) in MODES {
        if config.bool_or(key, false)? {
            found.push(pooling);
        }
    }
    match found.as_slice() {
        // The default of sentence-transformers.
        [] => Ok(Pooling::Mean),
        [pooling] => Ok(*pooling),
        _ => Err(Error::unsupported_model(format!(
            "{}: expected one pooling mode, found {}",
            config.file(),
            found.iter().map(|pooling| pooling.name()).collect::<Vec<_>>().join(" and ")
        ))),
    }
}

fn dense(config: &ModelConfig, path: &str) -> Result<DenseSpec> {
    const INPUT: &str = "sentence_embedding";
    if config.bool_or("use_residual", false)? {
        return Err(config.unsupported("use_residual", "false"));
    }
    for key in ["module_input_name", "module_output_name"] {
        if config.opt_str(key)?.is_some_and(|name| name != INPUT) {
            return Err(config.unsupported(key, INPUT));
        }
    }
    const ACTIVATION: &str = "activation_function";
    let activation = match config.opt_str(ACTIVATION)?.map(last_part) {
        None | Some("Tanh") => Some(Activation::Tanh),
        Some("Identity") => None,
        Some("ReLU") => Some(Activation::Relu),
        Some("GELU") => Some(Activation::Gelu),
        Some("SiLU") => Some(Activation::Silu),
        Some(_) => return Err(config.unsupported(ACTIVATION, "Identity, Tanh, ReLU, GELU or SiLU")),
    };
    Ok(DenseSpec {
        module: format!("{path}.linear"),
        inputs: config.usize("in_features")?,
        outputs: config.usize("out_features")?,
        bias: config.bool_or("bias", true)?,
        activation,
        norm: None,
    })
}
