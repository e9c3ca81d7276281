//! DeepSeek V3 and R1 (`function`, a separator, the name, and arguments as a code block), and V3.1 (the name, a separator,
//! arguments).

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::tools::Tools;
use crate::output::value::{object, start_of, without_fence};

const SEPARATOR: &str = "<｜tool▁sep｜>";

fn read(text: &str, _: &Tools) -> Calls {
    let expected = || format!("expected a name, {SEPARATOR} and arguments, found {}", start_of(text));
    let (before, after) = text.split_once(SEPARATOR).ok_or_else(expected)?;
    let (name, given) = match before.trim() {
        "function" => after.split_once('\n').ok_or_else(expected)?,
        name => (name, after),
    };
    Ok(vec![RawCall::new(name, object(without_fence(given))?)?])
}

pub(in crate::output) const DEEPSEEK: ToolFormat = ToolFormat {
    name: "deepseek",
    models: "DeepSeek V3, R1 and V3.1",
    example: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    template: &[&["<｜tool▁calls▁begin｜>"], &["<｜tool▁call▁begin｜>"]],
    inner: &[SEPARATOR],
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", Quotes::None, read).special()
        ],
        dropped: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    },
};
