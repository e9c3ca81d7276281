//! Warns of text on stdin that the command does not read.
//!
//! It is not read because a script may have it for other programs (`while read line; do clawdbot ...; done`), and
//! because a pipe that is never closed has no end.

use crate::args::OutputArgs;
use crate::output::warn;

/// Warns if stdin has text; `how` says how to read it.
pub(crate) fn warn_of_unread(how: &str, output: &OutputArgs) {
    if !output.quiet && has_text() {
        warn(&format!("ignoring the text on stdin; {how}; < /dev/null avoids this warning"));
    }
}

/// Whether a file or pipe on stdin has data, without reading it.
#[cfg(unix)]
fn has_text() -> bool {
    use std::fs::File;
    use std::io::{self, Seek};
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let Ok(mut stdin) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else { return false };
    let Ok(metadata) = stdin.metadata() else { return false };
    if metadata.is_file() {
        return stdin.stream_position().is_ok_and(|at| at < metadata.len());
    }
    if !metadata.file_type().is_fifo() {
        return false;
    }
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let found = poll(&mut waiting, PollTimeout::ZERO);
    let events = waiting[0].revents().filter(|_| found == Ok(1)).unwrap_or(PollFlags::empty());
    // On systems other than Linux, the end of a pipe may look like data.
    events.contains(PollFlags::POLLIN) && (cfg!(target_os = "linux") || !events.contains(PollFlags::POLLHUP))
}

#[cfg(not(unix))]
fn has_text() -> bool {
    false
}
