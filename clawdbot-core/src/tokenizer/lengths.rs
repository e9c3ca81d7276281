//! Limits on the lengths of texts that a model looks up or writes again and again.

/// Most bytes of the unknown token, and of what is put before or after parts of words.
const MAX_AFFIX: usize = 64;
/// Most bytes of a piece of Unigram: its bytes are nested nodes of a tree, which are dropped by recursion. Published
/// pieces have a few dozen.
pub(super) const MAX_PIECE: usize = 256;
/// Pieces up to this many bytes are not counted.
const SHORT_PIECE: usize = 64;
/// Most bytes of longer pieces that may begin at one place of a text: all of them are looked up there.
const MAX_PIECES: usize = 4 << 10;

/// Most nodes of the tree of Unigram's pieces: their distinct prefixes. A node takes about 300 bytes; published
/// vocabularies have up to a million.
const MAX_NODES: usize = 1 << 22;

/// Checks texts that are written for each word, or for each part of one.
pub(super) fn check_affixes<const N: usize>(texts: [(&str, &Option<String>); N]) -> Result<(), String> {
    for (key, text) in texts {
        if let Some(found) = text.as_ref().map(String::len).filter(|&len| len > MAX_AFFIX) {
            return Err(format!("{key}: expected at most {MAX_AFFIX} bytes, found {found}"));
        }
    }
    Ok(())
}

/// Checks the number of pieces to look up at one place of a text, and the size of their tree.
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
    // A stack of pieces, each a prefix of the next.
    let (mut chain, mut bytes) = (Vec::<&str>::new(), 0);
    for piece in long {
        while let Some(shorter) = chain.pop_if(|shorter| !piece.starts_with(*shorter)) {
            bytes -= shorter.len();
        }
        chain.push(piece);
        bytes += piece.len();
        if piece.len() > MAX_PIECE || bytes > MAX_PIECES {
            return Err(format!(
                "vocab: expected pieces of at most {MAX_PIECE} bytes, and at most {MAX_PIECES} bytes of pieces that \
                 begin with each other, found {} and {bytes}",
                piece.len()
            ));
        }
    }
    Ok(())
}

/// Checks the number of distinct prefixes of sorted pieces.
fn check_nodes(sorted: &[&str]) -> Result<(), String> {
    let (mut last, mut nodes) = ("", 0);
    for piece in sorted {
        let shared = piece.bytes().zip(last.bytes()).take_while(|(new, old)| new == old).count();
        nodes += piece.len() - shared;
        last = piece;
    }
    if nodes > MAX_NODES {
        return Err(format!(
            "vocab: expected pieces with at most {MAX_NODES} distinct prefixes, found {nodes}"
        ));
    }
    Ok(())
}
