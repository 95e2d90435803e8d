//! The RPCs of stock-service.

use super::{
    candles::{Interval, Stored},
    desk::Desk,
    domain::{self, Instrument, Kind, Period, Span, State},
    events,
    journal::Journal,
    statistics, store, wire,
};
use fafnir_platform::{
    Refusal, caller,
    clock::{Clock, DAY_US},
    db::{Db, Tx},
    door,
    error::Error,
    facts::Follower,
    tasks::Wake,
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        self, CandlesReply, CandlesRequest, Empty, HistoryRequest, ListInstrumentsReply, LoadHistoryReply,
        LoadHistoryRequest, QuotesReply, QuotesRequest, SearchRequest, SetTradingStateRequest,
        SetVolatilityBandRequest, SymbolRequest, UpsertReply, VolumeAtPriceReply, stock_server::Stock,
    },
};
use fafnir_rules::symbol::Symbol;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// Daily bars in one answer: more than a century of trading days.
const DAILY_MAX: u32 = 30_000;
/// Prices in one answer about a day's volume: a tick of 0.01 over the band of a price of 200.
const PRICES_MAX: u32 = 20_000;
/// Longest that the answer to a listing waits for the engine.
const TELL_WAIT_MAX: Duration = Duration::from_secs(1);

/// The service behind the RPCs.
#[derive(Debug, Clone)]
pub struct Api {
    pub db: Db,
    pub desk: Arc<Desk>,
    pub clock: Clock,
    pub wake: Wake,
    pub journal: Journal,
    /// What the trading states come from, once it follows.
    pub follower: Arc<OnceLock<Follower>>,
}

fn unknown(symbol: &str) -> Refusal {
    Refusal::not_found(Reason::UNKNOWN_SYMBOL, format!("symbol {symbol} is not listed"))
}

/// Stores a listing as it now is, for everybody who is told of it.
fn list(tx: &mut dyn Tx, instrument: &Instrument, now_us: i64) -> Result<(), Error> {
    store::instrument_put(tx, instrument, now_us)?;
    store::untold_put(tx, &instrument.symbol, instrument.version)?;
    events::instrument_changed(tx, instrument, now_us)
}

impl Api {
    /// Something of the listing of a request's symbol.
    fn listed<T>(&self, text: &str, f: impl FnOnce(&Instrument) -> T) -> Result<T, Error> {
        let symbol = domain::symbol(text)?;
        Ok(self.desk.instrument(symbol.as_str(), f).ok_or_else(|| unknown(symbol.as_str()))?)
    }

