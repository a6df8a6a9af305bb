//! Lines on stdout, until its reader is gone.

use std::io::{ErrorKind, Write};

use tokio::sync::Notify;

static NOBODY_READS: Notify = Notify::const_new();

/// Writes a line. When the reader is gone, as after `| head -1`, the command is asked to stop.
pub(crate) fn line(text: impl AsRef<str>) {
    let written = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        NOBODY_READS.notify_one();
    }
}

/// Returns once the reader was found to be gone.
pub(crate) async fn nobody_reads() {
    NOBODY_READS.notified().await;
}
