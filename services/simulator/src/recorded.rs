//! A recorded day as the market of one symbol: what was done then is done again, by desks with accounts of their own, through
//! the doors of the platform. Everybody else's orders meet theirs.
//!
//! Those who buy and those who sell are different users: nobody meets himself. One request at a time, in the order of the
//! recording; where the doors are slower than it, the day takes longer.

use super::{
    doors::{Doors, account_id, patient},
    facts::side_of,
    playback::Playback,
};
use anyhow::Context as _;
use fafnir_market::{
    Side,
    recorded::{Act, Recording, read},
};
use fafnir_platform::{Context, Result, agents::agent_id, bus::Bus, error::refusal_of};
use fafnir_proto::{
    id::UserId,
    subject,
    v1::{
        self, InstrumentType, OrderState, OrderType, PlaybackReply, PlaybackRequest, TimeInForce,
        TradingState,
    },
};
use fafnir_rules::{money::format_price, symbol::Symbol};
use flate2::read::GzDecoder;
use futures::StreamExt as _;
use prost::Message as _;
use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Numbers of the desks: above the agents'.
const DESK_NUMBERS: u32 = 3 << 24;
/// Desks a side: each has its own bound of open orders.
const DESKS: u64 = 4;
/// Bytes of a recording, unpacked.
const FILE_MAX: u64 = 1 << 30;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What a listing that is made here is listed at, and its currency; one that is there has its own.
const EXCHANGE: &str = "RECORDED";
const CURRENCY: &str = "USD";
/// What a desk is given at most: money in micros, and shares.
const CASH_MICROS_MAX: i64 = 1_000_000_000_000 * 1_000_000;
const SHARES_E4_MAX: i64 = 10_000_000_000 * 10_000;
/// A recording whose first price is so many times the listing's, or such a part of it, is of something else.
const FAR: i64 = 2;

/// One recorded day, ready to be played.
struct Player {
    ctx: Context,
    bus: Bus,
    symbol: String,
    /// The listing's, which the desks pay and are paid in.
    currency: String,
    tick_e4: i64,
    lot_e4: i64,
    recording: Recording,
    /// The exchange's orders by the recording's numbers, and whose they are.
    orders: HashMap<u64, (Uuid, UserId)>,
    next: usize,
    refused: u64,
}

/// Starts the recording that the settings name; answers the symbol that it is of.
pub async fn start(ctx: &Context, doors: &Doors) -> anyhow::Result<Option<String>> {
    let sim = &ctx.settings.sim;
    if sim.market_file.is_empty() {
        return Ok(None);
    }
    let path = sim.market_file.clone();
    let playback = Playback::parse(&sim.market_speed).ok_or_else(|| {
        anyhow::anyhow!("sim.market_speed must be 0.01 to 1000, it is {:?}", sim.market_speed)
    })?;
    let mut recording = tokio::task::spawn_blocking(move || open(Path::new(&path))).await??;
    if !sim.market_from.is_empty() {
        let from_us =
            recording.offset_us(&sim.market_from).map_err(|e| anyhow::anyhow!("sim.market_from: {e}"))?;
        recording.begin_at(from_us);
    }
    let symbol = symbol_of(&sim.market_file, &sim.market_symbol)?;
    let listing = listing(ctx, symbol.as_str(), &recording).await?;
    tracing::info!(
        symbol = listing.symbol,
        form = recording.form,
        steps = recording.steps.len(),
        passed = recording.passed,
        rounded = recording.rounded,
        "a recorded market is played"
    );
    let player = Player {
        ctx: ctx.clone(),
        bus: ctx.bus().await?,
        symbol: listing.symbol,
        currency: listing.currency,
        tick_e4: listing.tick_e4,
        lot_e4: listing.lot_e4,
        recording,
        orders: HashMap::new(),
        next: 0,
        refused: 0,
    };
    player.set_up(doors).await?;
    let asked = player.bus.subscribe(subject::PLAYBACK.to_owned()).await?;
    let symbol = player.symbol.clone();
    ctx.tasks.spawn_until_shutdown("recorded market", player.run(playback, asked));
    Ok(Some(symbol))
}

