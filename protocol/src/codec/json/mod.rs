//! JSON: one object with a `type`.

mod decode;
mod encode;

pub use decode::{decode, decode_as};
pub use encode::{encode, event, message_fields};

#[cfg(test)]
mod tests;
