//! The program; everything is in the library beside it.

use clap::Parser;
use idmctl::cli::{Cli, Command};
use idmctl::host::{Host, Places};
use idmctl::output::{ALARM, styled};
use idmctl::{Exit, Trouble, drives, hosts, metrics, repair, replay, selftest, status, why};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = run(&cli).unwrap_or_else(|trouble| {
        anstream::eprintln!("{} {trouble}", styled(ALARM, "idmctl:"));
        Exit::Failed
    });
    exit.into()
}

fn run(cli: &Cli) -> Result<Exit, Trouble> {
    let common = &cli.common;
    let mut host = Host::look(&Places::default(), common.emulated().as_deref())?;
    match &cli.command {
        Command::Status(wanted) => status::run(&mut host, common, wanted),
        Command::Drives => drives::run(&host, common),
        Command::Hosts(wanted) => hosts::run(&mut host, common, wanted),
        Command::Metrics(wanted) => metrics::run(&host, common, wanted),
        Command::Why(wanted) => why::run(&mut host, common, wanted),
        Command::Release(wanted) => repair::release(&mut host, common, wanted),
        Command::Clear(wanted) => repair::clear(&mut host, common, wanted),
        Command::Selftest(wanted) => selftest::run(&host, common, wanted),
        Command::Replay(wanted) => replay::run(common, wanted),
    }
}
