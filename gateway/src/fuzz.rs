//! What the fuzz targets need of the private parts (builds with the feature `fuzz` only).

use hyper::Request;

use crate::node::Gateway;
use crate::token::Claims;

/// The claims of an upgrade that would be let in, none without a good token; or the HTTP status of its refusal.
///
/// # Errors
/// The status.
pub fn upgrade<B>(request: &Request<B>, node: &Gateway) -> Result<Option<Claims>, u16> {
    crate::handshake::judged(request, node)
}
