//! How long the texts of a model may be that it looks up, or writes, again and again.

/// Longest text in bytes that a model has for unknown words, or puts before or after parts of words.
const MAX_AFFIX: usize = 64;
/// Longest piece of Unigram in bytes: its letters are nodes, one in the other, that are dropped by recursion. Published ones
/// have a few dozen.
const MAX_PIECE: usize = 256;
/// Pieces up to this length are not counted.
const SHORT_PIECE: usize = 64;
/// Most bytes of longer pieces that one place in a text can begin: all are looked up there.
const MAX_PIECES: usize = 4 << 10;

/// Most nodes of the tree that pieces of Unigram become: their beginnings that differ. A node takes some 300 bytes.
/// Published vocabularies have up to a million.
const MAX_NODES: usize = 1 << 22;

/// Checks what is written again for each word, or for each part of one.
pub(super) fn check_affixes<const N: usize>(texts: [(&str, &Option<String>); N]) -> Result<(), String> {
    for (key, text) in texts {
        if let Some(found) = text.as_ref().map(String::len).filter(|&len| len > MAX_AFFIX) {
            return Err(format!("{key}: expected at most {MAX_AFFIX} bytes, found {found}"));
        }
    }
    Ok(())
}

/// Checks that no place in a text has much to look up, and that all are no large tree.
pub(super) fn check_pieces(vocab: &[(String, f64)]) -> Result<(), String> {
    let mut pieces: Vec<&str> = vocab.iter().map(|(piece, _)| piece.as_str()).collect();
    // Fewer bytes are fewer nodes.
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() > MAX_NODES {
        pieces.sort_unstable();
        check_nodes(&pieces)?;
    }
    let mut long = pieces;
    long.retain(|piece| piece.len() > SHORT_PIECE);
    long.sort_unstable();
    long.dedup();
    // Pieces that each begin with the one before.
    let (mut chain, mut bytes) = (Vec::<&str>::new(), 0);
    for piece in long {
        while let Some(shorter) = chain.pop_if(|shorter| !piece.starts_with(*shorter)) {
            bytes -= shorter.len();
        }
        chain.push(piece);
        bytes += piece.len();
        if piece.len() > MAX_PIECE || bytes > MAX_PIECES {
            return Err(format!(
                "vocab: expected pieces of at most {MAX_PIECE} bytes, and {MAX_PIECES} of those that begin with each \
                other, found {} and {bytes}",
                piece.len()
            ));
        }
    }
    Ok(())
}

/// Checks how many beginnings sorted pieces have that differ.
fn check_nodes(sorted: &[&str]) -> Result<(), String> {
    let (mut last, mut nodes) = ("", 0);
    for piece in sorted {
        let shared = piece.bytes().zip(last.bytes()).take_while(|(new, old)| new == old).count();
        nodes += piece.len() - shared;
        last = piece;
    }
    if nodes > MAX_NODES {
        return Err(format!(
            "vocab: expected pieces with at most {MAX_NODES} different beginnings, found {nodes}"
        ));
    }
    Ok(())
}
