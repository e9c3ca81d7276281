//! The lines of a conversation: from a pipe as they come, or from an editor on a terminal, with a history.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use clawdbot_core::{Error, ErrorKind, Result};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};

use crate::generate::{MAX_TEXT, too_long, utf8, without_line_end};

/// Most lines in the history, and most that are read from its file.
const MAX_HISTORY: usize = 1000;
/// Most bytes read from the history file.
const MAX_HISTORY_BYTES: u64 = 16 << 20;

/// What was read.
pub(crate) enum Line {
    Text(String),
    /// Ctrl-C in the editor.
    Interrupted,
    End,
}

/// The source of lines.
pub(crate) enum Input {
    Plain,
    Terminal(Box<Terminal>),
}

/// An editor and its history file.
pub(crate) struct Terminal {
    editor: Editor<(), MemHistory>,
    history: Option<File>,
}

impl Input {
    /// An editor, if `edit` is set and stdin and stdout are a terminal; otherwise a pipe.
    ///
    /// # Errors
    /// `Io`, `InvalidUtf8` for a history that cannot be read or written.
    pub(crate) fn new(edit: bool, history: Option<&Path>) -> Result<Self> {
        if !edit || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Input::Plain);
        }
        let failed = |error| Error::new(ErrorKind::Io, format!("the terminal: {error}"));
        let config = Config::builder().max_history_size(MAX_HISTORY).map_err(failed)?.build();
        let lines = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, lines).map_err(failed)?;
        let history = match history {
            Some(path) => {
                for line in history_lines(path)? {
                    editor.add_history_entry(line).map_err(failed)?;
                }
                Some(open_history(path)?)
            }
            None => None,
        };
        Ok(Input::Terminal(Box::new(Terminal { editor, history })))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// Reads the next line, without its end. `prompt` is shown on a terminal.
    ///
    /// # Errors
    /// `InvalidUtf8`, after which the next line can be read; `Io`.
    pub(crate) fn line(&mut self, prompt: &str) -> Result<Line> {
        let terminal = match self {
            Input::Plain => return plain_line(),
            Input::Terminal(terminal) => terminal,
        };
        match terminal.editor.readline(prompt) {
            Ok(line) => {
                terminal.remember(&line);
                Ok(Line::Text(line))
            }
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(error) => Err(Error::new(ErrorKind::Io, format!("the terminal: {error}"))),
        }
    }
}

impl Terminal {
    /// Adds a line to the history; if it cannot be written, it stays until the program ends.
    fn remember(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let _ = self.editor.add_history_entry(line);
        if let Some(file) = &mut self.history {
            let _ = writeln!(file, "{}", line.replace('\\', "\\\\").replace('\n', "\\n"));
        }
    }
}

fn plain_line() -> Result<Line> {
    let mut bytes = Vec::new();
    let failed = |error| Error::new(ErrorKind::Io, format!("stdin: {error}"));
    let length = io::stdin().lock().take(MAX_TEXT + 1).read_until(b'\n', &mut bytes).map_err(failed)?;
    if length == 0 {
        return Ok(Line::End);
    }
    if length as u64 > MAX_TEXT {
        return Err(too_long("stdin"));
    }
    let line = utf8(bytes, "stdin")?;
    Ok(Line::Text(without_line_end(&line).to_owned()))
}

/// The last lines of a history file, if there is one. In lines pasted as several, `\n` stands for line ends.
fn history_lines(path: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::new(ErrorKind::Io, format!("{}: {error}", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_HISTORY_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let text = utf8(bytes, &path.display().to_string())?;
    let lines: Vec<&str> = text.lines().collect();
    let unescape = |line: &&str| {
        let parts: Vec<String> = line.split("\\\\").map(|part| part.replace("\\n", "\n")).collect();
        parts.join("\\")
    };
    Ok(lines[lines.len().saturating_sub(MAX_HISTORY)..].iter().map(unescape).collect())
}

/// Opens the history file to append; a new one is readable by the user only.
fn open_history(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = |error| Error::new(ErrorKind::Io, format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    options.open(path).map_err(failed)
}
