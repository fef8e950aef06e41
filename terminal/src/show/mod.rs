//! What is shown, to programs and to people. Nothing of others reaches a screen before it went through [`crate::escape`].

pub(crate) mod json;
pub(crate) mod people;
