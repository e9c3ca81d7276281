//! Text to token ids and back, chat templates, and text that arrives token by token.

mod chat;
mod special;

pub use chat::{ChatTemplate, ChatTemplates, LocalTime, render_chat_template};
pub use special::SpecialTokens;
mod tmp;
pub use tmp::*;
