//! `quantization_config` of `config.json`.

use serde_json::Value;

use super::floats::Fp4Kind;
use super::ints::{GptqArgs, IntArgs};
use super::scales::Block;
use crate::error::{Error, Result};
use crate::load::name_pattern::{Limit, NamePattern, Part};
use crate::spec::config::ModelConfig;
use crate::weights::{quoted, stored_names};

/// Methods that are read for every architecture, as in `quant_method`.
const METHODS: &str = "compressed-tensors, gptq, awq, fp8 or fbgemm_fp8";
/// Most groups, targets and ignored modules of a configuration.
const MAX_PATTERNS: usize = 100_000;

/// How a model's matrices are quantized.
#[derive(Debug)]
pub(crate) struct Quantization {
    pub(super) method: Method,
    /// Of compressed-tensors: what is quantized how, in the order of the file.
    groups: Vec<Group>,
    ignore: Vec<Pattern>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    CompressedTensors,
    Gptq(GptqArgs),
    Awq {
        /// Inputs that share a scale; none: all.
        group: Option<usize>,
    },
    Fp8 {
        /// Weights that share a scale; none: what the shape of the scales says.
        block: Option<Block>,
    },
}

#[derive(Debug)]
struct Group {
    targets: Vec<Pattern>,
    scheme: Scheme,
}

/// How the weights of a group of modules are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scheme {
    Int(IntArgs),
    Fp8 { block: Block },
    Fp4(Fp4Kind),
}

/// What modules are meant.
#[derive(Debug)]
enum Pattern {
    /// All of a class, such as `Linear`; or the one of this name.
    Name(String),
    /// Whose names begin with a match.
    Regex(NamePattern),
}

/// How closely a pattern fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Class,
    Regex,
    Name,
}

impl Pattern {
    fn parse(text: &str, config: &ModelConfig, key: &str, limit: &mut Limit) -> Result<Self> {
        let Some(pattern) = text.strip_prefix("re:") else { return Ok(Pattern::Name(text.to_owned())) };
        let pattern = NamePattern::parse(pattern, Part::Start, limit);
        pattern.map(Pattern::Regex).map_err(|expected| config.invalid(key, &expected))
    }

    /// How closely it fits `module`, under any of the names that it may have in checkpoints.
    ///
    /// # Errors
    /// `InvalidModel` for an expression that takes too long.
    fn fit(&self, names: &[String]) -> Result<Option<Fit>> {
        let mut best = None;
        for name in names {
            best = best.max(self.fit_name(name)?);
        }
        Ok(best)
    }

    fn fit_name(&self, module: &str) -> Result<Option<Fit>> {
        // Of the modules whose matrices are asked for, one kind is no linear layer.
        let class = if module.ends_with("embed_tokens") { "Embedding" } else { "Linear" };
        match self {
            Pattern::Name(name) if name == module => Ok(Some(Fit::Name)),
            Pattern::Name(name) if name == class => Ok(Some(Fit::Class)),
            Pattern::Name(_) => Ok(None),
            Pattern::Regex(pattern) => match pattern.matches(module) {
                Ok(found) => Ok(found.then_some(Fit::Regex)),
                Err(error) => Err(error.context("quantization_config")),
            },
        }
    }

    fn best(patterns: &[Pattern], names: &[String]) -> Result<Option<Fit>> {
        let mut best = None;
        for pattern in patterns {
            best = best.max(pattern.fit(names)?);
        }
        Ok(best)
    }
}

impl Quantization {
    /// What `config` says; `None` if nothing is quantized, or by one of the methods `own`, which the architecture reads
    /// itself.
    ///
    /// # Errors
    /// `UnsupportedModel` for methods, layouts and settings that are not read; `InvalidModel` for what is malformed.
    pub(crate) fn parse(config: &ModelConfig, own: &[&str]) -> Result<Option<Self>> {
        // The older key of compressed-tensors.
        for key in ["quantization_config", "compression_config"] {
            let Some(settings) = config.object(key)? else { continue };
            let method = settings.opt_str("quant_method")?;
            if method.is_some_and(|method| own.contains(&method)) {
                return Ok(None);
            }
            return Some(match method {
                Some("compressed-tensors") => Self::compressed_tensors(&settings),
                None if key == "compression_config" => Self::compressed_tensors(&settings),
                Some("gptq") => gptq(&settings).map(Self::of),
                Some("awq") => awq(&settings).map(Self::of),
                Some("fp8") => fp8(&settings).map(Self::of),
                Some("fbgemm_fp8") => Ok(Self::of(Method::Fp8 { block: None })),
                _ => Err(settings.unsupported("quant_method", METHODS)),
            })
            .transpose();
        }
        Ok(None)
    }

