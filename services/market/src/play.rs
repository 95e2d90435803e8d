//! The agents in a market of their own: each symbol has the real book, every request is answered at once.

use crate::{
    core::{Agent, Answer, Core, Event, OrderId, Request, STEPS_PER_SECOND, Standing},
    listing::Listing,
    symbol::{MAKER_QUOTES, TRADER_CASH_MICROS, TRADER_QUOTES, TRADERS, maker_cash_micros, quote_e4},
    value::{Mood, SESSION_STEPS},
};
use fafnir_matching::{Book, Command, Events, NewOrder, Replace, Side, Slot, Ticks, Tif, What};
use fafnir_rules::money::round_lot;
use std::collections::HashMap;

/// A market order goes as far from the last trade as this, in thousandths (the platform's own collar is 25).
const COLLAR_MILLI: i64 = 25;
/// The owner of orders that are no agent's.
const STRANGER: u32 = 1_000_000;
const MINUTE_STEPS: u64 = 60 * STEPS_PER_SECOND;

/// Open, high, low, close and volume of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Minute since the play began.
    pub minute: u64,
    pub open_e4: i64,
    pub high_e4: i64,
    pub low_e4: i64,
    pub close_e4: i64,
    pub volume_e4: i64,
}

/// One trade of the last step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traded {
    pub market: usize,
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub aggressor: Side,
    /// The order that came to the quotes: one order may make several trades.
    pub taker: u64,
}

#[derive(Debug)]
struct Known {
    slot: Slot,
    agent: Option<Agent>,
    filled_e4: i64,
}

/// An exchange of the agents alone.
#[derive(Debug)]
pub struct Play {
    core: Core,
    listings: Vec<Listing>,
    books: Vec<Book>,
    events: Events,
    position: u64,
    orders: HashMap<u64, Known>,
    maker_shares_e4: Vec<i64>,
    trader_shares_e4: Vec<[i64; TRADERS]>,
    next: u64,
    step: u64,
    traded: Vec<Traded>,
    requests: u64,
    lookups: u64,
    /// The next answer to a placing of the first symbol's maker is lost (tests).
    #[cfg(test)]
    pub(crate) loses_answer: bool,
}

impl Play {
    /// A market with its opening book. `sessions`: it trades 6.5 hours a day, and the day has its shape.
    pub fn new(seed: u64, listings: &[Listing], mood: Mood, sessions: bool) -> Self {
        let mut core = Core::new(seed, listings.to_vec(), mood);
        let mut this = Self {
            listings: listings.to_vec(),
            books: listings.iter().map(|_| Book::new()).collect(),
            events: Events::new(),
            position: 0,
            orders: HashMap::new(),
            maker_shares_e4: listings.iter().map(|l| quote_e4(l) * MAKER_QUOTES).collect(),
            trader_shares_e4: listings.iter().map(|l| [quote_e4(l) * TRADER_QUOTES; TRADERS]).collect(),
            next: 0,
            step: 0,
            traded: Vec::new(),
            requests: 0,
            lookups: 0,
            #[cfg(test)]
            loses_answer: false,
            core: Core::new(seed, Vec::new(), mood),
        };
        for (market, listing) in listings.iter().enumerate() {
            let quote = quote_e4(listing);
            core.own(Agent::Maker(market), market, quote * MAKER_QUOTES, maker_cash_micros(listing));
            for trader in 0..TRADERS {
                core.own(Agent::Trader(trader), market, quote * TRADER_QUOTES, TRADER_CASH_MICROS);
            }
        }
        core.set_session_step(sessions.then_some(0));
        this.core = core;
        for request in this.core.open() {
            this.carry_out(request);
        }
        this
    }

    pub fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    pub(crate) fn book(&self, market: usize) -> &Book {
        &self.books[market]
    }

    /// The middle of a symbol's best prices in ticks.
    pub fn middle(&self, market: usize) -> Option<f64> {
        let book = &self.books[market];
        Some(f64::midpoint(book.best_bid()?.into(), book.best_ask()?.into()))
    }

    #[cfg(test)]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    #[cfg(test)]
    pub(crate) fn into_core(self) -> Core {
        self.core
    }

    /// An order of a symbol's maker goes, and nobody says so (tests).
    #[cfg(test)]
    pub(crate) fn vanish(&mut self, market: usize) {
        let id = self.standing(market)[0].order as u64;
        let slot = self.orders.remove(&id).expect("it stands").slot;
        self.books[market].apply(&Command::Cancel { id, slot }, &mut Events::new());
    }

    /// The trades of the last step.
    pub(crate) fn traded(&self) -> &[Traded] {
        &self.traded
    }