    fn quote_list(&self, asked: &[String]) -> Result<Vec<v1::Quote>, Error> {
        if asked.len() > domain::QUOTES_MAX {
            let max = domain::QUOTES_MAX;
            let sentence = format!("symbols must be at most {max} at a time");
            return Err(Refusal::invalid(Reason::TOO_MANY_SYMBOLS, sentence).into());
        }
        let symbols = asked.iter().map(|text| domain::symbol(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.desk.quotes(symbols.iter().map(Symbol::as_str), wire::quote))
    }

    async fn upsert(&self, message: v1::Instrument, deadline: Instant) -> Result<UpsertReply, Error> {
        let mut proposal = wire::proposal(message);
        proposal.symbol = domain::symbol(&proposal.symbol)?.to_string();
        let now_us = self.clock.now_us();
        let year_from = domain::day_of(now_us) - domain::YEAR_DAYS;
        let (current, changed) = self
            .db
            .write(move |tx| {
                let current = store::instrument_get(tx, &proposal.symbol)?;
                let Some(new) = domain::list(proposal.clone(), current.as_ref())? else {
                    return Ok((current, None));
                };
                list(tx, &new, now_us)?;
                let past = store::past(tx, &new.symbol, year_from)?;
                Ok((current, Some((new, past))))
            })
            .await?;
        let created = current.is_none();
        let Some((instrument, past)) = changed else {
            let instrument = current.as_ref().map(wire::instrument);
            return Ok(UpsertReply { created: false, changed: false, instrument });
        };
        self.wake.notify();
        let reply = UpsertReply { created, changed: true, instrument: Some(wire::instrument(&instrument)) };
        if created {
            self.desk.list(instrument.clone(), now_us, past);
        } else {
            self.desk.relist(instrument.clone(), now_us);
        }
        self.tell(&instrument, deadline).await;
        Ok(reply)
    }

    /// Has the engine know a listing that is stored; without an answer in time it is told later.
    async fn tell(&self, instrument: &Instrument, deadline: Instant) {
        if let Err(e) = self.journal.tell(instrument, deadline.min(Instant::now() + TELL_WAIT_MAX)).await {
            tracing::warn!(symbol = instrument.symbol, error = %e, "the engine is told of the listing later");
        }
    }

    /// Has the engine set a state; answered when it is in force.
    async fn state_set(
        &self,
        text: &str,
        state: Option<State>,
        deadline: Instant,
    ) -> Result<v1::Instrument, Error> {
        let symbol = self.listed(text, |i| i.symbol.clone())?;
        let Some(state) = state else {
            let sentence = "state must be OPEN, HALTED, CLOSED, PRE_OPEN or AUCTION";
            return Err(Refusal::invalid(Reason::STATE_UNKNOWN, sentence).into());
        };
        let position = self.journal.set_state(&symbol, state, deadline).await?;
        if let Some(follower) = self.follower.get()
            && tokio::time::timeout_at(deadline, follower.wait(position)).await.is_ok_and(|w| w.is_ok())
        {
            return self.listed(&symbol, wire::instrument);
        }
        // In force, and not yet a fact here.
        self.listed(&symbol, |i| wire::instrument(&Instrument { state, ..i.clone() }))
    }

    async fn band_set(&self, text: &str, bps: u32, deadline: Instant) -> Result<v1::Instrument, Error> {
        let symbol = self.listed(text, |i| i.symbol.clone())?;
        domain::volatility_band(bps)?;
        // What changes nothing is no fact.
        let now_us = self.clock.now_us();
        let (instrument, changed) = self
            .db
            .write(move |tx| {
                let stored = store::instrument_get(tx, &symbol)?.ok_or_else(|| unknown(&symbol))?;
                let mut new = stored.clone();
                new.volatility_band_bps = bps;
                if new == stored {
                    return Ok((new, false));
                }
                new.version += 1;
                list(tx, &new, now_us)?;
                Ok((new, true))
            })
            .await?;
        let reply = wire::instrument(&instrument);
        if changed {
            self.wake.notify();
            self.desk.relist(instrument.clone(), now_us);
            self.tell(&instrument, deadline).await;
        }
        Ok(reply)
    }

    /// Symbol and currency of a request's symbol.
    fn named(&self, text: &str) -> Result<(String, String), Error> {
        self.listed(text, |i| (i.symbol.clone(), i.terms.currency.clone()))
    }

    async fn daily(&self, request: HistoryRequest) -> Result<CandlesReply, Error> {
        let (symbol, currency) = self.named(&request.symbol)?;
        let period = Period::parse(&request.period)?;
        let first = period.first_day(domain::day_of(self.clock.now_us()));
        let limit = if period == Period::Newest { 1 } else { DAILY_MAX };
        let of = symbol.clone();
        let bars = self.db.read(move |tx| Ok(store::daily_list(tx, &of, first, limit)?)).await?;
        let candles = bars.into_iter().map(|(day, bar)| wire::candle(&symbol, day * DAY_US, bar)).collect();
        Ok(CandlesReply { candles, currency })
    }

    async fn bars(&self, request: CandlesRequest) -> Result<CandlesReply, Error> {
        let (symbol, currency) = self.named(&request.symbol)?;
        let interval = Interval::parse(&request.interval)?;
        let limit = match request.limit {
            0 => domain::CANDLES_DEFAULT,
            n => n.min(domain::CANDLES_MAX),
        };
        let (stored, parts) = (interval.stored(), interval.parts_max());
        let first = interval.begin(request.from_us.max(0).div_euclid(stored.us()));
        let last = match request.to_us {
            0 => i64::MAX,
            to if to < request.from_us => {
                return Err(Refusal::invalid(Reason::PERIOD_EMPTY, "to must not be before from").into());
            }
            to => to.div_euclid(stored.us()),
        };
        let (of, rows) = (symbol.clone(), limit.saturating_mul(parts as u32));
        let bars = self.db.read(move |tx| Ok(store::bar_list(tx, stored, &of, (first, last), rows)?)).await?;
        let full = bars.len() == rows as usize;
        let mut joined = interval.join(&bars);
        // The oldest rows may begin in the middle of a bar when the answer was cut.
        let surplus = joined.len().saturating_sub(limit as usize).max(usize::from(full && parts > 1));
        joined.drain(..surplus.min(joined.len()));
        let candle = |(at, bar)| wire::candle(&symbol, at * stored.us(), bar);
        let candles = joined.into_iter().map(candle).collect();
        Ok(CandlesReply { candles, currency })
    }

    /// The fund that stands for the market of a currency: the one that is worth most.
    fn index(&self, currency: &str) -> Option<String> {
        let worth = |i: &Instrument| {
            let is_fund = i.kind == Kind::Etf && i.terms.currency == currency;
            let worth = i128::from(i.terms.shares_outstanding) * i128::from(i.terms.previous_close_e4);
            is_fund.then(|| (worth, i.symbol.clone()))
        };
        // Of two that are worth the same, the first by name.
        let funds = self.desk.map(worth);
        funds.into_iter().max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, symbol)| symbol)
    }

    async fn statistics_of(&self, text: &str) -> Result<v1::StatisticsReply, Error> {
        let (symbol, currency) = self.named(text)?;
        let index = self.index(&currency);
        let today = domain::day_of(self.clock.now_us());
        let days = (today - domain::YEAR_DAYS, today);
        let (of, index_of) = (symbol.clone(), index.clone());
        let (bars, index_bars) = self
            .db
            .read(move |tx| {
                let mut list = |symbol: &str| store::bar_list(tx, Stored::Days, symbol, days, DAILY_MAX);
                Ok((list(&of)?, index_of.as_deref().map_or_else(|| Ok(Vec::new()), list)?))
            })
            .await?;
        let statistics = statistics::of(&bars, &index_bars, today);
        Ok(wire::statistics(symbol, currency, index, &statistics))
    }

    async fn volumes(&self, text: &str) -> Result<VolumeAtPriceReply, Error> {
        let symbol = self.listed(text, |i| i.symbol.clone())?;
        let day = domain::day_of(self.clock.now_us());
        let of = symbol.clone();
        let (levels, last_trade_no) =
            self.db.read(move |tx| Ok(store::price_volumes(tx, &of, day, PRICES_MAX)?)).await?;
        let levels =
            levels.into_iter().map(|(price_e4, volume_e4)| v1::PriceVolume { price_e4, volume_e4 }).collect();
        Ok(VolumeAtPriceReply { symbol, day_us: day * DAY_US, levels, last_trade_no })
    }

    async fn history_load(&self, request: LoadHistoryRequest) -> Result<LoadHistoryReply, Error> {
        let symbol = self.listed(&request.symbol, |i| i.symbol.clone())?;
        let now_us = self.clock.now_us();
        let today = domain::day_of(now_us);
        let of_messages = |bars: &[v1::Candle]| bars.iter().map(wire::bar).collect::<Vec<_>>();
        let bars = domain::bars(Span::Day, &of_messages(&request.bars), now_us)?;
        let minutes = domain::bars(Span::Minute, &of_messages(&request.minutes), now_us)?;
        let total = (bars.len() + minutes.len()) as u64;
        let (of, replace) = (symbol.clone(), request.replace);
        let (inserted, past) = self
            .db
            .write(move |tx| {
                let inserted = store::bars_load(tx, Span::Day, &of, &bars, replace)?
                    + store::bars_load(tx, Span::Minute, &of, &minutes, replace)?;
                Ok((inserted, store::past(tx, &of, today - domain::YEAR_DAYS)?))
            })
            .await?;
        if inserted > 0 {
            self.desk.reread(&symbol, past);
        }
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(LoadHistoryReply { inserted: count(inserted), present: count(total.saturating_sub(inserted)) })
    }

    fn search_all(&self, request: &SearchRequest) -> Result<Vec<v1::Instrument>, Error> {
        let query = request.query.trim();
        if query.is_empty() {
            return Err(Refusal::invalid(Reason::QUERY_BLANK, "query must not be blank").into());
        }
        if query.len() > domain::QUERY_LEN_MAX {
            let max = domain::QUERY_LEN_MAX;
            return Err(Refusal::invalid(
                Reason::QUERY_TOO_LONG,
                format!("query must have at most {max} bytes"),
            )
            .into());
        }
        let limit = match request.limit {
            n @ 1..=domain::SEARCH_MAX => n,
            _ => domain::SEARCH_DEFAULT,
        };
        let mut found =
            self.desk.map(|i| domain::search_rank(i, query).map(|rank| (rank, wire::instrument(i))));
        // Stable: equal ranks stay in the order of their symbols.
        found.sort_by_key(|(rank, _)| *rank);
        Ok(found.into_iter().take(limit as usize).map(|(_, i)| i).collect())
    }
}

