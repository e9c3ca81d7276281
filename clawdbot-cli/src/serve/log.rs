//! The access log: lines of JSON in a file, or on stderr. Requests do not wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use clawdbot_core::{Error, ErrorKind, Result};
use clawdbot_server::{AccessRecord, App};

use super::system;
use crate::output::warn;

/// Lines that wait to be written; what comes on top of that is lost, and counted.
const QUEUE: usize = 8192;

enum Message {
    Line(Box<AccessRecord>),
    /// The file may have another name now.
    Reopen,
    End,
}

/// An access log.
pub(super) struct AccessLog {
    sender: SyncSender<Message>,
    writer: Option<JoinHandle<()>>,
}

/// Where it is written.
enum Place {
    File(PathBuf, File),
    Stderr,
}

impl Place {
    /// The file at `path`, written at its end; `-` is stderr.
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Place::Stderr);
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| {
            let message = format!("option access_log: {}: {error}", path.display());
            Error::new(ErrorKind::Io, message).with("option", "access_log")
        })?;
        Ok(Place::File(path.to_path_buf(), file))
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Place::File(_, file) => file.write_all(line.as_bytes()),
            Place::Stderr => io::stderr().lock().write_all(line.as_bytes()),
        }
    }
}

impl AccessLog {
    /// Writes of the requests of `app`.
    pub(super) fn start(app: &App, path: &Path) -> Result<Self> {
        let place = Place::open(path)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let counting = app.clone();
        let writer = std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || write(place, &receiver, &counting))
            .map_err(|error| system("thread of the access log", &error))?;
        let (lines, counting) = (sender.clone(), app.clone());
        app.on_access(move |record| {
            if lines.try_send(Message::Line(Box::new(record.clone()))).is_err() {
                counting.count_lost_access();
            }
        });
        Ok(AccessLog { sender, writer: Some(writer) })
    }

    /// Opens the file again: a program that rotates logs has renamed it.
    pub(super) fn reopen(&self) {
        // A full queue means that the disk is slow; the next signal may come through.
        let _ = self.sender.try_send(Message::Reopen);
    }
}

impl Drop for AccessLog {
    /// Waits until all is written.
    fn drop(&mut self) {
        if self.sender.send(Message::End).is_ok()
            && let Some(writer) = self.writer.take()
        {
            let _ = writer.join();
        }
    }
}

fn write(mut place: Place, messages: &Receiver<Message>, app: &App) {
    // A disk that stays full is one warning.
    let mut failing = false;
    while let Ok(message) = messages.recv() {
        match message {
            Message::End => return,
            Message::Reopen => {
                if let Place::File(path, _) = &place {
                    match Place::open(path) {
                        Ok(open) => place = open,
                        Err(error) => warn(error.message()),
                    }
                }
            }
            Message::Line(record) => {
                let written = place.write(&format!("{}\n", record.to_json()));
                if let Err(error) = &written {
                    app.count_lost_access();
                    if !failing {
                        warn(&format!("access log: {error}; requests are answered, and not written down"));
                    }
                }
                failing = written.is_err();
            }
        }
    }
}
