//! Text of others, made harmless for a screen: nothing in it moves the cursor, changes the direction of writing, hides, or looks like a
//! line of somebody else.

use std::fmt::Write as _;

/// Whether a character acts on the screen instead of being seen on it: controls (C0, DEL, C1), line and paragraph separators, marks,
/// embeddings, overrides and isolates of the bidirectional algorithm (UAX 9), and what is invisible (except the joiners, of which emoji and scripts are made).
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text in one line; what is harmful is written as `\u{1b}`.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            // writing into a String cannot fail
            let _ = write!(out, "{}", character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// A text of several lines: those behind the first begin with `margin`, so that none can be taken for a line of ours.
pub(crate) fn lines(text: &str, margin: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let lines: Vec<_> = text.split('\n').map(line).collect();
    lines.join(&format!("\n{margin}"))
}

/// JSON of the same meaning in which everything harmful is escaped, so that it may be looked at too.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_on_a_screen_is_written_out() {
        assert_eq!(
            line("a\u{1b}[2Jb\u{9b}31m\r\u{7f}\u{202e}c\u{2066}"),
            "a\\u{1b}[2Jb\\u{9b}31m\\u{d}\\u{7f}\\u{202e}c\\u{2066}"
        );
        assert_eq!(lines("one\r\ntwo\n12:00 Bob: hi", "   | "), "one\n   | two\n   | 12:00 Bob: hi");
        assert_eq!(line("Zoë 你好 👩‍👩‍👧 \\"), "Zoë 你好 👩‍👩‍👧 \\", "what is only seen stays as it is");
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            prop_assert!(!line(&text).chars().any(is_harmful));
            prop_assert!(!lines(&text, "| ").chars().any(|c| c != '\n' && is_harmful(c)));
        }

        #[test]
        fn json_means_the_same(text in any::<String>()) {
            let written = json(&serde_json::to_string(&text).unwrap());
            prop_assert!(!written.chars().any(is_harmful));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