    fn of(method: Method) -> Self {
        Quantization { method, groups: Vec::new(), ignore: Vec::new() }
    }

    fn compressed_tensors(config: &ModelConfig) -> Result<Self> {
        if let Some(status) = config.opt_str("quantization_status")?
            // What is frozen has its codes too.
            && !matches!(status, "compressed" | "frozen")
        {
            return Err(config.unsupported("quantization_status", "compressed or frozen"));
        }
        if let Some(sparsity) = config.object("sparsity_config")?
            && sparsity.opt_str("format")?.is_some_and(|format| format != "dense")
        {
            return Err(sparsity.unsupported("format", "dense"));
        }
        if let Some(transform) = config.object("transform_config")?
            && transform.object("config_groups")?.is_some_and(|groups| !groups.is_empty())
        {
            return Err(transform.unsupported("config_groups", "no transforms"));
        }
        let format = config.opt_str("format")?;
        let groups = config.object("config_groups")?;
        let groups = groups.ok_or_else(|| config.invalid("config_groups", "an object"))?;
        let mut parsed = Vec::new();
        let mut limit = Limit::default();
        for key in groups.keys() {
            let Some(group) = groups.object(key)? else { continue };
            let targets = group.opt_strings("targets")?;
            let targets = targets.ok_or_else(|| group.invalid("targets", "a list of strings"))?;
            let targets = patterns(&group, "targets", &targets, &mut limit)?;
            // Without weights nothing is stored differently.
            let Some(weights) = group.object("weights")? else { continue };
            if group.get("output_activations").is_some() {
                return Err(group.unsupported("output_activations", "null"));
            }
            let format = match group.opt_str("format")? {
                Some(own) => own,
                None => format.ok_or_else(|| config.invalid("format", "a string"))?,
            };
            parsed.push(Group { targets, scheme: scheme(config, &weights, format)? });
        }
        let ignore = config.opt_strings("ignore")?.unwrap_or_default();
        let ignore = patterns(config, "ignore", &ignore, &mut limit)?;
        Ok(Quantization { method: Method::CompressedTensors, groups: parsed, ignore })
    }

    /// How `module`, whose tensors are quantized, is: by the pattern that fits closest.
    ///
    /// # Errors
    /// `InvalidModel` for a module that is ignored or that no group has.
    pub(super) fn scheme(&self, module: &str) -> Result<Scheme> {
        let contradiction = |what: &str| {
            let name = quoted(module);
            Error::invalid_model(format!(
                "quantization_config: {what} module {name}, whose tensors are quantized"
            ))
            .with("module", module)
        };
        let names = stored_names(module);
        if Pattern::best(&self.ignore, &names)?.is_some() {
            return Err(contradiction("ignore has"));
        }
        let mut best: Option<(Fit, Scheme)> = None;
        for group in &self.groups {
            if let Some(fit) = Pattern::best(&group.targets, &names)?
                && best.is_none_or(|(found, _)| fit > found)
            {
                best = Some((fit, group.scheme));
            }
        }
        best.map(|(_, scheme)| scheme).ok_or_else(|| contradiction("no group has"))
    }
}

fn patterns(config: &ModelConfig, key: &str, texts: &[&str], limit: &mut Limit) -> Result<Vec<Pattern>> {
    if texts.len() > MAX_PATTERNS {
        return Err(config.invalid(key, &format!("at most {MAX_PATTERNS} names")));
    }
    texts.iter().map(|text| Pattern::parse(text, config, key, limit)).collect()
}

/// The weights of a compressed-tensors group.
fn scheme(config: &ModelConfig, weights: &ModelConfig, format: &str) -> Result<Scheme> {
    let bits = weights.usize("num_bits")?;
    let kind = weights.opt_str("type")?.unwrap_or("int");
    if weights.get("dynamic").is_some_and(|dynamic| *dynamic != Value::Bool(false)) {
        return Err(weights.unsupported("dynamic", "false"));
    }
    let symmetric = weights.bool_or("symmetric", true)?;
    match (format, kind, bits) {
        ("int-quantized" | "naive-quantized", "int", 8) | ("pack-quantized", "int", 4 | 8) => {
            let packed = format == "pack-quantized";
            let block = block(weights)?;
            if packed && !symmetric && block.rows != 1 {
                return Err(weights.unsupported("strategy", "channel or group, as there are zero points"));
            }
            Ok(Scheme::Int(IntArgs { bits: bits as u32, packed, symmetric, block }))
        }
        ("float-quantized" | "naive-quantized", "float", 8) if symmetric => {
            Ok(Scheme::Fp8 { block: block(weights)? })
        }
        ("mxfp4-pack-quantized", "float", 4) if symmetric => Ok(Scheme::Fp4(Fp4Kind::Mx)),
        ("nvfp4-pack-quantized", "float", 4) if symmetric => Ok(Scheme::Fp4(Fp4Kind::Nv)),
        _ => Err(Error::unsupported_model(format!(
            "{}: quantization_config: expected int-quantized of 8 bits, pack-quantized of 4 or 8, float-quantized of 8, \
             mxfp4-pack-quantized or nvfp4-pack-quantized, found {} of {bits} bits ({kind}, symmetric: {symmetric})",
            config.file(),
            quoted(format)
        ))
        .with("file", config.file())),
    }
}

