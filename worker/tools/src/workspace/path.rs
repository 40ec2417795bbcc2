//! Paths that stay within a run's folder.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::Failure;

/// How often a name is decoded to see what it may become elsewhere.
const DECODED: usize = 4;
/// The longest path, in bytes, as on Linux.
const LONGEST: usize = 4_095;

/// A relative path that climbs nowhere. Links are met, and refused, when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside(PathBuf);

impl AsRef<Path> for Inside {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Inside {
    /// What a node names, or why it may not.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        if text.contains('\0') || text.len() > LONGEST {
            return Err(Failure::permanent("a path has up to 4095 bytes, and no null character"));
        }
        // What is decoded once more on its way, here or in a program, must not lead out, either.
        let mut forms = vec![text.as_bytes().to_vec()];
        while forms.len() <= DECODED
            && let Some(next) = forms.last().and_then(|form| decoded(form))
        {
            forms.push(next);
        }
        if forms.iter().any(|form| leads_out(form)) {
            return Err(out(text));
        }
        let mut path = PathBuf::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => _ = path.pop(),
                _ => {}
            }
        }
        Ok(Self(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }))
    }

    /// The path of a file: it has a name.
    pub(crate) fn file(text: &str) -> Result<Self, Failure> {
        let path = Self::read(text)?;
        match text.rsplit('/').next() {
            None | Some("" | "." | "..") => {
                Err(Failure::permanent(format!("`{text}` names no file")))
            }
            Some(_) => Ok(path),
        }
    }

    /// The folder above; none when it is the run's own.
    pub(crate) fn parent(&self) -> Option<&Path> {
        self.0.parent().filter(|parent| !parent.as_os_str().is_empty())
    }

    /// Its last name.
    pub(crate) fn name(&self) -> &Path {
        self.0.file_name().map_or(Path::new("."), Path::new)
    }

    /// As it shows in outputs.
    pub(crate) fn shown(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    pub(crate) fn is_no(&self, wanted: &str) -> Failure {
        Failure::permanent(format!("`{}` is no {wanted}", self.0.display()))
    }

    /// What the system said to it.
    pub(crate) fn failed(&self, done: &str, error: &io::Error) -> Failure {
        let shown = self.0.display();
        if is_escape(error) {
            return out(&shown.to_string());
        }
        let message = format!("`{shown}` cannot be {done}: {error}");
        match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::permanent(format!("there is no `{shown}` in the workspace of this run"))
            }
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::ReadOnlyFilesystem => Failure::permanent(message),
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Failure::permanent(message)
            }
            // A fifo that nobody reads, a socket.
            _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                self.is_no("file")
            }
            _ => Failure::retryable(message),
        }
    }
}

fn out(text: &str) -> Failure {
    Failure::permanent(format!(
        "`{text}` leads out of the workspace; a path is relative, and stays within the folder of its run"
    ))
}

/// What `cap-std` says, and what `openat2` does.
fn is_escape(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error())
        || error.raw_os_error().is_none() && error.to_string().contains("outside of the filesystem")
}

