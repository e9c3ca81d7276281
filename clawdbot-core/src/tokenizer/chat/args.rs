//! Binds arguments of filters, tests and functions, by position and by keyword, as Python does.

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Error, Value};

use super::numeric;
use super::values::type_error;

/// The arguments of one call.
pub(super) struct Args {
    name: &'static str,
    given: Vec<Option<Value>>,
    /// Arguments beyond the named parameters, for calls that take any number.
    pub(super) extra: Vec<Value>,
    pub(super) keywords: Vec<(String, Value)>,
}

/// The signature of a callable: name, parameters, number of required ones, and whether it takes any number of
/// arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) params: &'static [&'static str],
    pub(super) needed: usize,
    pub(super) open: bool,
}

impl Args {
    pub(super) fn bind(signature: Signature, args: Rest<ValueOrKwargs>) -> Result<Args, Error> {
        Self::bind_values(signature, args.into_values())
    }

    pub(super) fn bind_values(signature: Signature, mut values: Vec<Value>) -> Result<Args, Error> {
        let Signature { name, params, needed, open } = signature;
        let mut keywords = Vec::new();
        if values.last().is_some_and(Value::is_kwargs)
            && let Some(last) = values.pop()
        {
            let kwargs = Kwargs::try_from(last)?;
            for key in kwargs.args() {
                keywords.push((key.to_owned(), kwargs.peek::<Value>(key)?));
            }
        }
        let mut given: Vec<Option<Value>> = Vec::new();
        let mut extra = Vec::new();
        for value in values {
            if given.len() < params.len() {
                given.push(Some(value));
            } else if open {
                extra.push(value);
            } else {
                return Err(type_error(format!("{name}: expected at most {} arguments", params.len())));
            }
        }
        given.resize(params.len(), None);
        let mut other = Vec::new();
        for (key, value) in keywords {
            match params.iter().position(|param| *param == key) {
                Some(at) if given[at].is_some() => {
                    return Err(type_error(format!("{name}: multiple values for argument '{key}'")));
                }
                Some(at) => given[at] = Some(value),
                None if open => other.push((key, value)),
                None => return Err(type_error(format!("{name}: unexpected keyword argument '{key}'"))),
            }
        }
        if let Some(missing) = (0..needed).find(|at| given[*at].is_none()) {
            return Err(type_error(format!("{name}: missing argument '{}'", params[missing])));
        }
        Ok(Args { name, given, extra, keywords: other })
    }

    /// The argument at `at`, if given.
    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.given[at].as_ref()
    }

    /// The first argument, or undefined.
    pub(super) fn value(&self) -> &Value {
        self.get(0).unwrap_or(&Value::UNDEFINED)
    }

    /// The argument at `at`, unless absent or none.
    pub(super) fn some(&self, at: usize) -> Option<&Value> {
        self.get(at).filter(|value| !value.is_none())
    }

    pub(super) fn flag(&self, at: usize, default: bool) -> bool {
        self.get(at).map_or(default, Value::is_true)
    }

    pub(super) fn integer(&self, at: usize, default: i64) -> Result<i64, Error> {
        self.get(at).map_or(Ok(default), numeric::integer)
    }

    /// An error about an argument.
    pub(super) fn error(&self, message: &str) -> Error {
        type_error(format!("{}: {message}", self.name))
    }
}
