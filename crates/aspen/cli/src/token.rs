//! Reading capability tokens as they are given: as text, or as a file with it.

use std::path::Path;

use aspen_auth::{Token, TokenError};
use aspen_client::read_secret_file;

use crate::outcome::Failure;

/// The token that `name` gives.
pub(crate) fn token_from(name: &str, given: &str) -> Result<Token, Failure> {
    let given = given.trim();
    let foreign = match given.parse() {
        Ok(token) => return Ok(token),
        Err(TokenError::Foreign) => TokenError::Foreign,
        Err(error) => return Err(Failure::usage(format!("{name}: {error}"))),
    };
    let path = Path::new(given);
    let read = read_secret_file(path);
    let text = read.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let Some(text) = text else {
        return Err(Failure::usage(format!("{name}: {foreign}, or be a file that exists")));
    };
    let read = text.expose().trim().parse();
    read.map_err(|error| Failure::usage(format!("{name}: {}: {error}", path.display())))
}
