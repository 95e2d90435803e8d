//! `fafnir load`: many signed-in users at the public door, and how the platform bears them.

mod ask;
pub(super) mod door;
mod figures;
mod line;
mod processes;
mod round_trip;
mod traffic;
mod users;

use self::{
    ask::Way,
    door::{Door, Outcome},
    figures::{CaughtUp, Figures, Usage},
    processes::Processes,
    traffic::{Client, Listing, Plan},
    users::User,
};
use crate::{
    args::{Global, Load, Scenario},
    client::{self, Gateway},
    output::{Error, Exit, Out, Result},
};
use fafnir_proto::{
    reason::Reason,
    v1::{Empty, Instrument, PositionRequest, QuotesRequest, TradingState},
};
use fafnir_rules::money::round_lot;
use fafnir_services::platform::{Caller, rng::Rng};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CLIENTS: u32 = 64;
/// Orders a second of a user in an open loop; the platform allows 20.
const ORDERS_PER_USER: u32 = 10;
/// Users of a client in a closed loop.
const USERS_PER_CLIENT: u32 = 4;
/// Users that are registered, signed in or cleaned up at a time.
const AT_A_TIME: usize = 8;
/// Symbols of one question for quotes.
const QUOTES_MAX: usize = 100;
/// Progress is drawn this often.
const REDRAW: Duration = Duration::from_millis(200);
/// How long order- and portfolio-service may take to catch up, and how often they are asked.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
const CATCH_UP_POLL: Duration = Duration::from_millis(5);
/// From the plan to the first request.
const LEAD: Duration = Duration::from_millis(20);

/// How much of what.
#[derive(Debug, Clone, Copy)]
struct Size {
    clients: u32,
    users: u32,
}

impl Size {
    fn of(args: &Load) -> Result<Self> {
        let orders = matches!(args.scenario, Scenario::Orders | Scenario::Mix);
        let clients = args.clients.unwrap_or(if args.scenario == Scenario::RoundTrip { 1 } else { CLIENTS });
        let wanted = match args.rate {
            _ if !orders => clients,
            Some(rate) => rate.div_ceil(ORDERS_PER_USER),
            None => clients.saturating_mul(USERS_PER_CLIENT),
        };
        let users = match args.users {
            Some(users) if users < clients => {
                return Err(Error::usage(format!("users must be at least one per client, {clients} here"))
                    .hint("give fewer --clients or more --users"));
            }
            Some(users) => users,
            None => wanted,
        };
        Ok(Self { clients: clients.min(users), users })
    }
}

pub async fn load(global: &Global, args: &Load, out: Out) -> Result {
    let size = Size::of(args)?;
    let gateway = client::gateway(global, &args.at)?;
    let url = &gateway.url;
    // Says what is wrong with an address.
    client::Client::new(&gateway)?;
    let door = Door::new(&gateway);
    if !args.remote && !door.is_loopback() {
        return Err(Error::new(Exit::Precondition, format!("{url} is not on this machine"))
            .code(Reason::NOT_LOOPBACK)
            .hint("a load harms whoever it meets; --remote says that you may put it there"));
    }
    let stop = CancellationToken::new();
    let interrupt = {
        let stop = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        })
    };
    let result = run(global, args, size, &gateway, door, stop.clone(), out).await;
    interrupt.abort();
    let figures = result?;
    print(args, size, &figures, out);
    let reasons = figures.reasons();
    if !reasons.is_empty() {
        out.note(reasons.trim_end());
    }
    if figures.shed() > 0 {
        out.note("SHED is 429: more than a user may send; give more --users or a lower --rate");
    }
    match figures.failed() {
        _ if stop.is_cancelled() => {
            Err(Error::new(Exit::Interrupted, "interrupted: the figures are of a part"))
        }
        0 => Ok(()),
        n => Err(Error::new(Exit::Failure, format!("{n} requests failed")).code(Reason::LOAD_FAILED)),
    }
}

