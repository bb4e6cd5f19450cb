//! Tokens of long texts.
//!
//! The `tokenizers` crate takes some hundred bytes of memory for each token of a text that it is given. Here it is given
//! pieces that overlap, which are cut where a token begins. What a tokenizer makes of a place depends on text near it, so pieces
//! that agree on both sides of a cut agree with the whole text there, too. Where they do not agree, the text is encoded at once.

use super::tokenizer::Tokenizer;
use tilewright_ir::diag::Diagnostic;

/// Bytes of a piece.
const PIECE: usize = 1 << 16;
/// Bytes before and after a cut in which two pieces must agree; around them come as many again, where the ends of a piece may tell.
const SEAM: usize = 1 << 10;

/// A token and where it begins, in bytes.
type Placed = (usize, u32);

impl Tokenizer {
    /// Like [`Tokenizer::encode`], for texts of any length: beside the ids it needs memory for a piece of the text, unless the
    /// tokenizer looks farther than a kilobyte.
    ///
    /// Errors: `tokenizer`.
    pub fn encode_long(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let ids = in_pieces(text, [PIECE, SEAM], |piece| self.encode_placed(piece))?;
        ids.map_or_else(|| self.encode(text), Ok)
    }
}

/// The ids of `text` by pieces; none where two of them do not agree.
fn in_pieces(
    text: &str,
    [piece, seam]: [usize; 2],
    encode: impl Fn(&str) -> Result<Vec<Placed>, Diagnostic>,
) -> Result<Option<Vec<u32>>, Diagnostic> {
    let (mut ids, mut cut, mut before) = (Vec::new(), 0usize, Vec::new());
    loop {
        let from = boundary(text, cut.saturating_sub(2 * seam));
        let to = boundary(text, cut.saturating_add(piece));
        let here: Vec<Placed> = encode(&text[from..to])?.into_iter().map(|(at, id)| (from + at, id)).collect();
        let near = |(at, _): &&Placed| at.abs_diff(cut) < seam;
        if cut > 0 && !here.iter().filter(near).eq(before.iter().filter(near)) {
            return Ok(None);
        }
        let rest = here.iter().filter(|(at, _)| *at >= cut);
        if to == text.len() {
            ids.extend(rest.map(|(_, id)| id));
            return Ok(Some(ids));
        }
        let next = here.iter().rev().map(|(at, _)| *at).find(|at| at + 2 * seam <= to);
        let Some(next) = next.filter(|next| *next > cut) else { return Ok(None) };
        ids.extend(rest.filter(|(at, _)| *at < next).map(|(_, id)| id));
        (cut, before) = (next, here);
    }
}

/// The last boundary of characters up to byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_ir::array::Bytes;

    /// Words with the space before them, as GPT-2 cuts text; a run of line ends is a token of its own.
    const WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":9,"content":"<|end|>","single_word":false,
        "lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":null,"post_processor":null,
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":null,
        "model":{"type":"BPE","unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3,"Ġ":4,"Ċ":5,"ĊĊ":6,"Ġab":7,"Ã":8,"<|end|>":9,"©":10},
        "merges":["a b","Ġ ab","Ċ Ċ"]}}"#;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_json("words", &Bytes::new(WORDS.as_bytes().to_vec())).unwrap_or_else(|d| panic!("{d}"))
    }

    #[test]
    fn pieces_give_the_tokens_of_the_whole() {
        let tokenizer = tokenizer();
        let lines = ["ab ab\n\n\nba", " ab  a\n", "éab é\n\n", "<|end|>b<|end|>\n", "abab ab\n\n\n\n"];
        let mut seed = 3usize;
        let text: String = (0..200)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                lines[(seed >> 16) % lines.len()]
            })
            .collect();
        let whole = tokenizer.encode(&text).unwrap();
        // Line by line other tokens come out, as two line ends are one token.
        let by_line: Vec<u32> = text.split_inclusive('\n').flat_map(|line| tokenizer.encode(line).unwrap()).collect();
        assert!(by_line.len() > whole.len());
        for piece in [150, 151, 152, 200, 5000] {
            let found = in_pieces(&text, [piece, 24], |p| tokenizer.encode_placed(p)).unwrap();
            assert!(found.as_ref() == Some(&whole), "{piece}");
        }
        assert_eq!(tokenizer.encode_long(&text).unwrap(), whole);
        assert!(tokenizer.encode_long("").unwrap().is_empty());
    }

    #[test]
    fn pieces_that_do_not_agree_are_noticed() {
        // Each piece numbers its letters from its own begin.
        let count = |piece: &str| Ok(piece.char_indices().map(|(at, _)| (at, at as u32)).collect());
        assert_eq!(in_pieces(&"a".repeat(100), [40, 5], count).unwrap(), None);
        // No token begins where a cut could be.
        let one = |_: &str| Ok(vec![(0, 1)]);
        assert_eq!(in_pieces(&"a".repeat(100), [40, 5], one).unwrap(), None);
        assert_eq!(in_pieces("aaa", [40, 5], one).unwrap(), Some(vec![1]));
    }
}
