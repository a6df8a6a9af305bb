//! Values and documents that a command is given in files or on standard input.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use net_types::limits::{MAX_COMMAND_BYTES, MAX_VALUE_BYTES};

use crate::outcome::{Exit, Failure};

/// Largest JSON document: a whole command, twice over for escapes and base64.
const MAX_DOCUMENT_BYTES: usize = 2 * MAX_COMMAND_BYTES;

/// The value that was typed, or else that of the file that was named, or else none.
pub(crate) fn value(typed: Option<String>, file: Option<&Path>) -> Result<Option<Bytes>, Failure> {
    match (typed, file) {
        (Some(typed), _) => Ok(Some(typed.into())),
        (None, Some(file)) => Ok(Some(read(file, MAX_VALUE_BYTES, "value")?.into())),
        (None, None) => Ok(None),
    }
}

/// A document as text.
pub(crate) fn document(file: &Path) -> Result<String, Failure> {
    let bytes = read(file, MAX_DOCUMENT_BYTES, "document")?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{} is not UTF-8 text", named(file))))
}

/// The bytes of a file, or of standard input for "-". One that is too large is not read to its end.
fn read(path: &Path, limit: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::usage(format!("cannot read the {what} from {}: {error}", named(path)))
    };
    let mut bytes = Vec::new();
    let one_more = limit as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(one_more).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(one_more).read_to_end(&mut bytes).map_err(fail)?;
    }
    if bytes.len() > limit {
        return Err(Failure {
            exit: Exit::Negative,
            code: "TOO_LARGE",
            message: format!("the {what} has more than {limit} bytes"),
        });
    }
    Ok(bytes)
}

/// A file as a message calls it.
pub(crate) fn named(path: &Path) -> String {
    match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}
