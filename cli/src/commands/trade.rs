//! `fafnir trade`: opens the terminal, and with `--up` a platform in the background first.

use crate::{
    args::{Color, Global, ThemeName, Trade},
    background,
    client::{Client, Store, gateway},
    memory::Files,
    output::{Error, Exit, Out, Result},
    settings, stack,
};
use clap::ValueEnum as _;
use fafnir_tui::{Depth, Options, Palette, Theme, Zone, columns::Columns, keys::KeyMap};
use std::{ffi::OsString, fs::OpenOptions, io::IsTerminal as _, sync::Arc};

/// A recording plays as fast as it was.
const REPLAY_PERCENT: u32 = 100;

pub async fn trade(global: &Global, args: &Trade, out: Out) -> Result {
    needs_terminal()?;
    if let Some(file) = &args.replay {
        let theme = theme(global, args.ascii, args.theme)?;
        return ended(fafnir_tui::replay(file, theme, zone(global)?, REPLAY_PERCENT).await?);
    }
    if args.up {
        start_platform(global, out).await?;
    }
    let gateway = gateway(global, &args.at)?;
    let url = gateway.url.clone();
    let mut client = Client::new(&gateway)?;
    let session = if args.demo {
        client.sign_in_demo().await?;
        Some(client.session().await?.session())
    } else if let Some(session) = client.key_session(&args.at).await? {
        Some(session)
    } else {
        // Without a kept session the terminal shows its own sign-in screen; a platform that is down is told here.
        match client.session().await {
            Ok(kept) => Some(kept.session()),
            Err(e) if e.exit == Exit::SignIn => None,
            Err(e) => return Err(e),
        }
    };
    let mut options = Options::new(url.clone());
    options.tls = gateway.tls;
    options.session = session;
    options.store = Some(Arc::new(Store { url }));
    options.memory = Some(Arc::new(Files));
    options.symbol = args.symbol.clone().unwrap_or_default();
    options.read_only = args.read_only;
    configured(global, &mut options)?;
    options.mouse &= !args.no_mouse;
    options.theme = theme(global, args.ascii, args.theme)?;
    options.welcome = first_time();
    options.record.clone_from(&args.record);
    ended(fafnir_tui::run(options).await?)
}

/// Refuses where nothing can be drawn.
pub fn needs_terminal() -> Result {
    let hint = "for scripts there are `fafnir order`, `book`, `watch` and `portfolio`";
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Error::usage("the trading terminal needs a terminal").hint(hint));
    }
    if std::env::var("TERM").is_ok_and(|term| term == "dumb") {
        return Err(Error::usage("the trading terminal cannot draw on TERM=dumb").hint(hint));
    }
    Ok(())
}

/// True at the first start of this user; what says so is written down at once.
fn first_time() -> bool {
    let dir = settings::state_dir();
    let made = fafnir_services::platform::secrets::create_private_dir(&dir);
    // Where nothing can be written down it is not said each time.
    made.is_ok() && OpenOptions::new().write(true).create_new(true).open(dir.join("welcomed")).is_ok()
}

pub fn ended(exit: fafnir_tui::Exit) -> Result {
    match exit {
        fafnir_tui::Exit::Quit | fafnir_tui::Exit::Suspended => Ok(()),
        fafnir_tui::Exit::Interrupted => Err(Error::new(Exit::Interrupted, "interrupted")),
    }
}

/// What the terminal emulator can show, by the usual variables.
pub fn theme(global: &Global, ascii: bool, name: Option<ThemeName>) -> Result<Theme> {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let plain = global.color == Color::Never || (global.color == Color::Auto && !set("NO_COLOR").is_empty());
    let many = set("TERM").contains("256color") || !set("COLORTERM").is_empty();
    let locale =
        [set("LC_ALL"), set("LC_CTYPE"), set("LANG")].into_iter().find(|l| !l.is_empty()).unwrap_or_default();
    let utf8 = locale.to_lowercase().replace('-', "").contains("utf8");
    let configured = settings::settings(global, &[])?.terminal.theme;
    let name = name.or_else(|| ThemeName::from_str(&configured, true).ok());
    Ok(Theme {
        palette: match name {
            Some(ThemeName::BlueOrange) | None => Palette::BlueOrange,
            Some(ThemeName::GreenRed) => Palette::GreenRed,
            Some(ThemeName::RedUp) => Palette::RedUp,
        },
        depth: if plain {
            Depth::Mono
        } else if many {
            Depth::Ansi256
        } else {
            Depth::Ansi16
        },
        ascii: ascii || !utf8,
    })
}

/// What `[terminal]` in the configuration says; its check was at reading it.
pub fn configured(global: &Global, options: &mut Options) -> Result {
    let terminal = settings::settings(global, &[])?.terminal;
    options.sizes_e4 = terminal.sizes_e4().unwrap_or(options.sizes_e4);
    options.armed_notional_micros_max =
        terminal.one_key_max_micros().unwrap_or(options.armed_notional_micros_max);
    options.mouse = terminal.mouse;
    options.zone = zone(global)?;
    options.keys = KeyMap::parse(&terminal.keys).map_err(|why| {
        Error::usage(format!("terminal.keys: {why}"))
            .hint("`fafnir config --help` names the actions, `?` in the terminal shows the keys")
    })?;
    options.columns = Columns::parse(&terminal.columns).map_err(|why| {
        Error::usage(format!("terminal.columns: {why}"))
            .hint("`fafnir config --help` names tables and columns")
    })?;
    Ok(())
}

/// The time zone of the configuration.
fn zone(global: &Global) -> Result<Zone> {
    let name = settings::settings(global, &[])?.terminal.time_zone;
    Zone::named(&name).ok_or_else(|| {
        Error::usage(format!("terminal.time_zone {name:?} is no time zone of this system"))
            .hint("it takes local, UTC or a name such as America/New_York")
    })
}

/// Starts `fafnir up` as a process of its own where none runs.
async fn start_platform(global: &Global, out: Out) -> Result {
    let dir = settings::settings(global, &[])?.data_dir();
    if stack::running(&dir).is_some() {
        return Ok(());
    }
    let mut arguments: Vec<OsString> = vec!["up".into(), "--data-dir".into(), dir.clone().into()];
    if let Some(config) = &global.config {
        arguments.extend(["--config".into(), config.clone().into()]);
    }
    background::start(&dir, &arguments, out).await.map(drop)
}
