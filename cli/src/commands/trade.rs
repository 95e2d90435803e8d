//! `fafnir trade`: opens the terminal, and with `--up` a platform in the background first.

use crate::{
    args::{Color, Global, ThemeName, Trade},
    client::{Client, Store, gateway_url},
    output::{Error, Exit, Out, Result},
    settings, stack,
};
use fafnir_tui::{Depth, Options, Palette, Theme};
use std::{
    io::IsTerminal as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// A platform in the background gets this long to be ready, its first seeding included.
const UP_WAIT_MAX: Duration = Duration::from_mins(1);
/// A recording plays as fast as it was.
const REPLAY_PERCENT: u32 = 100;
const POLL: Duration = Duration::from_millis(50);

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
    let url = gateway_url(global, &args.at)?;
    let mut client = Client::new(&url)?;
    let session = if args.demo {
        client.sign_in_demo().await?;
        Some(client.session().await?.session())
    } else {
        // Without a kept session the terminal shows its own sign-in screen; a platform that is down is told here.
        match client.session().await {
            Ok(kept) => Some(kept.session()),
            Err(e) if e.exit == Exit::SignIn => None,
            Err(e) => return Err(e),
        }
    };
    let mut options = Options::new(url.clone());
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

/// Starts `fafnir up` as a process of its own where none runs; its log goes to the data directory.
async fn start_platform(global: &Global, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    if stack::running(&dir).is_some() {
        return Ok(());
    }
    let logs = dir.join("logs");
    fafnir_services::platform::secrets::create_private_dir(&logs)?;
    let log = std::fs::File::create(logs.join("up.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--data-dir").arg(&dir);
    if let Some(config) = &global.config {
        command.arg("--config").arg(config);
    }
    // A group of its own: Ctrl-C in the terminal does not reach it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    out.note(format_args!("starting a platform in process {}; `fafnir down` stops it", child.id()));
    let until = Instant::now() + UP_WAIT_MAX;
    while stack::running(&dir).is_none() {
        let ended = child.try_wait()?.is_some();
        if ended || Instant::now() > until {
            let why = if ended { "did not start" } else { "was not ready in time" };
            return Err(Error::new(Exit::Failure, format!("the platform {why}"))
                .hint(format!("{} has the cause", logs.join("up.log").display())));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
