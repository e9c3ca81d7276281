//! `clawdbot completions` and `clawdbot man`: the command line described for shells and for readers.

use std::{fs, io};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clawdbot_core::{Error, ErrorKind};

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output::{Failure, Outcome, print};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let shell: Shell =
        args.shell.parse().map_err(|message: String| Error::new(ErrorKind::Internal, message))?;
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "clawdbot", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

pub(crate) fn man(args: &ManArgs) -> Result<Outcome, Failure> {
    let failed = |error| Error::new(ErrorKind::Io, format!("{}: {error}", args.dir.display()));
    fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        let man = Man::new(command.clone());
        fs::write(args.dir.join(man.get_filename()), page(&man, command).map_err(failed)?).map_err(failed)?;
    }
    Ok(Outcome::Done)
}

/// A manual page, as clap generates it except for the text after the options, where examples keep their lines.
fn page(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(command.get_after_help().map(|text| section(&text.to_string())).unwrap_or_default().bytes());
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// The section with examples and further text. Indented lines stay as they are, others are filled.
fn section(text: &str) -> String {
    let mut section = String::new();
    let mut verbatim = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != verbatim {
            section += if indented { ".nf\n" } else { ".fi\n" };
            verbatim = indented;
        }
        match line {
            "" => section += ".PP\n",
            "Examples:" => section += ".SH EXAMPLES\n",
            line if section.is_empty() => section += &format!(".SH NOTES\n{}\n", escaped(line)),
            line => section += &format!("{}\n", escaped(line)),
        }
    }
    section + if verbatim { ".fi\n" } else { "" }
}

/// Escapes a line of text for roff.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    // A dot at the start would be a request.
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}
