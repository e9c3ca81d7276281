//! Flags for the library's options, made of its table: names, values and help are the library's.

use std::fmt::Debug;
use std::marker::PhantomData;

use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use clawdbot_core::{OptionGroup, OptionSet, OptionSpec, OptionType, Result, Runtime, byte_size};
use serde_json::{Map, Value, json};

use super::texts::escaped;
use super::values::{bias, finite, ids, switch_or_dir};

/// What the command line does differently from the table, for one option.
struct Exception {
    name: &'static str,
    /// Its letter.
    short: Option<char>,
    /// Another name of the flag.
    alias: Option<&'static str>,
    /// An option that takes what follows a colon in the value.
    rest: Option<&'static str>,
    /// A flag without a value, though the option has a value besides true and false: "not given".
    switch: bool,
    /// No flag: the command line has another way.
    left_out: bool,
    /// The group whose flag it is, where several have an option of that name.
    only_of: Option<&'static str>,
    /// What is said about it besides the documentation.
    note: &'static str,
    /// The default, where the command line has one of its own.
    default: Option<&'static str>,
    /// Another flag that must be given with it.
    requires: Option<&'static str>,
    /// How its value is read, where its type does not say.
    parser: Option<fn() -> ValueParser>,
}

/// Nothing differs.
const SAME: Exception = Exception {
    name: "",
    short: None,
    alias: None,
    rest: None,
    switch: false,
    left_out: false,
    only_of: None,
    note: "",
    default: None,
    requires: None,
    parser: None,
};

/// All other options are as the table says.
const EXCEPTIONS: &[Exception] = &[
    Exception { name: "adapter", default: Some("the one that --lora loads"), ..SAME },
    // `chat --chat-template` takes a file.
    Exception { name: "chat_template", left_out: true, ..SAME },
    Exception { name: "kernels", parser: Some(tiers), ..SAME },
    Exception { name: "logprobs", requires: Some("json"), note: "Needs --json.", ..SAME },
    Exception { name: "prompt_logprobs", requires: Some("json"), note: "Needs --json.", ..SAME },
    Exception { name: "max_batch", alias: Some("batch-size"), ..SAME },
    Exception { name: "max_tokens", short: Some('n'), ..SAME },
    Exception { name: "offline", switch: true, ..SAME },
    Exception { name: "reference_model", note: "Or a name OWNER/NAME.", ..SAME },
    Exception { name: "seed", default: Some("random; reported with --json"), ..SAME },
    // What a program says of its model holds for its requests.
    Exception { name: "speculation", only_of: Some("ModelOptions"), ..SAME },
    Exception {
        name: "stop",
        parser: Some(|| ValueParser::new(|text: &str| escaped(text).map(Value::from))),
        note: r"Escapes are \n, \r, \t, \xNN, \u{N} and \\.",
        ..SAME
    },
    Exception {
        name: "swap_space",
        rest: Some("swap_directory"),
        parser: Some(|| ValueParser::new(size_and_place)),
        note: "BYTES:DIR sets --swap-directory, too.",
        ..SAME
    },
    Exception { name: "weights", alias: Some("precision"), ..SAME },
];

/// A number of bytes, and what follows a colon.
fn size_and_place(text: &str) -> Result<Value, String> {
    let (size, place) = text.split_once(':').map_or((text, None), |(size, place)| (size, Some(place)));
    let bytes = byte_size(size).map_err(|error| error.to_string())?;
    Ok(place.map_or_else(|| json!(bytes), |place| json!([bytes, place])))
}

fn exception(name: &str) -> &'static Exception {
    EXCEPTIONS.iter().find(|exception| exception.name == name).unwrap_or(&SAME)
}

/// The heading of a group in the help; without one, options stand with those of the command.
const HEADINGS: &[(&str, &str)] = &[
    (
        "GenerateOptions",
        "Generation (the model's generation_config.json has the defaults that are called the model's)",
    ),
    ("ModelOptions", "Model"),
    ("RuntimeOptions", "Runtime"),
    ("EmbedOptions", "Embedding (the model's files have the defaults that are called the model's)"),
    ("RerankOptions", "Reranking"),
    ("HubOptions", "Hub (with a model OWNER/NAME[:QUANTIZATION], hf://..., modelscope://... or an address)"),
];

