//! `fafnir trade`: opens the terminal, and with `--up` a platform in the background first.

use crate::{
    args::{Color, Global, ThemeName, Trade},
    background,
    client::{Client, Store, gateway},
    output::{Error, Exit, Out, Result},
    settings, stack,
};
use fafnir_tui::{Depth, Options, Palette, Theme};
use std::{ffi::OsString, io::IsTerminal as _, sync::Arc};

/// A recording plays as fast as it was.
const REPLAY_PERCENT: u32 = 100;

pub async fn trade(global: &Global, args: &Trade, out: Out) -> Result {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Error::usage("fafnir trade needs a terminal")
            .hint("for scripts there are `fafnir order`, `book` and `portfolio`"));
    }
    if let Some(file) = &args.replay {
        return ended(fafnir_tui::replay(file, theme(global, args), REPLAY_PERCENT).await?);
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
    options.symbol = args.symbol.clone().unwrap_or_default();
    options.read_only = args.read_only;
    options.mouse = !args.no_mouse;
    options.theme = theme(global, args);
    options.record.clone_from(&args.record);
    ended(fafnir_tui::run(options).await?)
}

fn ended(exit: fafnir_tui::Exit) -> Result {
    match exit {
        fafnir_tui::Exit::Quit => Ok(()),
        fafnir_tui::Exit::Interrupted => Err(Error::new(Exit::Interrupted, "interrupted")),
    }
}

/// What the terminal emulator can show, by the usual variables.
fn theme(global: &Global, args: &Trade) -> Theme {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let plain = global.color == Color::Never || (global.color == Color::Auto && !set("NO_COLOR").is_empty());
    let many = set("TERM").contains("256color") || !set("COLORTERM").is_empty();
    let locale =
        [set("LC_ALL"), set("LC_CTYPE"), set("LANG")].into_iter().find(|l| !l.is_empty()).unwrap_or_default();
    let utf8 = locale.to_lowercase().replace('-', "").contains("utf8");
    Theme {
        palette: match args.theme {
            ThemeName::BlueOrange => Palette::BlueOrange,
            ThemeName::GreenRed => Palette::GreenRed,
            ThemeName::RedUp => Palette::RedUp,
        },
        depth: if plain {
            Depth::Mono
        } else if many {
            Depth::Ansi256
        } else {
            Depth::Ansi16
        },
        ascii: args.ascii || !utf8,
    }
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
