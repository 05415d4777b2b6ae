//! Writes the manual pages and the shells' completions into a directory: `make` calls it.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use idmctl::cli::Cli;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).ok_or("which directory?")?;
    fs::create_dir_all(&directory)?;
    let mut command = Cli::command();
    command.build();
    pages(&directory, &command)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "idmctl", &directory)?;
    }
    Ok(())
}

/// The page of a command, and those of its subcommands, in the section for administrators.
fn pages(directory: &Path, command: &Command) -> Result<(), Box<dyn Error>> {
    let subcommands = command.get_subcommands().filter(|it| it.get_name() != "help");
    for subcommand in subcommands {
        pages(directory, subcommand)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut page = Vec::new();
    Man::new(command.clone()).section("8").render(&mut page)?;
    // Examples and exit statuses are in columns, which must not be filled like prose.
    let page =
        String::from_utf8(page)?.replace(".SH EXTRA\n", ".SH \"EXAMPLES AND EXIT STATUS\"\n.nf\n");
    fs::write(directory.join(format!("{name}.8")), page)?;
    Ok(())
}