/// The names of tiers; those that failed their self-test too, for the runtime says why.
fn tiers() -> ValueParser {
    let refused = Runtime::refused_kernels().into_iter().map(|refused| refused.name);
    let names = Runtime::available_kernels().into_iter().chain(Runtime::named_kernels()).chain(refused);
    PossibleValuesParser::new(names).map(Value::from).into()
}

/// Whether the option is a flag without a value.
fn is_switch(option: &OptionSpec) -> bool {
    option.values == OptionType::Bool && (option.default == "false" || exception(option.name).switch)
}

/// How a value of that type is read. Ranges are the library's to check.
fn parser(values: OptionType) -> ValueParser {
    let expected = move || format!("expected {}", values.expected());
    match values {
        OptionType::Bool => {
            PossibleValuesParser::new(["true", "false"]).map(|text| Value::from(text == "true")).into()
        }
        OptionType::Whole { .. } => {
            ValueParser::new(move |text: &str| text.parse::<u64>().map(Value::from).map_err(|_| expected()))
        }
        OptionType::TokenId => {
            ValueParser::new(move |text: &str| text.parse::<u32>().map(Value::from).map_err(|_| expected()))
        }
        OptionType::Bytes => ValueParser::new(|text: &str| byte_size(text).map(Value::from)),
        OptionType::Number(_) => ValueParser::new(move |text: &str| match text.parse::<f32>() {
            Ok(_) => finite(text).map(Value::from),
            Err(_) => Err(expected()),
        }),
        OptionType::Name | OptionType::Text | OptionType::JsonSchema | OptionType::Path => {
            StringValueParser::new().map(Value::from).into()
        }
        OptionType::Choice(names) => PossibleValuesParser::new(names).map(Value::from).into(),
        OptionType::SwitchOrDir => {
            ValueParser::new(|text: &str| switch_or_dir(text).map(|cache| json!(cache)))
        }
        OptionType::List { of: OptionType::List { .. }, .. } => {
            ValueParser::new(|text: &str| ids(text).map(Value::from))
        }
        OptionType::List { of, .. } => parser(*of),
        OptionType::TokenMap(_) => {
            ValueParser::new(|text: &str| bias(text).map(|(id, bias)| json!({ id.to_string(): bias })))
        }
    }
}

/// What the help calls the value.
fn value_name(values: OptionType) -> &'static str {
    match values {
        OptionType::Bool => "true|false",
        OptionType::Whole { .. } => "N",
        OptionType::TokenId => "ID",
        OptionType::Bytes => "BYTES",
        OptionType::Number(_) => "X",
        OptionType::Name => "NAME",
        OptionType::Text => "TEXT",
        OptionType::JsonSchema => "JSON",
        OptionType::Path => "PATH",
        OptionType::Choice(_) => "TYPE",
        OptionType::SwitchOrDir => "true|false|DIR",
        OptionType::List { of: OptionType::List { .. }, .. } => "ID,ID...",
        OptionType::List { of, .. } => value_name(*of),
        OptionType::TokenMap(_) => "ID=X",
    }
}

/// What the value's type needs to have said.
fn hint(values: OptionType) -> &'static str {
    match values {
        OptionType::Bytes => {
            "Such as 500M or 1.5GiB (K, M, G, T: powers of 1000; KiB, MiB, GiB, TiB: of 1024)."
        }
        OptionType::List { .. } | OptionType::TokenMap(_) => "May be repeated.",
        _ => "",
    }
}

/// The documentation as it reads here: options with their dashes, no Markdown.
fn plain(text: &str, group: &OptionGroup) -> String {
    let mut text = text.to_owned();
    for option in group.options {
        text = text.replace(&format!("`{}`", option.name), &long(option));
    }
    text.replace('`', "")
}

/// The name of an option on the command line.
fn long(option: &OptionSpec) -> String {
    format!("--{}", option.name.replace('_', "-"))
}

fn help(option: &OptionSpec, group: &OptionGroup) -> String {
    let exception = exception(option.name);
    let documentation = plain(&option.documentation(), group);
    let sentences = [documentation.as_str(), hint(option.values), exception.note];
    let sentences: Vec<&str> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    let sentences = sentences.join(" ");
    let sentences = sentences.trim_end_matches('.');
    match is_switch(option) {
        true => sentences.to_owned(),
        false => {
            let default = exception.default.map_or_else(|| plain(option.default, group), str::to_owned);
            format!("{sentences} [default: {default}]")
        }
    }
}