/// The same with its `%xx` decoded; none when it has none.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (mut out, mut at, mut any) = (Vec::with_capacity(text.len()), 0, false);
    while at < text.len() {
        let pair = (text[at] == b'%').then(|| digit(text.get(at + 1)).zip(digit(text.get(at + 2))));
        match pair.flatten() {
            Some((high, low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                (at, any) = (at + 3, true);
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    any.then_some(out)
}

/// Whether a path, read by whatever rules, is absolute or climbs above where it began.
fn leads_out(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&plain(text)).into_owned();
    if text.starts_with('/')
        || text.starts_with('~') && matches!(text.as_bytes().get(1), None | Some(b'/'))
    {
        return true;
    }
    let drive = text.as_bytes();
    if drive.len() >= 2
        && drive[0].is_ascii_alphabetic()
        && drive[1] == b':'
        && drive.get(2).is_none_or(|b| *b == b'/')
    {
        return true;
    }
    let mut depth = 0i64;
    text.split('/').any(|name| {
        depth += match name {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// With the separators of other systems, and the overlong forms of `.` and `/`, as what they are taken for.
fn plain(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        let (byte, taken) = match &text[at..] {
            [0xC0, 0xAE, ..] => (b'.', 2),
            [0xC0, 0xAF, ..] => (b'/', 2),
            [0xC1, 0x9C, ..] | [b'\\', ..] => (b'/', if text[at] == b'\\' { 1 } else { 2 }),
            [0xE0, 0x80, 0xAE, ..] => (b'.', 3),
            [0xE0, 0x80, 0xAF, ..] => (b'/', 3),
            [0, ..] => (b'/', 1),
            [byte, ..] => (*byte, 1),
            [] => break,
        };
        out.push(byte);
        at += taken;
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every one of these is refused, and the failure says why.
    pub(in crate::workspace) const OUT: &[&str] = &[
        "..",
        "../",
        "../x",
        "../../etc/passwd",
        "a/../..",
        "a/../../x",
        "a/b/../../../x",
        "./..",
        "./../x",
        "a/./../../x",
        "/",
        "/etc/passwd",
        "//etc/passwd",
        "///x",
        "/./x",
        "/../x",
        "~",
        "~/x",
        "..\\x",
        "a\\..\\..\\x",
        "\\etc\\passwd",
        "\\\\host\\share",
        "C:\\x",
        "C:/x",
        "c:",
        "..\\/x",
        "../\\x",
        "%2e%2e/x",
        "%2e%2e%2fx",
        "..%2fx",
        "%2E%2E%2Fx",
        "a/%2e%2e/%2e%2e/x",
        "%2fetc%2fpasswd",
        "..%5cx",
        "%5cx",
        "%252e%252e%252fx",
        "%252e%252e/x",
        "%25252e%25252e%25252fx",
        "..%252fx",
        "%252fetc",
        "%2e%2e%255cx",
        "%c0%ae%c0%ae/x",
        "..%c0%afx",
        "%c0%ae%c0%ae%c0%afx",
        "..%c1%9cx",
        "%e0%80%ae%e0%80%ae/x",
        "..%00/x",
        "%00/etc/passwd",
        "....//../../../../x",
        "..;/../../x",
    ];

    #[test]
    fn what_leads_out_is_refused_and_the_failure_says_so() {
        assert!(OUT.len() >= 40);
        for text in OUT {
            match Inside::read(text) {
                Err(Failure::Permanent { message }) => {
                    assert!(message.contains("leads out of the workspace"), "{text}: {message}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let null = Inside::read("a\0b");
        assert!(matches!(null, Err(Failure::Permanent { .. })), "{null:?}");
        assert!(Inside::read(&"x".repeat(5_000)).is_err());
    }

    #[test]
    fn what_stays_inside_is_what_it_says() {
        for (text, path) in [
            ("a", "a"),
            ("a/b.txt", "a/b.txt"),
            ("./a", "a"),
            ("a//b/", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("a/..", "."),
            (".hidden", ".hidden"),
            ("...", "..."),
            ("a..b", "a..b"),
            ("100%", "100%"),
            ("100%25.txt", "100%25.txt"),
            ("a%20b", "a%20b"),
            ("a b", "a b"),
            ("", "."),
            (".", "."),
            ("\u{ff0e}\u{ff0e}/x", "\u{ff0e}\u{ff0e}/x"),
            ("ä/ö", "ä/ö"),
            ("a:b", "a:b"),
            ("~x", "~x"),
        ] {
            assert_eq!(
                Inside::read(text).map(|inside| inside.shown()),
                Ok(path.to_owned()),
                "{text}"
            );
        }
        for text in ["", ".", "a/", "a/.", "a/.."] {
            assert!(matches!(Inside::file(text), Err(Failure::Permanent { .. })), "{text}");
        }
        for text in ["a", "a.", "a/b", "a/../b"] {
            assert!(Inside::file(text).is_ok(), "{text}");
        }
    }
}