fn bar(out: Out, length: u64, template: &str) -> ProgressBar {
    let hidden = out.json || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn interrupted() -> Error {
    Error::new(Exit::Interrupted, "interrupted")
}

/// Signs users in, lets them trade, takes back what they left standing.
async fn run(
    global: &Global,
    args: &Load,
    size: Size,
    gateway: &Gateway,
    door: Door,
    stop: CancellationToken,
    out: Out,
) -> Result<Figures> {
    let mut unused = users::take_kept(&gateway.url)?;
    let mut users = Vec::new();
    let signed_in = sign_in(&door, size, args.scenario, &mut unused, &mut users, &stop, out).await;
    let measured = match signed_in {
        Ok(()) => measure(global, args, size, gateway, &door, &mut users, stop, out).await,
        Err(e) => Err(e),
    };
    let cleaned = clean(&door, &mut users, out).await;
    users::keep(&gateway.url, users.into_iter(), unused)?;
    let figures = measured?;
    cleaned?;
    Ok(figures)
}

/// Continues kept sessions, and registers new users for the rest.
async fn sign_in(
    door: &Door,
    size: Size,
    scenario: Scenario,
    kept: &mut Vec<String>,
    users: &mut Vec<User>,
    stop: &CancellationToken,
    out: Out,
) -> Result {
    let bar = bar(out, u64::from(size.users), "signing in {bar:40} {pos}/{len}");
    let seats = (0..size.users).map(|_| kept.pop()).collect::<Vec<_>>();
    let needs_cash = scenario != Scenario::Quotes;
    let mut ready = stream::iter(seats)
        .map(|kept| async move {
            let resumed = match &kept {
                Some(token) => users::resume(door, token).await?,
                None => None,
            };
            let user = match resumed {
                Some(user) => user,
                None => users::register(door).await?,
            };
            if needs_cash {
                users::fund(door, &user).await?;
            }
            Ok::<_, Error>(user)
        })
        .buffer_unordered(AT_A_TIME);
    loop {
        tokio::select! {
            user = ready.try_next() => match user? {
                Some(user) => users.push(user),
                None => break,
            },
            () = stop.cancelled() => return Err(interrupted()),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The symbols of the load with their prices.
async fn listings(gateway: &Gateway, token: &str, wanted: &[String]) -> Result<Vec<Listing>> {
    let mut gateway = client::Client::with_token(gateway, token)?;
    let request = gateway.request(Empty {});
    let all = gateway.terminal.instruments(request).await?.into_inner().instruments;
    let is_open =
        |i: &Instrument| i.state() == TradingState::Open && !i.volatility_pause && i.currency == "USD";
    let chosen: Vec<Instrument> = if wanted.is_empty() {
        all.into_iter().filter(is_open).collect()
    } else {
        let find = |name: &String| {
            let symbol = name.trim().to_uppercase();
            let found = all.iter().find(|i| i.symbol == symbol).filter(|i| is_open(i));
            found.cloned().ok_or_else(|| {
                Error::new(Exit::Precondition, format!("{symbol} is not an open symbol in USD"))
                    .code(Reason::SYMBOL)
            })
        };
        wanted.iter().map(find).collect::<Result<_>>()?
    };
    let mut listings = Vec::new();
    for page in chosen.chunks(QUOTES_MAX) {
        let symbols = page.iter().map(|i| i.symbol.clone()).collect();
        let request = gateway.request(QuotesRequest { symbols });
        let quotes = gateway.terminal.quotes(request).await?.into_inner().quotes;
        for i in page {
            let reference_e4 = quotes.iter().find(|q| q.symbol == i.symbol).map_or(0, |q| q.price_e4);
            if reference_e4 > 0 && i.tick_e4 > 0 {
                listings.push(Listing::new(&i.symbol, i.tick_e4, round_lot(i.lot_e4), reference_e4));
            }
        }
    }
    if listings.is_empty() {
        return Err(
            Error::new(Exit::Precondition, "no open symbol in USD has a price").code(Reason::NO_SYMBOL)
        );
    }
    Ok(listings)
}

#[expect(clippy::too_many_arguments, reason = "one call")]
async fn measure(
    global: &Global,
    args: &Load,
    size: Size,
    gateway: &Gateway,
    door: &Door,
    users: &mut Vec<User>,
    stop: CancellationToken,
    out: Out,
) -> Result<Figures> {
    let first = users.first().map(|u| u.token.clone()).unwrap_or_default();
    let listings = listings(gateway, &first, &args.symbols).await?;
    let start = Instant::now() + LEAD;
    let measure_from = start + Duration::from_secs(args.warmup);
    let end = measure_from + Duration::from_secs(args.duration);
    let plan = Arc::new(Plan {
        scenario: args.scenario,
        door: door.clone(),
        listings,
        interval: args.rate.map(|rate| Duration::from_secs(1) / rate),
        start,
        measure_from,
        end,
        due: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        stop: stop.clone(),
    });
    // Each client gets its own users, in turn.
    let mut seats: Vec<Vec<User>> = (0..size.clients).map(|_| Vec::new()).collect();
    for (i, user) in std::mem::take(users).into_iter().enumerate() {
        seats[i % size.clients as usize].push(user);
    }
    let mut clients = JoinSet::new();
    for (i, mut users) in seats.into_iter().enumerate() {
        let (plan, rng) = (plan.clone(), Rng::new(i as u64));
        match users.pop() {
            Some(user) if args.scenario == Scenario::RoundTrip => {
                let way = Way::new(args.door, gateway)?;
                clients.spawn(round_trip::run(plan, gateway.clone(), way, user, rng));
            }
            Some(user) => {
                users.push(user);
                let way = Way::new(args.door, gateway)?;
                clients.spawn(Client { way, plan, users, rng, figures: Figures::default() }.run());
            }
            None => {}
        }
    }
    let processes = Processes::of(global, &gateway.url);
    let watch = watch(&processes, &plan, args, out);
    let (usage, results) = tokio::join!(watch, async {
        let results = clients.join_all().await;
        (Instant::now(), results)
    });
    let (finished, results) = results;
    let (before, usage) = usage.unzip();
    let caught_up = match before {
        Some(before) => catch_up(global, &processes, finished, &before).await?,
        None => None,
    };
    let mut figures = Figures { usage, caught_up, ..Figures::default() };
    figures.measured = finished.saturating_duration_since(measure_from);
    let mut broken = None;
    for result in results {
        match result {
            Ok((back, one)) => {
                users.extend(back);
                figures.add(&one);
            }
            Err(e) => broken = Some(e),
        }
    }
    match broken {
        Some(e) => Err(e),
        None => Ok(figures),
    }
}

/// Draws the progress and notes what the stack's processes use while it is measured: their seconds before that, and the
/// rest.
async fn watch(processes: &Processes, plan: &Plan, args: &Load, out: Out) -> Option<(Vec<f64>, Usage)> {
    let bar = bar(out, (args.warmup + args.duration) * 1_000, "{msg:>24} {bar:40} {elapsed_precise}");
    let mut before = None;
    let mut timer = tokio::time::interval(REDRAW);
    let mut last = (Instant::now(), 0);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = plan.stop.cancelled() => break,
        }
        let now = Instant::now();
        if before.is_none() && now >= plan.measure_from {
            before = processes.seconds().map(|s| (now, s));
        }
        let answered = plan.answered.load(Ordering::Relaxed);
        let per_second = (answered - last.1) as f64 / now.duration_since(last.0).as_secs_f64().max(0.001);
        last = (now, answered);
        bar.set_message(format!("{per_second:.0} /s"));
        bar.set_position(now.saturating_duration_since(plan.start).as_millis() as u64);
        if now >= plan.end {
            break;
        }
    }
    bar.finish_and_clear();
    let (since, seconds) = before?;
    let used: f64 = processes.since(&seconds)?.iter().map(|(_, s)| s).sum();
    let cores = used / since.elapsed().as_secs_f64().max(0.001);
    Some((seconds, Usage { cores, resident: processes.resident()? }))
}

/// Waits until order- and portfolio-service stand where the engine stood when the last request was answered.
async fn catch_up(
    global: &Global,
    processes: &Processes,
    finished: Instant,
    before: &[f64],
) -> Result<Option<CaughtUp>> {
    let running = super::platform::adopted(global).await?;
    let (clients, caller) = (&running.context.clients, Caller::system("load"));
    let last = clients.engine(&caller).position(PositionRequest::default()).await?.into_inner().last;
    let until = finished + CATCH_UP_MAX;
    loop {
        let orders = clients.order(&caller).status(Empty {}).await?.into_inner().position;
        let books = clients.portfolio(&caller).status(Empty {}).await?.into_inner().position;
        if orders.min(books) >= last {
            break;
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        tokio::time::sleep(CATCH_UP_POLL).await;
    }
    let after = finished.elapsed();
    Ok(Some(CaughtUp { after, processor_s: processes.since(before).unwrap_or_default() }))
}

/// Takes back what stands; not part of the figures.
async fn clean(door: &Door, users: &mut [User], out: Out) -> Result {
    let standing: Vec<&mut User> = users.iter_mut().filter(|u| !u.open.is_empty()).collect();
    let bar = bar(out, standing.len() as u64, "canceling what stands {bar:40} {pos}/{len}");
    let mut done = stream::iter(standing).map(|user| traffic::clean(door, user)).buffer_unordered(AT_A_TIME);
    let mut left = None;
    while let Some(outcome) = done.next().await {
        bar.inc(1);
        if !matches!(outcome, Outcome::Done(_)) {
            left = Some(outcome);
        }
    }
    bar.finish_and_clear();
    match left {
        None => Ok(()),
        Some(why) => {
            Err(Error::new(Exit::Failure, format!("orders were left standing: {why:?}"))
                .code(Reason::LOAD_CLEAN))
        }
    }
}

fn name(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Orders => "orders",
        Scenario::Mix => "mix",
        Scenario::RoundTrip => "round-trip",
        Scenario::Quotes => "quotes",
    }
}

fn print(args: &Load, size: Size, figures: &Figures, out: Out) {
    let mut json = json!({
        "scenario": name(args.scenario), "door": args.door.name(), "clients": size.clients, "users": size.users, "rate": args.rate,
        "durationS": args.duration, "warmupS": args.warmup,
    });
    if let (Value::Object(all), Value::Object(measured)) = (&mut json, figures.json()) {
        all.extend(measured);
    }
    out.data(&json, || {
        let pace = match args.rate {
            Some(rate) => format!("open loop at {rate}/s"),
            None => "closed loop".to_owned(),
        };
        format!(
            "{} over {}: {pace}, {} clients, {} users, {:.1} s measured\n{}",
            name(args.scenario),
            args.door.name(),
            size.clients,
            size.users,
            figures.measured.as_secs_f64(),
            figures.table()
        )
    });
}