    /// Requests of the agents since the beginning, the opening book included, and those of them that looked something up.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests, self.lookups)
    }

    /// A quarter of a second.
    pub fn step(&mut self, sessions: bool) {
        self.traded.clear();
        self.core.set_session_step(sessions.then_some(self.step % SESSION_STEPS));
        self.step += 1;
        for request in self.core.step() {
            self.carry_out(request);
        }
    }

    /// Plays so many steps and gives the minute bars of each symbol. Minutes without a trade have none.
    pub fn bars(&mut self, steps: u64, sessions: bool) -> Vec<Vec<Bar>> {
        let mut bars: Vec<Vec<Bar>> = self.books.iter().map(|_| Vec::new()).collect();
        for _ in 0..steps {
            let minute = self.step / MINUTE_STEPS;
            self.step(sessions);
            for trade in &self.traded {
                let (price, quantity) = (trade.price_e4, trade.quantity_e4);
                match bars[trade.market].last_mut() {
                    Some(bar) if bar.minute == minute => {
                        bar.high_e4 = bar.high_e4.max(price);
                        bar.low_e4 = bar.low_e4.min(price);
                        bar.close_e4 = price;
                        bar.volume_e4 += quantity;
                    }
                    _ => bars[trade.market].push(Bar {
                        minute,
                        open_e4: price,
                        high_e4: price,
                        low_e4: price,
                        close_e4: price,
                        volume_e4: quantity,
                    }),
                }
            }
        }
        bars
    }

    /// A market order of somebody who is no agent; answers what it traded.
    pub fn stranger(&mut self, market: usize, side: Side, quantity_e4: i64) -> i64 {
        let id = self.number(None);
        let new =
            NewOrder::limit(id, STRANGER, side, self.lots(market, quantity_e4), self.collar(market, side));
        self.apply(market, &Command::New(new.with_tif(Tif::Ioc)));
        let own = self.traded.iter().filter(|t| t.taker == id);
        own.map(|t| t.quantity_e4).sum()
    }

    fn number(&mut self, agent: Option<Agent>) -> u64 {
        self.next += 1;
        self.orders.insert(self.next, Known { slot: Slot::NONE, agent, filled_e4: 0 });
        self.next
    }

    fn lots(&self, market: usize, quantity_e4: i64) -> u64 {
        (quantity_e4 / round_lot(self.listings[market].lot_e4)).unsigned_abs()
    }

    fn ticks(&self, market: usize, price_e4: i64) -> Ticks {
        Ticks::try_from(price_e4 / self.listings[market].tick_e4).unwrap_or(1)
    }

    fn collar(&self, market: usize, side: Side) -> Ticks {
        let listing = &self.listings[market];
        let last = self.books[market].last_price().map_or(listing.last_e4 / listing.tick_e4, i64::from);
        let away = last * COLLAR_MILLI / 1_000 + 1;
        let price = if side == Side::Buy { last + away } else { (last - away).max(1) };
        Ticks::try_from(price).unwrap_or(1)
    }

    /// False when the command was refused.
    fn apply(&mut self, market: usize, command: &Command) -> bool {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        self.books[market].apply(command, &mut events);
        let mut refused = false;
        for event in &events {
            self.position += 1;
            match event.what {
                What::Accepted { id, slot, .. } | What::Replaced { id, slot, .. } => {
                    if let Some(known) = self.orders.get_mut(&id) {
                        known.slot = slot;
                    }
                    self.changed(market, id, 0, false);
                }
                What::Trade { maker, taker, qty, maker_open, taker_open, price, aggressor, .. } => {
                    self.trade(market, (maker, maker_open), (taker, taker_open), qty, price, aggressor);
                }
                What::Canceled { id, .. } | What::Expired { id, .. } => self.changed(market, id, 0, true),
                _ => refused = true,
            }
        }
        self.events = events;
        !refused
    }

    fn trade(
        &mut self,
        market: usize,
        (maker, maker_open): (u64, u64),
        (taker, taker_open): (u64, u64),
        lots: u64,
        price: Ticks,
        aggressor: Side,
    ) {
        let listing = &self.listings[market];
        let quantity_e4 = lots.cast_signed() * round_lot(listing.lot_e4);
        let price_e4 = i64::from(price) * listing.tick_e4;
        self.traded.push(Traded { market, price_e4, quantity_e4, aggressor, taker });
        let signed_e4 = if aggressor == Side::Buy { quantity_e4 } else { -quantity_e4 };
        let [taken, made] = [taker, maker].map(|id| self.orders.get(&id).and_then(|k| k.agent));
        self.balance(market, taken, signed_e4);
        self.balance(market, made, -signed_e4);
        self.core.event(&Event::Traded { market, price_e4, quantity_e4, aggressor: Some(aggressor) });
        self.changed(market, taker, quantity_e4, taker_open == 0);
        self.changed(market, maker, quantity_e4, maker_open == 0);
    }

    fn balance(&mut self, market: usize, agent: Option<Agent>, shares_e4: i64) {
        let shares = match agent {
            Some(Agent::Maker(_)) => &mut self.maker_shares_e4[market],
            Some(Agent::Trader(trader)) => &mut self.trader_shares_e4[market][trader],
            None => return,
        };
        *shares += shares_e4;
        let quantity_e4 = *shares;
        if let Some(agent) = agent {
            self.core.event(&Event::Shares { market, agent, quantity_e4 });
        }
    }

    fn changed(&mut self, market: usize, id: u64, filled_e4: i64, ended: bool) {
        let Some(known) = self.orders.get_mut(&id) else { return };
        known.filled_e4 += filled_e4;
        let (agent, filled_e4) = (known.agent, known.filled_e4);
        if ended {
            self.orders.remove(&id);
        }
        if let Some(agent) = agent {
            let (order, position) = (OrderId::from(id), self.position);
            self.core.event(&Event::Order { market, position, agent, order, filled_e4, ended });
        }
    }

    fn carry_out(&mut self, request: Request) {
        self.requests += 1;
        match request {
            Request::Place { ticket, agent, market, side, quantity_e4, price_e4, stands } => {
                let id = self.number(Some(agent));
                let owner = match agent {
                    Agent::Maker(market) => market as u32 + 1 + TRADERS as u32,
                    Agent::Trader(trader) => trader as u32 + 1,
                };
                let price =
                    if price_e4 == 0 { self.collar(market, side) } else { self.ticks(market, price_e4) };
                let new = NewOrder::limit(id, owner, side, self.lots(market, quantity_e4), price);
                let new = if stands { new } else { new.with_tif(Tif::Ioc) };
                self.apply(market, &Command::New(new));
                let order = OrderId::from(id);
                #[cfg(test)]
                if self.loses_answer && agent == Agent::Maker(0) {
                    self.loses_answer = false;
                    return self.core.answer(Answer::PlaceLost { ticket, agent, market });
                }
                self.core.answer(Answer::Placed { ticket, agent, market, order, open: stands });
            }
            Request::Replace { agent, market, order, quantity_e4, price_e4 } => {
                let replaced = self.orders.get(&(order as u64)).map(|known| known.slot).is_some_and(|slot| {
                    let (lots, price) = (self.lots(market, quantity_e4), self.ticks(market, price_e4));
                    self.apply(market, &Command::Replace(Replace::new(order as u64, slot, lots, price)))
                });
                self.core.answer(if replaced {
                    Answer::Replaced { market, order }
                } else {
                    Answer::ChangeRefused { agent, market, order }
                });
            }
            Request::Cancel { agent, market, order } => {
                let id = order as u64;
                match self.orders.get(&id).map(|known| known.slot) {
                    Some(slot) => {
                        self.apply(market, &Command::Cancel { id, slot });
                    }
                    None => self.core.answer(Answer::ChangeRefused { agent, market, order }),
                }
            }
            Request::LookUp { market } => {
                self.lookups += 1;
                let standing = self.standing(market);
                self.core.answer(Answer::LookedUp { market, standing, position: self.position });
            }
            Request::Refill { agent, market, quantity_e4, amount_micros, .. } => {
                self.balance(market, Some(agent), quantity_e4);
                if amount_micros > 0 {
                    let micros = maker_cash_micros(&self.listings[market]);
                    self.core.event(&Event::Cash { market, micros });
                }
            }
        }
    }

    pub(crate) fn standing(&self, market: usize) -> Vec<Standing> {
        let (listing, book) = (&self.listings[market], &self.books[market]);
        let lot_e4 = round_lot(listing.lot_e4);
        let of_maker = |id: u64| self.orders.get(&id).is_some_and(|k| k.agent == Some(Agent::Maker(market)));
        let own = book.orders().filter(|o| of_maker(o.id));
        own.map(|o| Standing {
            order: OrderId::from(o.id),
            side: o.side,
            price_e4: i64::from(o.price) * listing.tick_e4,
            total_e4: (o.open + o.filled).cast_signed() * lot_e4,
            filled_e4: o.filled.cast_signed() * lot_e4,
        })
        .collect()
    }
}
