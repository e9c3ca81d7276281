//! Text on stdin that a command was not told to read.
//!
//! It is not read: a script may have it for other programs (`while read line; do clawdbot ...; done`), and a pipe that
//! nobody closes would never end.

use crate::args::OutputArgs;
use crate::output::warn;

/// Says that stdin has text, if it has, and `how` it would be read.
pub(crate) fn warn_of_unread(how: &str, output: &OutputArgs) {
    if !output.quiet && has_text() {
        warn(&format!("the text on stdin is not read; {how}; < /dev/null avoids this warning"));
    }
}

/// Whether there is something to read in a file or a pipe, found out without reading.
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
    // Outside of Linux, the end of a pipe may look like something to read.
    events.contains(PollFlags::POLLIN) && (cfg!(target_os = "linux") || !events.contains(PollFlags::POLLHUP))
}

#[cfg(not(unix))]
fn has_text() -> bool {
    false
}
