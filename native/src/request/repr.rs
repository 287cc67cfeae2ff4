//! Names as the Python half of the gateway quotes them, so that both front ends tell callers the same.

use std::fmt::Write;

/// Return what Python's `repr` of the same `str` is.
///
/// Whether a character beyond ASCII is printable is decided by the Unicode version of Rust's standard
/// library; a character that is newer than the Python's in use may be shown where Python escapes it.
pub fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if character == quote => quoted.extend(['\\', quote]),
            ' '..='~' => quoted.push(character),
            _ if is_printable(character) => quoted.push(character),
            _ => push_escaped(&mut quoted, character),
        }
    }
    quoted.push(quote);
    quoted
}

/// Whether a character beyond ASCII is printable in Python's sense: neither Other nor Separator.
///
/// The standard library has the same rule in `escape_debug`, but in a text's first place escapes combining
/// characters too; hence the letter before.
fn is_printable(character: char) -> bool {
    let mut text = [b'a'; 5];
    let size = 1 + character.encode_utf8(&mut text[1..]).len();
    match std::str::from_utf8(&text[..size]) {
        Ok(text) => text.escape_debug().nth(1) == Some(character),
        Err(_) => false,
    }
}

fn push_escaped(quoted: &mut String, character: char) {
    let code = u32::from(character);
    let written = match code {
        0..=0xff => write!(quoted, "\\x{code:02x}"),
        0x100..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_python_does() {
        for (text, expected) in [
            ("", "''"),
            ("x", "'x'"),
            ("it's", "\"it's\""),
            ("say \"x\"", "'say \"x\"'"),
            ("it's \"x\"", "'it\\'s \"x\"'"),
            ("a\\b", "'a\\\\b'"),
            ("a\tb\nc\rd", "'a\\tb\\nc\\rd'"),
            ("\0\x1b\x7f", "'\\x00\\x1b\\x7f'"),
            ("\u{80}\u{a0}\u{ad}", "'\\x80\\xa0\\xad'"),
            ("äß中😀", "'äß中😀'"),
            ("\u{300}e\u{301}\u{200d}", "'\u{300}e\u{301}\\u200d'"),
            ("\u{2028}\u{3000}\u{e000}", "'\\u2028\\u3000\\ue000'"),
            ("\u{e0001}\u{10ffff}", "'\\U000e0001\\U0010ffff'"),
        ] {
            assert_eq!(python_repr(text), expected);
        }
    }
}
