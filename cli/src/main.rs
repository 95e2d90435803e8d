//! `fafnir`: a stock exchange and brokerage in one binary, with a trading terminal.

mod args;
mod background;
mod client;
mod commands;
mod complete;
mod doors;
mod examples;
mod memory;
mod output;
mod ports;
mod run;
mod seed;
mod settings;
mod stack;

use clap::{CommandFactory as _, FromArgMatches as _};
use output::{Error, Exit, Out};
use std::process::ExitCode;

fn main() -> ExitCode {
    fafnir_heap::bound();
    // What this process creates is its owner's alone, whatever the umask was.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match complete::answer() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            Out::new(false, args::Color::Auto).error(&error);
            return ExitCode::from(error.exit as u8);
        }
    }
    let command = examples::with_examples(args::Cli::command());
    let parsed = command.try_get_matches().and_then(|found| args::Cli::from_arg_matches(&found));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return not_a_command(&e),
    };
    let out = Out::new(cli.global.json, cli.global.color);
    tell_unknown_variables(&cli, out);
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
        Err(mut error) => {
            error.hint = with_given(&error.hint, &cli);
            if serves(&cli.command) && settings::logs_json(&cli.global) {
                Out::logged(&error);
            } else {
                out.error(&error);
            }
            ExitCode::from(error.exit as u8)
        }
    }
}

/// A variable that looks like ours and means nothing is told, once.
fn tell_unknown_variables(cli: &args::Cli, out: Out) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = settings::unknown_variables(names);
    if unknown.is_empty() {
        return;
    }
    let text = format!("no setting is called {}: it changes nothing", unknown.join(", "));
    if serves(&cli.command) && settings::logs_json(&cli.global) {
        Out::log_line("WARN", &text, "", "`fafnir config --explain` names every variable");
    } else {
        out.note(format_args!("{text}; `fafnir config --explain` names every variable"));
    }
}

/// Whether a command's standard error is a log: whoever collects it reads how it ended there.
fn serves(command: &args::Command) -> bool {
    use args::Command::{
        AuthService, Broker, Gateway, Migrate, OrderService, PortfolioService, SecurityService, Seed, Sim,
        StockService, TradeEngine, Up, UserService,
    };
    matches!(
        command,
        Gateway(_)
            | AuthService(_)
            | SecurityService(_)
            | UserService(_)
            | StockService(_)
            | OrderService(_)
            | PortfolioService(_)
            | TradeEngine(_)
            | Broker(_)
            | Sim(_)
            | Migrate
            | Seed(_)
            | Up(_)
    )
}

/// What was said is no command: clap's words, or one JSON document for who asked for that; help and version as well.
fn not_a_command(e: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|word| word == "--json");
    if !e.use_stderr() || !wants_json {
        drop(e.print());
        return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(Exit::Usage as u8));
    }
    let text = e.render().to_string();
    let (what, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let error = Error::usage(line(what.trim_start_matches("error: "))).hint(line(hint));
    Out::new(true, args::Color::Never).error(&error);
    ExitCode::from(Exit::Usage as u8)
}

/// Commands that a hint names, with the --data-dir and --url that this one was given.
fn with_given(hint: &str, cli: &args::Cli) -> String {
    let url = complete::said(&std::env::args().collect::<Vec<_>>(), "--url");
    let root = args::Cli::command();
    let parts = hint.split('`').enumerate().map(|(at, part)| {
        let Some(rest) = part.strip_prefix("fafnir ").filter(|_| at % 2 == 1) else { return part.to_owned() };
        let mut named = "fafnir ".to_owned();
        if let Some(dir) = cli.global.data_dir.as_ref().filter(|_| !rest.contains("--data-dir")) {
            named.push_str(&format!("--data-dir {} ", dir.display()));
        }
        named.push_str(rest);
        let path = rest.split(' ').take_while(|word| !word.starts_with('-'));
        let command = path.fold(&root, |command, name| command.find_subcommand(name).unwrap_or(command));
        let takes_url = command.get_arguments().any(|arg| arg.get_id() == "url");
        if let Some(url) = url.as_ref().filter(|_| takes_url && !rest.contains("--url")) {
            named.push_str(&format!(" --url {url}"));
        }
        named
    });
    parts.collect::<Vec<_>>().join("`")
}
