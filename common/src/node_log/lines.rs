//! Bytes, as they come, into lines.

use super::LONGEST_LINE;
use crate::secret::{Mask, Masker};

/// One stream on its way.
#[derive(Debug)]
pub(super) struct Lines {
    masker: Masker,
    /// A line that has not ended.
    open: Vec<u8>,
}

impl Lines {
    pub(super) fn new(mask: Mask) -> Self {
        Self { masker: mask.masker(), open: Vec::new() }
    }

    /// Takes bytes, and gives out the lines that they end.
    pub(super) fn push(&mut self, bytes: &[u8], line: impl FnMut(String)) {
        self.masker.push(bytes, &mut self.open);
        self.split(line);
    }

    /// Gives out what has not ended: nothing more comes.
    pub(super) fn finish(&mut self, mut line: impl FnMut(String)) {
        self.masker.finish(&mut self.open);
        self.split(&mut line);
        if !self.open.is_empty() {
            line(text(&std::mem::take(&mut self.open)));
        }
    }

    fn split(&mut self, mut line: impl FnMut(String)) {
        let mut rest = self.open.as_slice();
        loop {
            let end = rest.iter().take(LONGEST_LINE + 1).position(|byte| *byte == b'\n');
            let taken = match end {
                Some(end) => end,
                None if rest.len() > LONGEST_LINE => boundary(rest, LONGEST_LINE),
                None => break,
            };
            let ended = &rest[..taken];
            line(text(ended.strip_suffix(b"\r").filter(|_| end.is_some()).unwrap_or(ended)));
            rest = &rest[taken + usize::from(end.is_some())..];
        }
        let left = rest.len();
        let done = self.open.len() - left;
        self.open.drain(..done);
    }
}

/// The last place up to `most` that is not within a character.
fn boundary(bytes: &[u8], most: usize) -> usize {
    let continues = |at: &usize| bytes[*at] & 0xC0 == 0x80;
    (most - 3..=most).rev().find(|at| !continues(at)).unwrap_or(most)
}

/// What can be stored: Postgres holds no null character.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::new(Mask::default()), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| all.push(line));
        }
        lines.finish(|line| all.push(line));
        all
    }

    #[test]
    fn chunks_become_lines_however_they_are_cut() {
        let text = "one\n\ntwo\r\nthr\u{e9}e\nlast".as_bytes();
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines(&[a, b]), ["one", "", "two", "thr\u{e9}e", "last"], "cut at {cut}");
        }
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn what_cannot_be_stored_is_replaced() {
        assert_eq!(lines(&[b"a\0b\xff\n"]), ["a\u{fffd}b\u{fffd}"]);
    }

    #[test]
    fn a_long_line_goes_on_in_another_and_no_character_is_torn() {
        let long = "\u{20ac}".repeat(LONGEST_LINE);
        let lines = lines(&[long.as_bytes(), b"\nnext"]);
        assert_eq!(lines.concat(), format!("{long}next"));
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE), "{}", lines.len());
        assert!(!lines.concat().contains('\u{fffd}'));
    }
}