#[tonic::async_trait]
impl Stock for Api {
    async fn list_instruments(&self, _: Request<Empty>) -> Result<Response<ListInstrumentsReply>, Status> {
        let instruments = self.desk.map(|i| Some(wire::instrument(i)));
        Ok(Response::new(ListInstrumentsReply { instruments }))
    }

    async fn get_instrument(
        &self,
        request: Request<SymbolRequest>,
    ) -> Result<Response<v1::Instrument>, Status> {
        Ok(Response::new(self.listed(&request.get_ref().symbol, wire::instrument)?))
    }

    async fn upsert_instrument(
        &self,
        request: Request<v1::Instrument>,
    ) -> Result<Response<UpsertReply>, Status> {
        caller::system(&request)?;
        let deadline = door::deadline(&request);
        Ok(Response::new(self.upsert(request.into_inner(), deadline).await?))
    }

    async fn set_trading_state(
        &self,
        request: Request<SetTradingStateRequest>,
    ) -> Result<Response<v1::Instrument>, Status> {
        caller::system(&request)?;
        let deadline = door::deadline(&request);
        let request = request.into_inner();
        let state = wire::state_of(request.state());
        Ok(Response::new(self.state_set(&request.symbol, state, deadline).await?))
    }

    async fn set_volatility_band(
        &self,
        request: Request<SetVolatilityBandRequest>,
    ) -> Result<Response<v1::Instrument>, Status> {
        caller::system(&request)?;
        let deadline = door::deadline(&request);
        let request = request.into_inner();
        Ok(Response::new(self.band_set(&request.symbol, request.volatility_band_bps, deadline).await?))
    }

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<ListInstrumentsReply>, Status> {
        let instruments = self.search_all(request.get_ref())?;
        Ok(Response::new(ListInstrumentsReply { instruments }))
    }

