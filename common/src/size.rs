//! Numbers of bytes, as people write them: `4096`, `256KiB`, `1MiB`, `2GiB`.

/// Reads one.
///
/// # Errors
/// Says which form it wants.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size: a number of bytes, or one with KiB, MiB or GiB, such as \"256KiB\""
        )
    };
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [
            ("0", 0),
            ("17", 17),
            ("1B", 1),
            ("4 KiB", 4096),
            ("256KiB", 262_144),
            ("2GiB", 1 << 31),
        ] {
            assert_eq!(parse(text), Ok(size), "{text}");
        }
        for text in ["", "KiB", "1.5MiB", "-1", "1KB", "1kib", "99999999999GiB", "1 2"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("256KiB"), "{error}");
        }
    }
}
