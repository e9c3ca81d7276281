//! When a beam search ends.

use serde::{Deserialize, Serialize};

use super::declare::names;
use crate::error::{Error, Result};

/// When a beam search ends, as transformers has it. In JSON a text; `true` and `false` are read without quotes too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "EarlyStoppingValue", rename_all = "lowercase")]
#[non_exhaustive]
pub enum EarlyStopping {
    /// When no running text has a better score, for its present length, than the worst of `num_beams` finished ones.
    #[default]
    False,
    /// As soon as `num_beams` texts are finished.
    True,
    /// When no running text can come to have a better score than the worst of `num_beams` finished ones.
    Never,
}

names!(EarlyStopping: False = "false", True = "true", Never = "never");

/// [`EarlyStopping`] in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum EarlyStoppingValue {
    Switch(bool),
    Name(String),
}

impl TryFrom<EarlyStoppingValue> for EarlyStopping {
    type Error = Error;

    fn try_from(value: EarlyStoppingValue) -> Result<Self> {
        match value {
            EarlyStoppingValue::Switch(on) => Ok(on.into()),
            EarlyStoppingValue::Name(name) => name.parse(),
        }
    }
}

impl From<bool> for EarlyStopping {
    fn from(on: bool) -> Self {
        if on { EarlyStopping::True } else { EarlyStopping::False }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_a_name_or_a_switch() {
        for value in EarlyStopping::ALL {
            assert_eq!(json!(value), value.name());
            assert_eq!(serde_json::from_value::<EarlyStopping>(json!(value.name())).unwrap(), value);
        }
        let read = |value| serde_json::from_value::<EarlyStopping>(value).ok();
        assert_eq!(read(json!(true)), Some(EarlyStopping::True));
        assert_eq!(read(json!(false)), Some(EarlyStopping::False));
        assert_eq!((read(json!("always")), read(json!(1)), read(json!(null))), (None, None, None));
    }
}
