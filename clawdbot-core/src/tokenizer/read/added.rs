//! Tokens on top of a model's own, which are found in a text before anything else.

use serde::Deserialize;
use tokenizers::{AddedToken, Model, NormalizedString, Normalizer};

use super::Encoder;

/// Longest added token in bytes: any text could be made of a longer one with each letter.
const MAX_ADDED: usize = 4096;
/// Most states of what looks for all of them, of which each takes about 250 bytes while they are made: common beginnings count once. Published
/// ones have up to 200 thousand (Emu3's 32 768 tokens for images).
const MAX_STATES: usize = 1 << 19;
/// Most bytes of all of them.
const MAX_TEXT: usize = 32 << 20;

/// An added token as the file has it. Its id is that of the model's token of this text, or the next one.
#[derive(Deserialize)]
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

/// Adds the added tokens. Says which of their ids is the largest, and what there is to say of them.
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
    // Ids go on from there.
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

/// Checks the tokens as they are looked for, before memory is asked for: those of a text, and those of a normalized one.
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
            // Nothing would be found at every byte, inside of characters too.
            if text.is_empty() {
                return Err(format!(
                    "added token {}: expected something to look for, found {:.50?}, which the normalizer makes nothing of",
                    token.id, token.content
                ));
            }
            // Each of them in a run of white space would take the whole run; after one that takes it, a match would end
            // before it begins.
            if (token.lstrip || token.rstrip) && text.chars().all(char::is_whitespace) {
                return Err(format!(
                    "added token {}: expected no lstrip or rstrip, as it is white space",
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
        // Which of them is found would be left to chance.
        let same = |pair: &&[(String, &str)]| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1;
        if let Some([(text, first), (_, second)]) = texts.windows(2).find(same) {
            return Err(format!(
                "added_tokens: expected tokens that differ once they are normalized, found {first:.50?} and {second:.50?}, \
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
        return Err(format!(
            "added_tokens: expected at most {MAX_STATES} bytes that are not common beginnings, found {states}"
        ));
    }
    Ok(())
}

/// What there is to say of tokens that get other ids than the file says.
fn other_ids(encoder: &Encoder, wanted: &[(u32, String)]) -> Option<String> {
    let given = |content: &str| encoder.token_to_id(content);
    let mut others = wanted.iter().filter_map(|(id, content)| {
        let given = given(content)?;
        (given != *id).then_some((id, given, content))
    });
    let (id, given, content) = others.next()?;
    let count = others.count() + 1;
    let shared = encoder.get_model().id_to_token(given).filter(|token| token != content);
    let shared = shared.map_or_else(String::new, |token| format!(", which is that of {token:.50?} too"));
    Some(format!(
        "added_tokens: ids of {count} tokens are not used, as in transformers: {content:.50?} has {given}{shared}, the file \
         says {id} ..."
    ))
}
