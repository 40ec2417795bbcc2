//! Masks a stream of bytes, however it is cut into chunks.

use super::mask::{MASK, Mask};

/// A [`Mask`] over a stream: what could be the beginning of a secret is held back until more has come.
#[derive(Debug)]
pub struct Masker {
    mask: Mask,
    /// Whether some form begins with a byte.
    begins: Box<[bool; 256]>,
    held: Vec<u8>,
}

impl Masker {
    pub(super) fn new(mask: Mask) -> Self {
        let mut begins = Box::new([false; 256]);
        for first in mask.forms().filter_map(|form| form.first()) {
            begins[usize::from(*first)] = true;
        }
        Self { mask, begins, held: Vec::new() }
    }

    /// Takes bytes, and appends to `out` what is sure to hide nothing.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.mask.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        self.pass(false, out);
    }

    /// Appends what was held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.pass(true, out);
    }

    fn pass(&mut self, is_all: bool, out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(byte) = self.held.get(at) {
            if !self.begins[usize::from(*byte)] {
                out.push(*byte);
                at += 1;
                continue;
            }
            let rest = &self.held[at..];
            // The longest form first: one that may still come counts before a shorter one that is there.
            let met = self.mask.forms().find(|form| {
                rest.starts_with(form)
                    || (!is_all && rest.len() < form.len() && form.starts_with(rest))
            });
            match met {
                Some(form) if rest.len() < form.len() => break,
                Some(form) => {
                    out.extend_from_slice(MASK.as_bytes());
                    at += form.len();
                }
                None => {
                    out.push(*byte);
                    at += 1;
                }
            }
        }
        self.held.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], chunks: &[&[u8]]) -> String {
        let mut masker = Masker::new(Mask::new(secrets.iter().copied()));
        let mut out = Vec::new();
        for chunk in chunks {
            masker.push(chunk, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_secret_shows_wherever_it_is_cut() {
        let text = b"login with open-sesame-please, and with\nopen-sesame; open-sesa";
        let secrets = ["open-sesame", "open-sesame-please"];
        for first in 0..text.len() {
            for second in first..text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                let masked = masked(&secrets, &chunks);
                assert_eq!(masked, "login with ***, and with\n***; open-sesa", "{first} {second}");
            }
        }
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_whole_byte_by_byte() {
        let secret = "-----BEGIN-----\nabcdefghijkl\nxyz\n-----END-----";
        let text = format!("key: {secret}\ndone");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(&[secret], &bytes), "key: ***\ndone");
    }

    #[test]
    fn without_secrets_everything_passes_at_once() {
        let mut out = Vec::new();
        Masker::new(Mask::default()).push(b"as it is\xff", &mut out);
        assert_eq!(out, b"as it is\xff");
    }
}