fn flag(option: &'static OptionSpec, group: &OptionGroup) -> Arg {
    let exception = exception(option.name);
    let mut arg = Arg::new(option.name).long(option.name.replace('_', "-")).help(help(option, group));
    if let Some((_, heading)) = HEADINGS.iter().find(|(name, _)| *name == group.name) {
        arg = arg.help_heading(*heading);
    }
    if let Some(short) = exception.short {
        arg = arg.short(short);
    }
    if let Some(alias) = exception.alias {
        arg = arg.visible_alias(alias);
    }
    if let Some(other) = exception.requires {
        arg = arg.requires(other);
    }
    if is_switch(option) {
        return arg.action(ArgAction::SetTrue);
    }
    let (one, action) = match option.values {
        OptionType::List { of, .. } => (*of, ArgAction::Append),
        OptionType::TokenMap(_) => (option.values, ArgAction::Append),
        one => (one, ArgAction::Set),
    };
    let number = matches!(
        one,
        OptionType::Whole { .. } | OptionType::Bytes | OptionType::Number(_) | OptionType::TokenId
    );
    arg.action(action)
        .value_name(value_name(option.values))
        .value_parser(exception.parser.map_or_else(|| parser(option.values), |parser| parser()))
        .allow_negative_numbers(number)
        .allow_hyphen_values(one == OptionType::Text)
}

/// The options of a group that have flags.
fn flags<T: OptionSet>() -> impl Iterator<Item = &'static OptionSpec> {
    let group = T::GROUP;
    // Without the feature, no name is one on a hub.
    let present = cfg!(feature = "hub") || group.name != "HubOptions";
    let own = move |option: &OptionSpec| {
        let Exception { left_out, only_of, .. } = *exception(option.name);
        !left_out && only_of.is_none_or(|only| only == group.name)
    };
    group.options.iter().filter(move |option| present && own(option))
}

/// The value of an option that was given.
fn value(option: &OptionSpec, matches: &ArgMatches) -> Option<Value> {
    if matches.value_source(option.name) != Some(ValueSource::CommandLine) {
        return None;
    }
    let values = || matches.get_many::<Value>(option.name).into_iter().flatten();
    Some(match option.values {
        _ if is_switch(option) => true.into(),
        OptionType::List { .. } => values().cloned().collect(),
        OptionType::TokenMap(_) => Value::Object(
            values().filter_map(Value::as_object).flatten().map(|(id, x)| (id.clone(), x.clone())).collect(),
        ),
        _ => values().next()?.clone(),
    })
}

/// The options `T`, as flags.
#[derive(Debug, Clone)]
pub(crate) struct Flags<T> {
    given: Map<String, Value>,
    options: PhantomData<T>,
}

impl<T: OptionSet> Flags<T> {
    /// What was given, by name. The rest keeps the library's default.
    pub(crate) fn given(&self) -> &Map<String, Value> {
        &self.given
    }

    /// The library's options, checked.
    ///
    /// # Errors
    /// `InvalidArgument` for a value out of range.
    pub(crate) fn options(&self) -> Result<T> {
        T::from_json(&self.given)
    }
}