    async fn quotes(&self, request: Request<QuotesRequest>) -> Result<Response<QuotesReply>, Status> {
        let quotes = self.quote_list(&request.get_ref().symbols)?;
        Ok(Response::new(QuotesReply { quotes }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<CandlesReply>, Status> {
        Ok(Response::new(self.daily(request.into_inner()).await?))
    }

    async fn candles(&self, request: Request<CandlesRequest>) -> Result<Response<CandlesReply>, Status> {
        Ok(Response::new(self.bars(request.into_inner()).await?))
    }

    async fn statistics(
        &self,
        request: Request<SymbolRequest>,
    ) -> Result<Response<v1::StatisticsReply>, Status> {
        Ok(Response::new(self.statistics_of(&request.get_ref().symbol).await?))
    }

    async fn volume_at_price(
        &self,
        request: Request<SymbolRequest>,
    ) -> Result<Response<VolumeAtPriceReply>, Status> {
        Ok(Response::new(self.volumes(&request.get_ref().symbol).await?))
    }

    async fn load_history(
        &self,
        request: Request<LoadHistoryRequest>,
    ) -> Result<Response<LoadHistoryReply>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.history_load(request.into_inner()).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Bars;
    use fafnir_platform::{Caller, db::inbox, door::Answer, facts::Projection as _, tasks::Tasks};
    use fafnir_proto::v1::{
        Candle, Command, Done, Fact, FactKind, Instrument, InstrumentType, Quote, TradingState, command::What,
    };
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Noon of a day.
    const NOW_US: i64 = 20_000 * DAY_US + DAY_US / 2;

    struct Bench {
        api: Api,
        bars: Bars,
        /// What the engine was told.
        told: Arc<Mutex<Vec<Command>>>,
        engine_is_away: Arc<AtomicBool>,
        _dir: tempfile::TempDir,
    }

    async fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::from_fn(|| NOW_US);
        let tasks = Tasks::new(tokio_util::sync::CancellationToken::new());
        let db = Db::open_sqlite(
            dir.path().join("stock.sqlite"),
            "stock-service",
            super::super::MIGRATIONS,
            &tasks,
            &clock,
        )
        .await
        .unwrap();
        let desk = Arc::new(Desk::load(&db, &clock).await.unwrap());
        let wake = Wake::default();
        let (told, away) = (Arc::<Mutex<Vec<Command>>>::default(), Arc::new(AtomicBool::new(false)));
        let (list, is_away) = (Arc::clone(&told), Arc::clone(&away));
        let journal = Journal::through(&db, move |command, _| {
            let (list, is_away) = (Arc::clone(&list), is_away.load(Ordering::Relaxed));
            Box::pin(async move {
                if is_away {
                    return Err(Error::unavailable("the engine is away"));
                }
                list.lock().push(command);
                Ok(Answer { position: 1, outcome: Ok(Done::default()), is_repeated: false })
            })
        });
        let bars = Bars { db: db.clone(), desk: Arc::clone(&desk), wake: wake.clone() };
        let api = Api { db, desk, clock, wake, journal, follower: Arc::default() };
        Bench { api, bars, told, engine_is_away: away, _dir: dir }
    }

    impl Bench {
        /// What a follower does: hears of facts, and stores them at the position that they follow.
        async fn apply(&self, facts: Vec<Fact>) {
            self.bars.hear(&facts);
            let from = facts[0].position - 1;
            self.bars.apply(from, facts).await.unwrap();
        }

        async fn untold(&self) -> usize {
            self.api.db.read(|tx| Ok(store::untold_list(tx, 10)?)).await.unwrap().len()
        }
    }

    impl Api {
        async fn quoted(&self, symbol: &str) -> Quote {
            let request = QuotesRequest { symbols: vec![symbol.to_owned()] };
            let mut quotes = self.quotes(system(request)).await.unwrap().into_inner().quotes;
            assert_eq!(quotes.len(), 1);
            quotes.remove(0)
        }
    }

    fn system<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Caller::system("seed"));
        request
    }

