//! Added tokens: tokens apart from the model's own, which are matched in a text before anything else.

use serde::{Deserialize, Serialize};
use tokenizers::{AddedToken, Model, NormalizedString, Normalizer};

use super::model::Encoder;

/// Most bytes of an added token: any text could be made of a longer one by single letters.
const MAX_ADDED: usize = 4096;
/// Most states of the automaton that finds them: their distinct prefixes. A state takes about 250 bytes while it is
/// built. Published tokenizers have up to 200 thousand (Emu3's 32 768 image tokens).
const MAX_STATES: usize = 1 << 19;
/// Most bytes of all of them together.
const MAX_TEXT: usize = 32 << 20;

/// An added token as in the file. Its id is that of the model's token with this text, or the next free one.
#[derive(Deserialize, Serialize)]
pub(super) struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl From<Added> for AddedToken {
    fn from(added: Added) -> Self {
        let token = AddedToken::from(added.content, added.special);
        let token = token.single_word(added.single_word).lstrip(added.lstrip).rstrip(added.rstrip);
        token.normalized(added.normalized)
    }
}

/// Adds the added tokens. Returns the largest of their ids, and a warning if there is one.
///
/// # Errors
/// With what was expected and found.
pub(super) fn add(
    encoder: &mut Encoder,
    mut added: Vec<Added>,
) -> Result<(Option<u32>, Vec<String>), String> {
    if let Some(long) = added.iter().find(|token| token.content.len() > MAX_ADDED) {
        let found = long.content.len();
        return Err(format!("added token {}: expected at most {MAX_ADDED} bytes, found {found}", long.id));
    }
    // New ids start here.
    let free = u32::MAX - u32::try_from(added.len()).unwrap_or(u32::MAX);
    let size = encoder.get_model().get_vocab_size();
    let last = encoder.get_model().largest_id.unwrap_or(0);
    if last > free || u32::try_from(size).is_ok_and(|size| size > free) {
        return Err(format!("expected ids below {free}, found {last}"));
    }
    added.retain(|token| !token.content.is_empty());
    check(encoder, &added)?;
    let wanted: Vec<(u32, String)> = added.iter().map(|token| (token.id, token.content.clone())).collect();
    let tokens: Vec<AddedToken> = added.into_iter().map(Into::into).collect();
    encoder.add_tokens(tokens).map_err(|error| format!("added_tokens: {error}"))?;
    let notes = other_ids(encoder, &wanted).into_iter().collect();
    Ok((encoder.get_added_vocabulary().get_vocab().values().max().copied(), notes))
}

/// Checks the tokens in the form in which they are searched for (as they are, or normalized) before memory is
/// allocated.
fn check(encoder: &Encoder, added: &[Added]) -> Result<(), String> {
    let mut states = 0_usize;
    for normalized in [false, true] {
        let tokens = || added.iter().filter(|token| token.normalized == normalized);
        let (mut texts, mut len) = (Vec::new(), 0_usize);
        for token in tokens() {
            let text = match encoder.get_normalizer().filter(|_| normalized) {
                Some(normalizer) => {
                    let mut text = NormalizedString::from(token.content.as_str());
                    normalizer.normalize(&mut text).map_err(|error| format!("added_tokens: {error}"))?;
                    text.get().to_owned()
                }
                None => token.content.clone(),
            };
            // An empty text would match at every byte, even inside characters.
            if text.is_empty() {
                return Err(format!(
                    "added token {}: expected text that is left after normalizing, found {:.50?}, of which nothing is",
                    token.id, token.content
                ));
            }
            // In a run of white space each would take the whole run, and the next match would end before it begins.
            if (token.lstrip || token.rstrip) && text.chars().all(char::is_whitespace) {
                return Err(format!(
                    "added token {}: expected no lstrip or rstrip for white space",
                    token.id
                ));
            }
            len += text.len();
            if len > MAX_TEXT {
                return Err(format!("added_tokens: expected at most {MAX_TEXT} bytes together, found more"));
            }
            texts.push((text, token.content.as_str()));
        }
        texts.sort_unstable();
        // Which of them matches would be left to chance.
        let same = |pair: &&[(String, &str)]| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1;
        if let Some([(text, first), (_, second)]) = texts.windows(2).find(same) {
            return Err(format!(
                "added_tokens: expected tokens that differ after normalizing, found {first:.50?} and {second:.50?}, \
                 which both become {text:.50?}"
            ));
        }
        let mut before: &[u8] = b"";
        for (text, _) in &texts {
            let common = before.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b).count();
            states += text.len() - common;
            before = text.as_bytes();
        }
    }
    if states > MAX_STATES {
        return Err(format!("added_tokens: expected at most {MAX_STATES} distinct prefixes, found {states}"));
    }
    Ok(())
}

/// A warning about tokens that get other ids than the file gives.
fn other_ids(encoder: &Encoder, wanted: &[(u32, String)]) -> Option<String> {
    let given = |content: &str| encoder.token_to_id(content);
    let mut others = wanted.iter().filter_map(|(id, content)| {
        let given = given(content)?;
        (given != *id).then_some((id, given, content))
    });
    let (id, given, content) = others.next()?;
    let count = others.count() + 1;
    let shared = encoder.get_model().id_to_token(given).filter(|token| token != content);
    let shared = shared.map_or_else(String::new, |token| format!(", the id of {token:.50?} too"));
    Some(format!(
        "added_tokens: the ids of {count} tokens are ignored, as in transformers: {content:.50?} has {given}{shared}, the file \
         says {id} ..."
    ))
}
