//! `fafnir`: a stock exchange and brokerage in one binary, with a trading terminal.

mod args;
mod background;
mod client;
mod commands;
mod output;
mod ports;
mod run;
mod seed;
mod settings;
mod stack;

use clap::Parser as _;
use output::{Error, Exit, Out};
use std::process::ExitCode;

fn main() -> ExitCode {
    // What this process creates is its owner's alone, whatever the umask was.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = args::Cli::parse();
    let out = Out::new(cli.global.json, cli.global.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            out.error(&Error::new(Exit::Failure, format!("no runtime: {e}")));
            return ExitCode::from(Exit::Failure as u8);
        }
    };
    let result = runtime.block_on(commands::execute(&cli, out));
    // Blocking work that is still under way (a read of the keyboard) does not hold the exit.
    runtime.shutdown_background();
    match result.and_then(|()| output::printed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.exit as u8)
        }
    }
}