fn unpacked(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let mut first = [0; 2];
    let is_packed = file.read(&mut first)? == 2 && first == GZIP;
    file.rewind()?;
    let mut text = String::new();
    let limit = FILE_MAX + 1;
    let read = if is_packed {
        GzDecoder::new(file).take(limit).read_to_string(&mut text)?
    } else {
        file.take(limit).read_to_string(&mut text)?
    };
    anyhow::ensure!(read as u64 <= FILE_MAX, "has more than {FILE_MAX} bytes");
    Ok(text)
}

/// Reads a recording, with the order book that LOBSTER puts beside its messages.
fn open(path: &Path) -> anyhow::Result<Recording> {
    let text = unpacked(path).with_context(|| path.display().to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(name.replace("_message_", "_orderbook_"));
    let book = if name.contains("_message_") && beside.exists() {
        Some(unpacked(&beside).with_context(|| beside.display().to_string())?)
    } else {
        None
    };
    read(&text, book.as_deref()).map_err(|fault| anyhow::anyhow!("{}: {fault}", path.display()))
}

/// As it is told, else the first word of the file's name.
fn symbol_of(file: &str, told: &str) -> anyhow::Result<Symbol> {
    let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    let word = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let text = if told.is_empty() { word } else { told };
    Symbol::parse(&text.to_uppercase()).map_err(|e| anyhow::anyhow!("sim.market_symbol {text:?}: {e}"))
}

/// The symbol's listing; made where there is none.
async fn listing(ctx: &Context, symbol: &str, recording: &Recording) -> anyhow::Result<v1::Instrument> {
    let first_e4 = recording.first_price_e4();
    let mut stock = ctx.clients.stock(&ctx.system());
    let listed = stock.list_instruments(v1::Empty {}).await?.into_inner().instruments;
    if let Some(found) = listed.into_iter().find(|i| i.symbol == symbol) {
        let request = v1::QuotesRequest { symbols: vec![symbol.to_owned()] };
        let quotes = stock.quotes(request).await?.into_inner().quotes;
        let price_e4 = quotes.first().map_or(found.previous_close_e4, |q| q.price_e4);
        let is_far = price_e4 > 0 && (first_e4 / FAR > price_e4 || price_e4 / FAR > first_e4);
        anyhow::ensure!(
            !is_far,
            "{symbol} is listed and trades at {}, the recording begins at {}: sim.market_symbol names another symbol",
            format_price(price_e4),
            format_price(first_e4)
        );
        return Ok(found);
    }
    let instrument = v1::Instrument {
        symbol: symbol.to_owned(),
        name: format!("{symbol}, as recorded"),
        exchange: EXCHANGE.to_owned(),
        exchange_full_name: "Recorded market".to_owned(),
        r#type: InstrumentType::Equity.into(),
        currency: CURRENCY.to_owned(),
        tick_e4: recording.tick_e4,
        lot_e4: recording.lot_e4,
        state: TradingState::Open.into(),
        previous_close_e4: first_e4,
        ..Default::default()
    };
    let reply = stock.upsert_instrument(instrument).await?.into_inner();
    reply.instrument.context("the listing was not answered")
}

impl Player {
    fn desk(side: Side, order: u64) -> u32 {
        let side = if side == Side::Buy { 0 } else { 1 << 8 };
        DESK_NUMBERS | side | (order % DESKS) as u32
    }

    /// Gives every desk its account, and what it may want to pay or to sell; takes away what stood before.
    async fn set_up(&self, doors: &Doors) -> anyhow::Result<()> {
        let (cash, shares) = self.recording.wanted();
        let within = |wanted: i128, max: i64| i64::try_from(wanted).unwrap_or(max).clamp(1, max);
        let now_us = self.ctx.clock.now_us();
        for (side, order) in [Side::Buy, Side::Sell].into_iter().flat_map(|s| (0..DESKS).map(move |d| (s, d)))
        {
            let number = Self::desk(side, order);
            let (user, account) = (agent_id(number), account_id(number, &self.currency).to_string());
            doors.open(user, &account, &self.currency).await?;
            let mut endowment = v1::EndowRequest {
                key: format!("recorded:{number}:{}:{now_us}", self.symbol),
                account_id: account,
                ..Default::default()
            };
            match side {
                Side::Buy => {
                    endowment.currency.clone_from(&self.currency);
                    endowment.amount_micros = within(cash, CASH_MICROS_MAX);
                }
                Side::Sell => {
                    endowment.symbol.clone_from(&self.symbol);
                    endowment.quantity_e4 = within(shares, SHARES_E4_MAX) / self.lot_e4 * self.lot_e4;
                    endowment.cost_price_e4 = self.recording.first_price_e4();
                }
            }
            doors.endow(endowment).await?;
            for order in self.standing(user, Uuid::nil()).await? {
                self.cancel(order.id, user).await;
            }
        }
        Ok(())
    }

    /// Open orders of a desk after an id, as the core has them.
    async fn standing(&self, user: UserId, after: Uuid) -> Result<Vec<v1::Order>> {
        let request = v1::OpenOrdersRequest {
            user_id: user.to_string(),
            symbol: self.symbol.clone(),
            after_id: if after.is_nil() { String::new() } else { after.to_string() },
            limit: if after.is_nil() { super::doors::ORDERS_MAX } else { 1 },
        };
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        Ok(engine.open_orders(request).await?.into_inner().orders)
    }

    async fn cancel(&self, order_id: String, user: UserId) {
        let request = v1::CancelOrderRequest { user_id: user.to_string(), order_id };
        let mut orders = self.ctx.clients.order(&self.ctx.system());
        if let Err(status) = orders.cancel(patient(request)).await {
            // It may have been taken meanwhile.
            tracing::debug!(status = %status.message(), "a recorded order was not canceled");
        }
    }

    /// Plays the recording to its end, then waits for what is asked.
    async fn run(mut self, mut playback: Playback, mut asked: async_nats::Subscriber) -> Result<()> {
        loop {
            let due = self.recording.steps.get(self.next).map(|step| step.at_us);
            let at = due.map(|due_us| playback.due(due_us, Instant::now()));
            tokio::select! {
                biased;
                Some(message) = asked.next() => self.hear(&message, &mut playback).await,
                () = async { match at {
                    Some(Some(at)) => tokio::time::sleep_until(at).await,
                    // Paused, or at its end.
                    _ => std::future::pending().await,
                } } => {
                    let act = self.recording.steps[self.next].act;
                    self.next += 1;
                    self.act(act).await;
                    playback.done(due.unwrap_or_default(), Instant::now());
                    if self.next == self.recording.steps.len() {
                        tracing::info!(symbol = self.symbol, refused = self.refused, "the recorded market has been played");
                    }
                }
            }
        }
    }

    async fn hear(&self, message: &async_nats::Message, playback: &mut Playback) {
        let Ok(request) = PlaybackRequest::decode(message.payload.clone()) else {
            tracing::warn!("a request to a recorded market is undecodable");
            return;
        };
        playback.hear(&request, Instant::now());
        let Some(to) = message.reply.clone() else { return };
        let reply = PlaybackReply {
            symbol: self.symbol.clone(),
            paused: playback.is_paused(),
            speed_milli: playback.speed_milli(),
            at_us: self.recording.began_us + playback.at_us(Instant::now()).min(self.recording.lasts_us()),
            done: self.next as u64,
            steps: self.recording.steps.len() as u64,
            refused: self.refused,
        };
        if let Err(e) = self.bus.publish(to.to_string(), reply.encode_to_vec().into()).await {
            tracing::debug!(error = %e, "a request to a recorded market was not answered");
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::New { order, side, price_e4, quantity_e4 } => {
                let user = agent_id(Self::desk(side, order));
                if let Some(id) = self.place(side, order, price_e4, quantity_e4, TimeInForce::Gtc).await {
                    self.orders.insert(order, (id, user));
                }
            }
            Act::Take { side, price_e4, quantity_e4 } => {
                self.place(side, 0, price_e4, quantity_e4, TimeInForce::Ioc).await;
            }
            Act::Left { order, quantity_e4: 0 } => {
                if let Some((id, user)) = self.orders.remove(&order) {
                    self.cancel(id.to_string(), user).await;
                }
            }
            Act::Left { order, quantity_e4 } => self.cut(order, quantity_e4).await,
        }
    }

    async fn place(
        &mut self,
        side: Side,
        order: u64,
        price_e4: i64,
        quantity_e4: i64,
        time_in_force: TimeInForce,
    ) -> Option<Uuid> {
        let number = Self::desk(side, order);
        let quantity_e4 = quantity_e4 / self.lot_e4 * self.lot_e4;
        if quantity_e4 == 0 {
            return None;
        }
        let request = v1::PlaceOrderRequest {
            user_id: agent_id(number).to_string(),
            account_id: account_id(number, &self.currency).to_string(),
            symbol: self.symbol.clone(),
            side: match side {
                Side::Buy => v1::Side::Buy,
                Side::Sell => v1::Side::Sell,
            }
            .into(),
            r#type: OrderType::Limit.into(),
            time_in_force: time_in_force.into(),
            quantity_e4,
            price_e4: price_e4 / self.tick_e4 * self.tick_e4,
            ..Default::default()
        };
        let mut orders = self.ctx.clients.order(&self.ctx.system());
        let placed = orders.place(patient(request)).await.map(|r| r.into_inner().order.unwrap_or_default());
        match placed {
            Ok(order) if order.state() != OrderState::Rejected => {
                Uuid::parse_str(&order.id).ok().filter(|_| !order.state().has_ended())
            }
            Ok(order) => {
                self.refused += 1;
                tracing::debug!(why = order.reject_reason, "a recorded order was rejected");
                None
            }
            Err(status) => {
                self.refused += 1;
                let is_refusal = refusal_of(&status).is_some();
                tracing::debug!(is_refusal, status = %status.message(), "a recorded order was not placed");
                None
            }
        }
    }

    /// Cuts an order down to what was left of it then.
    async fn cut(&mut self, order: u64, left_e4: i64) {
        let Some((id, user)) = self.orders.get(&order).copied() else { return };
        let before = Uuid::from_u128(id.as_u128().saturating_sub(1));
        let found = match self.standing(user, before).await {
            Ok(found) => found.into_iter().find(|o| o.id == id.to_string()),
            Err(e) => {
                tracing::debug!(error = %e, "a recorded order could not be read");
                return;
            }
        };
        // It is gone, or somebody has taken of it what was taken then.
        let Some(found) = found.filter(|o| side_of(o.side()).is_some()) else {
            self.orders.remove(&order);
            return;
        };
        let left_e4 = left_e4 / self.lot_e4 * self.lot_e4;
        if found.quantity_e4 - found.filled_e4 <= left_e4 {
            return;
        }
        if left_e4 == 0 {
            self.orders.remove(&order);
            return self.cancel(id.to_string(), user).await;
        }
        let request = v1::ReplaceOrderRequest {
            user_id: user.to_string(),
            order_id: id.to_string(),
            quantity_e4: found.filled_e4 + left_e4,
            price_e4: found.price_e4,
            ..Default::default()
        };
        let mut orders = self.ctx.clients.order(&self.ctx.system());
        if let Err(status) = orders.replace(patient(request)).await {
            tracing::debug!(status = %status.message(), "a recorded order was not cut down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_of_the_symbol_that_its_file_is_named_after() {
        let of = |file: &str, told: &str| symbol_of(file, told).map(|s| s.to_string());
        assert_eq!(of("/data/btcusd-2015-05-01.csv.gz", "").unwrap(), "BTCUSD");
        assert_eq!(of("AAPL_2012-06-21_34200000_57600000_message_10.csv", "").unwrap(), "AAPL");
        assert_eq!(of("AAPL_2012.csv", "aapl.r").unwrap(), "AAPL.R");
        assert!(of("-.csv", "").unwrap_err().to_string().starts_with("sim.market_symbol"));
    }
}