impl<T: OptionSet> Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        flags::<T>().fold(command, |command, option| command.arg(flag(option, &T::GROUP)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: OptionSet> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = flags::<T>().filter_map(|option| Some((option.name.to_owned(), value(option, matches)?)));
        let mut given: Map<String, Value> = given.collect();
        for Exception { name, rest, .. } in EXCEPTIONS {
            let both = given.get(*name).and_then(Value::as_array).cloned().unwrap_or_default();
            if let (Some(rest), [size, place]) = (rest, both.as_slice()) {
                if given.contains_key(*rest) {
                    let message = format!(
                        "expected a directory in one place, found it in --{} and in --{}",
                        name.replace('_', "-"),
                        rest.replace('_', "-")
                    );
                    return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, message));
                }
                given.insert((*rest).to_owned(), place.clone());
                given.insert((*name).to_owned(), size.clone());
            }
        }
        Ok(Flags { given, options: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;
    use clawdbot_core::{
        EmbedOptions, EvaluateOptions, GenerateOptions, HubOptions, ModelOptions, NumberRange, OPTIONS,
        PackOptions, RerankOptions, RuntimeOptions,
    };

    use super::super::Cli;
    use super::*;

    /// A value that the option takes.
    fn example(values: OptionType) -> Value {
        match values {
            OptionType::Bool | OptionType::SwitchOrDir => json!(true),
            OptionType::Whole { least, .. } => json!(least),
            OptionType::Bytes => json!(1 << 20),
            OptionType::Number(NumberRange::Finite) => json!(-1.5),
            OptionType::Number(NumberRange::AtLeastOne) => json!(1.5),
            OptionType::Number(_) => json!(0.5),
            OptionType::TokenId => json!(1),
            // A chat template too.
            OptionType::Name | OptionType::Text | OptionType::Path => json!("{{ x }}"),
            OptionType::JsonSchema => json!({"type": "object"}),
            OptionType::Choice(names) => json!(names[1]),
            OptionType::List { of, .. } => json!([example(*of)]),
            OptionType::TokenMap(_) => json!({"1": -1.5}),
        }
    }

    fn read(group: &str, object: &Map<String, Value>) -> Result<Map<String, Value>> {
        match group {
            "GenerateOptions" => GenerateOptions::from_json(object).map(|options| options.to_json()),
            "ModelOptions" => ModelOptions::from_json(object).map(|options| options.to_json()),
            "RuntimeOptions" => RuntimeOptions::from_json(object).map(|options| options.to_json()),
            "EmbedOptions" => EmbedOptions::from_json(object).map(|options| options.to_json()),
            "RerankOptions" => RerankOptions::from_json(object).map(|options| options.to_json()),
            "PackOptions" => PackOptions::from_json(object).map(|options| options.to_json()),
            "EvaluateOptions" => EvaluateOptions::from_json(object).map(|options| options.to_json()),
            "HubOptions" => HubOptions::from_json(object).map(|options| options.to_json()),
            other => panic!("{other}: a group that this test does not know"),
        }
    }

    #[test]
    fn every_option_is_everywhere() {
        let file = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
            std::fs::read_to_string(&path).unwrap()
        };
        let (header, dicts, stub, tables) = (
            file("include/clawdbot.h"),
            file("python/clawdbot/options.py"),
            file("python/clawdbot/_clawdbot.pyi"),
            file("docs/options.md"),
        );
        let mut command = Cli::command();
        command.build();
        let flags: Vec<&str> =
            command.get_subcommands().flat_map(Command::get_arguments).filter_map(Arg::get_long).collect();
        for group in OPTIONS {
            for option in group.options {
                let name = option.name;
                let mut object = Map::from_iter([(name.to_owned(), example(option.values))]);
                if name == "swap_directory" {
                    object.insert("swap_space".to_owned(), json!(1 << 20));
                }
                assert_eq!(read(group.name, &object).unwrap()[name], object[name], "{name}: JSON");
                let hub = group.name == "HubOptions";
                let flag = name.replace('_', "-");
                let left_out = exception(name).left_out || (hub && !cfg!(feature = "hub"));
                assert!(left_out || flags.contains(&flag.as_str()), "{name}: command line");
                // What chooses a model of a repository are arguments in Python.
                let typed = if hub { &stub } else { &dicts };
                assert!(typed.contains(&format!("    {name}: ")), "{name}: Python");
                assert!(header.contains(&format!(" * - {name} (")), "{name}: C");
                assert!(tables.contains(&format!("\n| `{name}` | ")), "{name}: documentation");
            }
        }
    }

    #[test]
    fn exceptions_are_about_options() {
        let names: Vec<&str> =
            OPTIONS.iter().flat_map(|group| group.options).map(|option| option.name).collect();
        assert!(EXCEPTIONS.iter().all(|exception| names.contains(&exception.name)));
        assert!(HEADINGS.iter().all(|(group, _)| OPTIONS.iter().any(|known| known.name == *group)));
    }

    #[test]
    fn help_is_the_documentation() {
        let help = |name: &str| {
            let group = GenerateOptions::GROUP;
            help(group.options.iter().find(|option| option.name == name).unwrap(), &group)
        };
        assert_eq!(
            help("top_k").split(" [").next().unwrap(),
            "Sample only from this many of the most likely tokens; 0 is off"
        );
        assert!(help("max_tokens").ends_with(" [default: the model's, or until the context is full]"));
        assert!(help("suppress_tokens").contains("May be repeated [default: "));
        assert!(!help("ignore_eos").contains("default"));
    }
}
