//! The trading terminal of fafnir: `run` takes the screen, signs in, trades, and gives the screen back.
//!
//! `update` and `view` are pure; everything that touches the world is in [`backend`], [`terminal`] and [`app`].

pub mod app;
pub mod backend;
pub mod columns;
pub mod keys;
pub mod model;
pub mod msg;
pub mod record;
pub mod replay;
pub mod screens;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod update;
pub mod view;
pub mod zone;

pub use backend::session::{Scheme, Session, SessionLock, SessionStore};
pub use model::remembered::{Memory, Remembered};
pub use replay::replay;
pub use theme::{Depth, Palette, Theme};
pub use zone::Zone;

use anyhow::Context as _;
use backend::live::{Keeps, Live};
use fafnir_proto::tls;
use model::{Ids, Model};
use record::Recorder;
use std::{fs::OpenOptions, io::BufWriter, path::PathBuf, sync::Arc};

/// What `fafnir trade` wants.
#[derive(Clone)]
pub struct Options {
    /// The gateway, e.g. `http://127.0.0.1:8080`.
    pub url: String,
    /// How `https://`, and market data over TLS, are secured.
    pub tls: tls::Client,
    /// A session that is signed in already; none shows the sign-in screen.
    pub session: Option<Session>,
    /// Where sessions are kept, so that they survive the terminal.
    pub store: Option<Arc<dyn SessionStore>>,
    /// Where it is kept how a user's terminal looks.
    pub memory: Option<Arc<dyn Memory>>,
    /// Fills the e-mail of the sign-in screen.
    pub email: String,
    /// The first symbol; empty takes the first of the watchlist.
    pub symbol: String,
    /// Refuses orders and cancels.
    pub read_only: bool,
    pub theme: Theme,
    /// In which clocks show and times are read.
    pub zone: Zone,
    /// Clicks and wheel on the ladder. The terminal's own selection of text then needs Shift.
    pub mouse: bool,
    /// Largest notional of a one-key order, in micros of the listing's currency.
    pub armed_notional_micros_max: i64,
    /// Order sizes of the keys 1 to 4, e4.
    pub sizes_e4: [i64; 4],
    /// Keys of the user's own.
    pub keys: keys::KeyMap,
    /// Columns of the user's choice.
    pub columns: columns::Columns,
    /// Says once what to press.
    pub welcome: bool,
    /// A new file that the session is recorded into.
    pub record: Option<PathBuf>,
}

impl Options {
    /// The defaults for a gateway.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: tls::Client::default(),
            session: None,
            store: None,
            memory: None,
            email: String::new(),
            symbol: String::new(),
            read_only: false,
            theme: Theme::default(),
            zone: Zone::default(),
            mouse: true,
            armed_notional_micros_max: model::ARMED_NOTIONAL_MICROS_MAX,
            sizes_e4: model::SIZES_E4,
            keys: keys::KeyMap::default(),
            columns: columns::Columns::default(),
            welcome: false,
            record: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// How the terminal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The user left.
    Quit,
    /// Ctrl-C or a signal.
    Interrupted,
    /// Ctrl-Z: the loop goes on when the process does. [`run`] never ends by it.
    Suspended,
}

/// The time in microseconds since 1970 UTC.
pub(crate) fn now_us() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// Runs the terminal until the user leaves. The screen is restored on every way out, panics included.
///
/// # Errors
/// The address is not a URL, the standard streams are not a terminal, or drawing fails.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let file = match &options.record {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            Some(file.with_context(|| format!("the recording {} cannot be made", path.display()))?)
        }
    };
    let keeps = Keeps { sessions: options.store.clone(), memory: options.memory.clone() };
    let mut live = Live::secured(&options.url, &options.tls, options.session.clone(), keeps)
        .with_context(|| format!("{} is not an address such as http://127.0.0.1:8080", options.url))?;
    let (mut guard, stop) = terminal::enter(options.mouse)?;
    let size = guard.size()?;
    let mut model =
        Model::new(now_us(), size, options.theme, Ids::new(&uuid::Uuid::new_v4().simple().to_string()));
    model.zone = options.zone.clone();
    model.read_only = options.read_only;
    model.armed_notional_micros_max = options.armed_notional_micros_max;
    model.sign_in.email = text::Input::new(options.email.clone());
    model.sign_in.on_password = !options.email.is_empty();
    model.sizes_e4 = options.sizes_e4;
    model.keys = options.keys.clone();
    model.columns = options.columns.clone();
    model.welcome = options.welcome;
    let symbol = fafnir_rules::symbol::Symbol::parse(&options.symbol);
    model.symbol = symbol.map(|s| s.as_str().to_owned()).unwrap_or_default();
    let mut recorder = match file {
        None => None,
        Some(file) => Some(Recorder::start(BufWriter::new(file), &model)?),
    };
    let mut input = terminal::input()?;
    let result = loop {
        let ended =
            app::drive(&mut model, &mut live, guard.terminal(), &mut input, &stop, now_us, recorder.as_mut())
                .await;
        if !matches!(ended, Ok(Exit::Suspended)) {
            break ended;
        }
        if let Err(e) = guard.suspend(options.mouse).await {
            break Err(e);
        }
        model.size = guard.size()?;
    };
    drop(guard);
    if let Some(mut recorder) = recorder {
        recorder.flush().context("the recording could not be finished")?;
    }
    live.shutdown().await;
    result
}