    fn apple() -> Instrument {
        Instrument {
            symbol: "AAPL".into(),
            name: "Apple Inc.".into(),
            exchange: "NASDAQ".into(),
            r#type: InstrumentType::Equity.into(),
            currency: "USD".into(),
            tick_e4: 100,
            lot_e4: 10_000,
            previous_close_e4: 2_310_000,
            shares_outstanding: 1_000,
            ..Instrument::default()
        }
    }

    fn trade(position: u64, price_e4: i64, time_us: i64) -> Fact {
        Fact {
            position,
            kind: FactKind::Executed.into(),
            symbol: "AAPL".into(),
            price_e4,
            quantity_e4: 50_000,
            trade_no: position,
            time_us,
            ..Fact::default()
        }
    }

    fn state(position: u64, state: TradingState, reason: &str) -> Fact {
        let kind = FactKind::StateChanged.into();
        let (symbol, reason) = ("AAPL".into(), reason.into());
        Fact { position, kind, symbol, state: state.into(), reason, ..Fact::default() }
    }

    #[tokio::test]
    async fn a_listing_is_created_once_and_each_change_is_a_fact() {
        let b = bench().await;
        let first = b.api.upsert_instrument(system(apple())).await.unwrap().into_inner();
        assert!(first.created && first.changed);
        let again = b.api.upsert_instrument(system(apple())).await.unwrap().into_inner();
        assert!(!again.created && !again.changed);
        assert_eq!(b.untold().await, 0);
        let renamed = Instrument { name: "Apple".into(), ..apple() };
        assert!(b.api.upsert_instrument(system(renamed)).await.unwrap().into_inner().changed);
        let told = b.told.lock().iter().filter(|c| matches!(c.what, Some(What::SetInstrument(_)))).count();
        assert_eq!(told, 2, "what changes nothing is not told");
        let facts = b
            .api
            .db
            .read(|tx| Ok(tx.query("SELECT subject, msg_id FROM outbox ORDER BY id", &[])?))
            .await
            .unwrap();
        let ids: Vec<String> = facts.iter().map(|r| r.get(1).unwrap()).collect();
        assert_eq!(ids, ["instrument:AAPL:1", "instrument:AAPL:2"]);

        let mut as_user = Request::new(apple());
        as_user.extensions_mut().insert(Caller::User(fafnir_proto::id::UserId::new(uuid::Uuid::nil())));
        let refused = b.api.upsert_instrument(as_user).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }

