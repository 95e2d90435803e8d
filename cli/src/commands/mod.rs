//! One file per command; `execute` is the table from what was said to what is done.

mod account;
mod admin;
mod alert;
mod audit;
mod audit_log;
mod backup;
mod bench;
mod books;
mod broker;
mod config;
#[cfg(test)]
mod coverage;
mod demo;
mod doctor;
mod import;
mod journal;
mod key;
mod load;
mod logs;
mod look;
mod market;
mod operate;
mod order;
mod platform;
mod portfolio;
mod preview;
mod rebuild;
mod replay;
mod report;
pub mod scenario;
mod secrets;
mod session;
mod sim_check;
mod top;
mod trade;
mod watch;

pub use logs::service_of;

use crate::{
    args::{Cli, Command, Man},
    complete,
    examples::with_examples,
    output::{Error, Out, Result},
};
use clap::CommandFactory as _;
use std::fs;

#[expect(clippy::too_many_lines, reason = "a row for each command")]
pub async fn execute(cli: &Cli, out: Out) -> Result {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => platform::up(global, args, out).await,
        Command::Down => platform::down(global, out).await,
        Command::Status => platform::status(global, out).await,
        Command::Top(args) => top::top(global, args, out).await,
        Command::Ready(args) => platform::ready(global, args, out).await,
        Command::Logs(args) => logs::logs(global, args, out).await,
        Command::Doctor => doctor::doctor(global, out).await,
        Command::Gateway(args) => platform::service(global, "api-gateway", "ports.gateway", args, out).await,
        Command::AuthService(args) => {
            platform::service(global, "auth-service", "ports.auth", args, out).await
        }
        Command::SecurityService(args) => {
            platform::service(global, "security-service", "ports.security", args, out).await
        }
        Command::UserService(args) => {
            platform::service(global, "user-service", "ports.user", args, out).await
        }
        Command::StockService(args) => {
            platform::service(global, "stock-service", "ports.stock", args, out).await
        }
        Command::OrderService(args) => {
            platform::service(global, "order-service", "ports.order", args, out).await
        }
        Command::PortfolioService(args) => {
            platform::service(global, "portfolio-service", "ports.portfolio", args, out).await
        }
        Command::TradeEngine(args) => {
            platform::service(global, "trade-engine", "ports.engine", args, out).await
        }
        Command::Broker(args) => broker::broker(global, args, out).await,
        Command::Import(args) => import::import(global, args, out).await,
        Command::Sim(args) => platform::sim(global, args, out).await,
        Command::Migrate => platform::migrate(global, out).await,
        Command::Journal(args) => journal::journal(global, args, out),
        Command::Rebuild(args) => rebuild::rebuild(global, args, out).await,
        Command::Secrets(args) => secrets::secrets(global, args, out).await,
        Command::Seed(args) => platform::seed(global, args, out).await,
        Command::Trade(args) => trade::trade(global, args, out).await,
        Command::Demo(args) => demo::demo(global, args, out).await,
        Command::Register(args) => session::register(global, args, out).await,
        Command::Whoami(at) => look::whoami(global, at, out).await,
        Command::Candles(args) => look::candles(global, args, out).await,
        Command::Trades(args) => look::trades(global, args, out).await,
        Command::Statistics(args) => look::statistics(global, args, out).await,
        Command::Volume(args) => look::volume(global, args, out).await,
        Command::Search(args) => look::search(global, args, out).await,
        Command::Instrument(args) => look::instrument(global, args, out).await,
        Command::Fills(args) => look::fills(global, args, out).await,
        Command::Watch(args) => watch::watch(global, args, out).await,
        Command::Statement(args) => books::statement(global, args, out).await,
        Command::Performance(args) => books::performance(global, args, out).await,
        Command::Lots(args) => books::lots(global, args, out).await,
        Command::Login(args) => session::login(global, args, out).await,
        Command::Logout(at) => session::logout(global, at, out).await,
        Command::Key(args) => key::key(global, args, out).await,
        Command::Session(args) => session::sessions(global, args, out).await,
        Command::Admin(args) => admin::admin(global, args, out).await,
        Command::AuditLog(args) => audit_log::audit_log(global, args, out).await,
        Command::Order(args) => order::order(global, args, out).await,
        Command::Book(args) => market::book(global, args, out).await,
        Command::Quote(args) => market::quote(global, args, out).await,
        Command::History(args) => market::history(global, args, out).await,
        Command::Portfolio(args) => portfolio::portfolio(global, args, out).await,
        Command::Account(args) => account::account(global, args, out).await,
        Command::Report(args) => report::report(global, args, out).await,
        Command::Watchlist(args) => portfolio::watchlist(global, args, out).await,
        Command::Alert(args) => alert::alert(global, args, out).await,
        Command::Backup(args) => backup::backup(global, args, out).await,
        Command::Restore(args) => backup::restore(global, args, out).await,
        Command::Audit(args) => audit::audit(global, args, out).await,
        Command::Market(args) => operate::market(global, args, out).await,
        Command::Bench(args) => bench::bench(args, out),
        Command::Load(args) => load::load(global, args, out).await,
        Command::Replay(args) => replay::replay(global, args, out),
        Command::Config(args) => config::config(global, args, out),
        Command::Schema => {
            out.raw(&fafnir_services::gateway::sdl());
            Ok(())
        }
        Command::Completions(args) => {
            out.raw(&complete::script(args.shell)?);
            Ok(())
        }
        Command::Man(args) => man(args, out),
    }
}

/// Prints the page of a command, or writes those of all.
fn man(args: &Man, out: Out) -> Result {
    let root = with_examples(Cli::command());
    if let Some(dir) = &args.dir {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(root, dir)?;
        out.note(format_args!("manual pages are in {}", dir.display()));
        return Ok(());
    }
    let mut name = "fafnir".to_owned();
    let mut command = root;
    for word in &args.command {
        let below = command.find_subcommand(word).cloned();
        command = below.ok_or_else(|| Error::usage(format!("there is no `{name} {word}`")))?;
        name = format!("{name} {word}");
    }
    let mut page = Vec::new();
    let title = name.replace(' ', "-");
    clap_mangen::Man::new(command.bin_name(name).display_name(title)).render(&mut page)?;
    out.raw(&String::from_utf8_lossy(&page));
    Ok(())
}
