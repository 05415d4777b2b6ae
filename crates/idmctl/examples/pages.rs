//! Writes the manual pages and the shells' completions into a directory: `make` calls it.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use idmctl::cli::Cli;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Sections that clap does not make, for the page of the program.
const FILES: &str = r"
.fi
.SH FILES
.TP
/etc/lvm/lvmlockd\-idm.conf
the settings of lvmlockd, which drives have the global lock among them
.TP
/run/lvmlockd\-idm
what lvmlockd has noted: started volume groups, locks, what it refused lately, metrics
.TP
/etc/lvm/backup
names of volume groups and logical volumes
";
/// Reference on the pages of the commands.
const PROGRAM: &str = "\\fBidmctl\\fR(8), which has examples and the exit status;\n";
/// References on all pages.
const SEE_ALSO: &str = r"
\fBliblvmlockd_idm\fR(7), \fBlvmlockd\-idm.conf\fR(5), \fBlvmlockd\fR(8)
";

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
    let mut page =
        String::from_utf8(page)?.replace(".SH EXTRA\n", ".SH \"EXAMPLES AND EXIT STATUS\"\n.nf\n");
    let is_program = command.has_subcommands();
    page.push_str(if is_program { FILES.trim_start() } else { "" });
    page.push_str(".SH SEE ALSO\n");
    page.push_str(if is_program { "" } else { PROGRAM });
    page.push_str(SEE_ALSO.trim_start());
    fs::write(directory.join(format!("{name}.8")), page)?;
    Ok(())
}