    #[tokio::test]
    async fn a_volatility_band_is_set_by_operators_alone_and_within_its_limit() {
        let b = bench().await;
        b.api.upsert_instrument(system(apple())).await.unwrap();
        let band = |bps| SetVolatilityBandRequest { symbol: "aapl".into(), volatility_band_bps: bps };
        let set = b.api.set_volatility_band(system(band(500))).await.unwrap().into_inner();
        assert_eq!((set.volatility_band_bps, set.version), (500, 2));
        assert_eq!(b.api.set_volatility_band(system(band(500))).await.unwrap().into_inner().version, 2);
        let refused = b.api.set_volatility_band(system(band(10_000))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let words = "volatility_band_bps 10000 must be from 1 to 9999 basis points, or 0 for no band";
        assert!(refused.message().contains(words), "{refused}");
        let mut as_user = Request::new(band(100));
        as_user.extensions_mut().insert(Caller::User(fafnir_proto::id::UserId::new(uuid::Uuid::nil())));
        let refused = b.api.set_volatility_band(as_user).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        // Loading the listing again changes nothing of it.
        let again = b.api.upsert_instrument(system(apple())).await.unwrap().into_inner();
        assert!(!again.changed);
        let reloaded = Desk::load(&b.api.db, &b.api.clock).await.unwrap();
        assert_eq!(reloaded.instrument("AAPL", |i| i.volatility_band_bps), Some(500));
        assert_eq!(
            b.api.set_volatility_band(system(band(0))).await.unwrap().into_inner().volatility_band_bps,
            0
        );
    }

    #[tokio::test]
    async fn a_listing_is_stored_while_the_engine_is_away_and_told_later() {
        let b = bench().await;
        b.engine_is_away.store(true, Ordering::Relaxed);
        assert!(b.api.upsert_instrument(system(apple())).await.unwrap().into_inner().created);
        assert_eq!((b.untold().await, b.told.lock().len()), (1, 0));
        b.engine_is_away.store(false, Ordering::Relaxed);
        b.api.journal.tell_all().await.unwrap();
        assert_eq!((b.untold().await, b.told.lock().len()), (0, 1));
        // An answer to an older version leaves the newer one to be told.
        let (db, listed) = (b.api.db.clone(), b.api.desk.instrument("AAPL", Clone::clone).unwrap());
        db.write(|tx| Ok(store::untold_put(tx, "AAPL", 2)?)).await.unwrap();
        b.api.journal.tell(&listed, Instant::now()).await.unwrap();
        assert_eq!(b.untold().await, 1);
        let ids: Vec<_> = b.told.lock().iter().map(|c| c.id.clone()).collect();
        assert!(ids[0] == ids[1] && ids[0].len() == 16, "the same version has the same id");
    }

    #[tokio::test]
    async fn a_state_is_the_engines_and_is_not_set_while_it_is_away() {
        let b = bench().await;
        b.api.upsert_instrument(system(apple())).await.unwrap();
        let halt = SetTradingStateRequest { symbol: "aapl".into(), state: TradingState::Halted.into() };
        b.engine_is_away.store(true, Ordering::Relaxed);
        let refused = b.api.set_trading_state(system(halt.clone())).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Open);
        b.engine_is_away.store(false, Ordering::Relaxed);
        let halted = b.api.set_trading_state(system(halt)).await.unwrap().into_inner();
        assert_eq!(halted.state(), TradingState::Halted);
        let told = b.told.lock().last().cloned().unwrap();
        assert!(matches!(told.what, Some(What::SetState(set)) if set.state() == TradingState::Halted));
        // The fact alone changes the listing.
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Open);
        b.apply(vec![state(1, TradingState::Halted, "")]).await;
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Halted);
        assert_eq!(b.untold().await, 0, "the engine knows");
    }

    #[tokio::test]
    async fn a_pause_of_the_engine_shows_as_auction_until_the_next_state() {
        let b = bench().await;
        b.api.upsert_instrument(system(apple())).await.unwrap();
        b.apply(vec![state(1, TradingState::Auction, "VOLATILITY_PAUSE")]).await;
        let paused = b.api.desk.instrument("AAPL", wire::instrument).unwrap();
        assert_eq!((paused.state(), paused.trading_state()), (TradingState::Open, TradingState::Auction));
        assert_eq!(paused.version, 2);
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Auction);
        let reloaded = Desk::load(&b.api.db, &b.api.clock).await.unwrap();
        assert_eq!(reloaded.instrument("AAPL", |i| i.volatility_pause), Some(true));
        b.apply(vec![state(2, TradingState::Open, "")]).await;
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Open);

        // An operator's halt during a pause is what shows, also where both come at once.
        b.apply(vec![
            state(3, TradingState::Auction, "VOLATILITY_PAUSE"),
            state(4, TradingState::Halted, ""),
        ])
        .await;
        assert_eq!(b.api.quoted("AAPL").await.state(), TradingState::Halted);
        assert_eq!(b.api.desk.instrument("AAPL", |i| i.volatility_pause), Some(false));
    }

    #[tokio::test]
    async fn trades_make_quotes_and_bars_once_however_often_they_are_delivered() {
        let b = bench().await;
        b.api.upsert_instrument(system(apple())).await.unwrap();
        let bars = (1..=3)
            .map(|n| Candle {
                time_us: (20_000 - n) * DAY_US,
                open_e4: 2_000_000,
                high_e4: 2_500_000,
                low_e4: 1_900_000,
                close_e4: 2_200_000 + n,
                volume_e4: 7,
                ..Candle::default()
            })
            .collect::<Vec<_>>();
        let load = LoadHistoryRequest { symbol: "AAPL".into(), bars, ..Default::default() };
        let loaded = b.api.load_history(system(load.clone())).await.unwrap().into_inner();
        assert_eq!((loaded.inserted, loaded.present), (3, 0));
        let loaded = b.api.load_history(system(load)).await.unwrap().into_inner();
        assert_eq!((loaded.inserted, loaded.present), (0, 3));

        let delivered = vec![
            trade(1, 2_300_000, NOW_US),
            trade(2, 2_320_000, NOW_US + 1),
            trade(3, 2_290_000, NOW_US + 6 * domain::MINUTE_US),
        ];
        b.apply(delivered.clone()).await;
        for (from, facts) in [(0, delivered), (4, vec![trade(5, 1, NOW_US)])] {
            b.bars.apply(from, facts).await.expect_err("the position is another");
        }
        assert_eq!(b.bars.position().await.unwrap(), 3);

        // The same from memory and after a restart.
        let reloaded = Desk::load(&b.api.db, &b.api.clock).await.unwrap();
        for desk in [&*b.api.desk, &reloaded] {
            let quote = desk.quotes(["AAPL"], wire::quote).remove(0);
            assert_eq!((quote.price_e4, quote.previous_close_e4), (2_290_000, 2_200_001));
            assert_eq!(
                (quote.open_e4, quote.day_low_e4, quote.day_high_e4),
                (2_300_000, 2_290_000, 2_320_000)
            );
            assert_eq!((quote.year_low_e4, quote.year_high_e4), (1_900_000, 2_500_000));
            assert_eq!((quote.volume_e4, quote.market_cap_units), (150_000, 229_000));
        }

        let volumes = b.api.volume_at_price(system(SymbolRequest { symbol: "aapl".into() })).await;
        let volumes = volumes.unwrap().into_inner();
        let levels: Vec<_> = volumes.levels.iter().map(|l| (l.price_e4, l.volume_e4)).collect();
        assert_eq!(levels, [(2_290_000, 50_000), (2_300_000, 50_000), (2_320_000, 50_000)]);
        assert_eq!((volumes.last_trade_no, volumes.day_us), (3, 20_000 * DAY_US));

        let history = HistoryRequest { symbol: "aapl".into(), period: "1w".into() };
        let history = b.api.history(system(history)).await.unwrap().into_inner();
        let days: Vec<i64> = history.candles.iter().map(|c| c.time_us / DAY_US).collect();
        assert_eq!(days, [19_997, 19_998, 19_999, 20_000]);
        let candles = CandlesRequest { symbol: "AAPL".into(), interval: "5m".into(), ..Default::default() };
        let candles = b.api.candles(system(candles)).await.unwrap().into_inner().candles;
        assert_eq!(candles.len(), 2);
        assert_eq!(
            (candles[0].open_e4, candles[0].close_e4, candles[0].volume_e4),
            (2_300_000, 2_320_000, 100_000)
        );
    }

    #[tokio::test]
    async fn bars_are_of_seconds_to_months_and_a_year_of_days_has_its_statistics() {
        let b = bench().await;
        let fund = |symbol: &str, shares_outstanding| Instrument {
            symbol: symbol.into(),
            r#type: InstrumentType::Etf.into(),
            shares_outstanding,
            ..apple()
        };
        for listing in [apple(), fund("SMALL", 10), fund("LARGE", 900)] {
            b.api.upsert_instrument(system(listing)).await.unwrap();
        }
        // 19,000 to 19,999 are days up to 2024-10-03; 20,000 is 2024-10-04, a Friday.
        let day = |day: i64| {
            let close_e4 = 2_000_000 + (day % 2) * 40_000;
            let (open_e4, low_e4, high_e4) = (close_e4, close_e4 - 1, close_e4 + 1);
            let time_us = day * DAY_US;
            Candle { time_us, open_e4, high_e4, low_e4, close_e4, volume_e4: 10_000, ..Candle::default() }
        };
        for symbol in ["AAPL", "LARGE"] {
            let bars = (19_900..20_000).map(day).collect();
            let load = LoadHistoryRequest { symbol: symbol.into(), bars, ..Default::default() };
            b.api.load_history(system(load)).await.unwrap();
        }
        b.apply(vec![trade(1, 2_100_000, NOW_US), trade(2, 2_110_000, NOW_US + 2_000_000)]).await;
        let candles = async |interval: &str| {
            let request =
                CandlesRequest { symbol: "AAPL".into(), interval: interval.into(), ..Default::default() };
            let bars = b.api.candles(system(request)).await.unwrap().into_inner().candles;
            bars.iter().map(|c| (c.time_us, c.volume_e4)).collect::<Vec<_>>()
        };
        assert_eq!(candles("1s").await, [(NOW_US, 50_000), (NOW_US + 2_000_000, 50_000)]);
        assert_eq!(candles("30s").await, [(NOW_US, 100_000)]);
        assert_eq!(candles("4h").await, [(NOW_US, 100_000)]);
        let months = candles("1M").await;
        let october = 19_997 * DAY_US;
        assert_eq!(months.last(), Some(&(october, 3 * 10_000 + 100_000)));
        assert_eq!(months.len(), 5);
        assert_eq!(candles("1w").await.last(), Some(&(19_996 * DAY_US, 4 * 10_000 + 100_000)));
        assert_eq!(candles("1m").await, [(NOW_US, 100_000)]);

        let statistics = b.api.statistics(system(SymbolRequest { symbol: "aapl".into() })).await.unwrap();
        let s = statistics.into_inner();
        assert_eq!((s.sessions, s.year_high_e4, s.year_high_us), (100, 2_110_000, 20_000 * DAY_US));
        assert_eq!((s.index.as_str(), s.beta_e4), ("LARGE", Some(10_000)));
        assert_eq!((s.volume_short_e4, s.year_change_bps), (Some(10_000), Some(550)));
        assert!(s.volatility_bps.is_some_and(|bps| (3_000..3_300).contains(&bps)), "{s:?}");
        let pruned = |second| b.api.db.write(move |tx| Ok(store::second_prune(tx, second, 9)?));
        assert_eq!(pruned(NOW_US / 1_000_000 + 1).await.unwrap(), 1);
        assert_eq!(candles("1s").await, [(NOW_US + 2_000_000, 50_000)]);
    }

    #[tokio::test]
    async fn old_minutes_are_pruned_in_small_batches() {
        let b = bench().await;
        b.apply((1..=5).map(|n| trade(n, 100, n as i64 * domain::MINUTE_US)).collect()).await;
        let pruned = |limit| b.api.db.write(move |tx| Ok(store::minute_prune(tx, 4, limit)?));
        assert_eq!(pruned(2).await.unwrap(), 2);
        assert_eq!(pruned(2).await.unwrap(), 1);
        assert_eq!(pruned(2).await.unwrap(), 0);
        let pruned = |day| b.api.db.write(move |tx| Ok(store::price_volume_prune(tx, day, 9)?));
        assert_eq!(pruned(0).await.unwrap(), 0);
        assert_eq!(pruned(1).await.unwrap(), 1, "five trades at one price of one day");
        assert_eq!(b.api.db.read(|tx| Ok(inbox::dead_letter_count(tx)?)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn search_puts_symbols_first_and_refuses_a_blank() {
        let b = bench().await;
        for (symbol, name) in [("APP", "AppLovin"), ("AAPL", "Apple Inc."), ("XYZ", "Grand Apple Trust")] {
            let listing = Instrument { symbol: symbol.into(), name: name.into(), ..apple() };
            b.api.upsert_instrument(system(listing)).await.unwrap();
        }
        let search = async |query: &str, limit| {
            let request = system(SearchRequest { query: query.into(), limit });
            b.api
                .search(request)
                .await
                .map(|r| r.into_inner().instruments.into_iter().map(|i| i.symbol).collect::<Vec<_>>())
        };
        assert_eq!(search("app", 0).await.unwrap(), ["APP", "AAPL", "XYZ"]);
        assert_eq!(search("app", 1).await.unwrap(), ["APP"]);
        assert_eq!(search("  ", 8).await.unwrap_err().code(), tonic::Code::InvalidArgument);
        let unknown =
            b.api.get_instrument(system(SymbolRequest { symbol: "NOPE".into() })).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }
}
