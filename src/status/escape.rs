//! Bytes that clients have sent, made harmless for each format.

use std::fmt::Write;

/// For html and xml: as PHP's `htmlspecialchars` with ENT_COMPAT, ENT_XML1 and ENT_DISALLOWED.
pub(super) fn markup(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

/// For the inside of a JSON string: as PHP's `json_encode` with JSON_INVALID_UTF8_IGNORE.
pub(super) fn json(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            json_character(&mut out, character);
        }
    }
    out
}

fn json_character(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '/' => out.push_str("\\/"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        ' '..='\u{7f}' => out.push(character),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // A `String` cannot fail to take text.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// For the text page: as it is, but on one line.
pub(super) fn line(text: &[u8]) -> Vec<u8> {
    text.iter()
        .map(|&byte| if byte.is_ascii_control() { b'?' } else { byte })
        .collect()
}

/// For HELP lines of OpenMetrics.
pub(super) fn help(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_has_no_markup() {
        assert_eq!(
            markup(b"<script>\"'&\x01\xff\xc3\xa4"),
            "&lt;script&gt;&quot;'&amp;\u{fffd}\u{fffd}\u{e4}"
        );
    }

    #[test]
    fn json_is_written_as_json_encode_writes_it() {
        // php > echo json_encode("/a\"\\\x08\n\x1f\x7f<\xff\xc3\xa4\xf0\x9f\x98\x80'", JSON_INVALID_UTF8_IGNORE);
        assert_eq!(
            json(b"/a\"\\\x08\n\x1f\x7f<\xff\xc3\xa4\xf0\x9f\x98\x80'"),
            "\\/a\\\"\\\\\\b\\n\\u001f\u{7f}<\\u00e4\\ud83d\\ude00'"
        );
    }

    #[test]
    fn text_cannot_forge_lines() {
        assert_eq!(line(b"/\nslow requests: 1\xff"), b"/?slow requests: 1\xff");
    }
}
