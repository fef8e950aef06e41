//! What a user says of itself: text, kept as it was given. Whoever shows it must escape it.

/// Longest display name, characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest about text, characters.
pub const ABOUT_CHARS_MAX: usize = 140;
/// Longest label of a device, characters.
pub const LABEL_CHARS_MAX: usize = 64;

/// Why a text is not taken. It is shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// Empty, or nothing but blanks.
    #[error("must not be empty")]
    Empty,
    /// Too long.
    #[error("at most {0} characters")]
    Long(usize),
    /// Control characters (Unicode category Cc, and the line and paragraph separators): they forge lines and terminals.
    #[error("control characters are not taken")]
    Control,
}

/// A user as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Who.
    pub user: protocol::UserId,
    /// Display name; empty: none was given.
    pub name: String,
    /// About text; may be empty.
    pub about: String,
}

/// A display name: 1 to [`NAME_CHARS_MAX`] characters, not only blanks.
///
/// # Errors
/// [`BadText`].
pub fn name(text: &str) -> Result<&str, BadText> {
    if text.trim().is_empty() { Err(BadText::Empty) } else { plain(text, NAME_CHARS_MAX) }
}

/// An about text: 0 to [`ABOUT_CHARS_MAX`] characters.
///
/// # Errors
/// [`BadText`].
pub fn about(text: &str) -> Result<&str, BadText> {
    plain(text, ABOUT_CHARS_MAX)
}

/// A label of a device: 0 to [`LABEL_CHARS_MAX`] characters.
///
/// # Errors
/// [`BadText`].
pub fn label(text: &str) -> Result<&str, BadText> {
    plain(text, LABEL_CHARS_MAX)
}

fn plain(text: &str, chars_max: usize) -> Result<&str, BadText> {
    if text.chars().any(|char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) {
        return Err(BadText::Control);
    }
    if text.chars().count() > chars_max { Err(BadText::Long(chars_max)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_as_it_is_or_refused() {
        for good in
            ["Ann", "<b>Ann</b>", "\u{202e}nnA", "Ann O'Neil; DROP TABLE user", "أحمد", "👩‍👩‍👧", &"x".repeat(64), "%s%n", "a\u{301}"]
        {
            assert_eq!(name(good), Ok(good));
        }
        assert_eq!(name(""), Err(BadText::Empty));
        assert_eq!(name(" \u{3000}"), Err(BadText::Empty));
        assert_eq!(name(&"x".repeat(65)), Err(BadText::Long(64)));
        for bad in ["a\0", "a\nb", "\u{1b}[31mred", "a\rb", "\u{9b}31m", "a\u{2028}b", "\u{7f}"] {
            assert_eq!(name(bad), Err(BadText::Control), "{bad:?}");
            assert_eq!(about(bad), Err(BadText::Control), "{bad:?}");
        }
        assert_eq!(about(""), Ok(""));
        assert_eq!(about(&"é".repeat(141)), Err(BadText::Long(140)));
    }
}