/// Weights that share a scale, of compressed-tensors.
fn block(weights: &ModelConfig) -> Result<Block> {
    let size = weights.get("group_size").and_then(Value::as_i64);
    let strategy = match (weights.opt_str("strategy")?, size) {
        (Some(strategy), _) => strategy,
        (None, None) => "tensor",
        (None, Some(-1)) => "channel",
        (None, Some(_)) => "group",
    };
    match strategy {
        "tensor" => Ok(Block::TENSOR),
        "channel" => Ok(Block::CHANNEL),
        "group" | "tensor_group" => match weights.opt_usize("group_size")? {
            Some(group) if group > 0 => Ok(Block { columns: Some(group), ..Block::CHANNEL }),
            _ => Err(weights.invalid("group_size", "a positive integer")),
        },
        "block" => sides(weights, "block_structure"),
        _ => Err(weights.unsupported("strategy", "tensor, channel, group or block")),
    }
}

/// `[rows, columns]`.
fn sides(config: &ModelConfig, key: &str) -> Result<Block> {
    match config.opt_usizes(key)?.as_deref() {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok(Block { rows, columns: Some(columns) }),
        _ => Err(config.invalid(key, "two positive integers")),
    }
}

/// Inputs that share a scale; none for -1, which is all of them.
fn group_size(config: &ModelConfig) -> Result<Option<usize>> {
    match config.get("group_size").and_then(Value::as_i64) {
        Some(-1) => Ok(None),
        Some(size @ 1..=65_536) => Ok(Some(size as usize)),
        _ => Err(config.invalid("group_size", "an integer from 1 to 65536, or -1")),
    }
}

fn gptq(config: &ModelConfig) -> Result<Method> {
    let bits = match config.usize("bits")? {
        bits @ (4 | 8) => bits as u32,
        _ => return Err(config.unsupported("bits", "4 or 8")),
    };
    let mut stored_less_one = true;
    for key in ["checkpoint_format", "format"] {
        match config.opt_str(key)? {
            None | Some("gptq") => {}
            Some("gptq_v2") => stored_less_one = false,
            Some(_) => return Err(config.unsupported(key, "gptq or gptq_v2")),
        }
    }
    if config.bool_or("is_marlin_format", false)? {
        return Err(config.unsupported("is_marlin_format", "false"));
    }
    if config.opt_str("pack_dtype")?.is_some_and(|dtype| dtype != "int32") {
        return Err(config.unsupported("pack_dtype", "int32"));
    }
    // Keys that begin with "-:" leave modules out, which their tensors show.
    if let Some(dynamic) = config.object("dynamic")?
        && dynamic.keys().any(|key| !key.starts_with("-:"))
    {
        return Err(config.unsupported("dynamic", "no settings for some modules"));
    }
    Ok(Method::Gptq(GptqArgs {
        bits,
        group: group_size(config)?,
        // Where nothing is said, zero points are looked at.
        symmetric: config.bool_or("sym", false)?,
        ordered: config.bool_or("desc_act", false)?,
        stored_less_one,
    }))
}

fn awq(config: &ModelConfig) -> Result<Method> {
    if config.usize("bits")? != 4 {
        return Err(config.unsupported("bits", "4"));
    }
    for key in ["version", "format", "checkpoint_format"] {
        if config.opt_str(key)?.is_some_and(|version| !version.eq_ignore_ascii_case("gemm")) {
            return Err(config.unsupported(key, "gemm"));
        }
    }
    if !config.bool_or("zero_point", true)? {
        return Err(config.unsupported("zero_point", "true"));
    }
    Ok(Method::Awq { group: group_size(config)? })
}

fn fp8(config: &ModelConfig) -> Result<Method> {
    if config.opt_str("fmt")?.is_some_and(|format| format != "e4m3") {
        return Err(config.unsupported("fmt", "e4m3"));
    }
    let block = config.get("weight_block_size").is_some().then(|| sides(config, "weight_block_size"));
    Ok(Method::Fp8 { block: block.transpose()? })
}
