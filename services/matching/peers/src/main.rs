//! The common order flow through fafnir's book and three open engines, in one run: ratios per CPU-second.
//!
//! `cargo run --release -- [FLOW …] [--ops N]` (default A1k A100k B100, 400,000 operations). Each engine behind its
//! own documented interface; whoever has no replace gets cancel and add, whoever has no limit IOC gets limit and
//! cancel. Each must reproduce trades, volume and checksum of the flow, or the line says so.

use fafnir_matching::flow::naive::Naive;
use fafnir_matching::flow::wl::{CANCEL, Engine, IOC, MARKET, Msg, REPLACE, Stats, Workload};
use fafnir_matching::flow::{FafnirEngine, SHAPES, replay};

const ROUNDS: usize = 3;

struct MatchcoreBook {
    book: matchcore::OrderBook,
    sequence: u64,
    /// The flow's number of each of the book's orders (its command's number).
    ids: Vec<u64>,
}

struct Matchcore {
    books: Vec<MatchcoreBook>,
    /// The book's number of each of the flow's orders.
    own: Vec<u64>,
    stats: Stats,
}

impl Matchcore {
    fn execute(&mut self, m: &Msg, kind: matchcore::CommandKind) {
        use matchcore::{Command, CommandMeta, CommandOutcome, CommandReport, SequenceNumber, Timestamp};
        let book = &mut self.books[m.sym as usize];
        let sequence = book.sequence;
        book.sequence += 1;
        book.ids.push(m.id);
        let meta = CommandMeta { sequence_number: SequenceNumber(sequence), timestamp: Timestamp(sequence) };
        let submit = matches!(kind, matchcore::CommandKind::Submit(_));
        let outcome = book.book.execute(&Command { meta, kind });
        if !submit {
            return;
        }
        self.own[m.id as usize] = sequence;
        if let CommandOutcome::Applied(CommandReport::Submit(effects)) = &outcome
            && let Some(result) = effects.target_order().match_result()
        {
            for trade in result.trades() {
                let maker = book.ids[trade.maker_order_id().0 as usize];
                self.stats.trade(maker, m.id, trade.price().0 as u32, trade.quantity().0 as u32);
            }
        }
    }
}

/// Quantity that stands against an order within its limit, counted until there is enough. matchcore 0.4.0 matches a
/// limit order that crosses as if it had no limit (`submit_crossable_order` hands `None` to `match_order`), so one that
/// is larger than what stands within its limit would trade beyond it: such an order is given in two parts.
fn within_limit(book: &matchcore::OrderBook, side: matchcore::Side, price: u64, wanted: u64) -> u64 {
    let mut found = 0;
    let levels = book.limit().levels();
    match side {
        matchcore::Side::Buy => {
            for (_, &id) in book.limit().asks().iter().take_while(|(at, _)| at.0 <= price) {
                found += levels[id].total_quantity().0;
                if found >= wanted {
                    break;
                }
            }
        }
        matchcore::Side::Sell => {
            for (_, &id) in book.limit().bids().iter().rev().take_while(|(at, _)| at.0 >= price) {
                found += levels[id].total_quantity().0;
                if found >= wanted {
                    break;
                }
            }
        }
    }
    found
}

impl Engine for Matchcore {
    const NAME: &'static str = "matchcore";

    fn new(symbols: usize, max_id: usize) -> Self {
        let book = |at| MatchcoreBook {
            book: matchcore::OrderBook::new(&format!("S{at}")),
            sequence: 0,
            ids: Vec::new(),
        };
        Matchcore {
            books: (0..symbols).map(book).collect(),
            own: vec![0; max_id + 1],
            stats: Stats::default(),
        }
    }

    fn op(&mut self, m: &Msg) {
        use matchcore::{
            CancelCmd, CommandKind, LimitOrder, MarketOrder, NewOrder, OrderFlags, OrderId, OrderKind, Price,
            Quantity, QuantityPolicy, Side, SubmitCmd, TimeInForce,
        };
        if m.op == CANCEL || m.op == REPLACE {
            let order_id = OrderId(self.own[m.old_id as usize]);
            self.execute(m, CommandKind::Cancel(CancelCmd { order_id, order_kind: OrderKind::Limit }));
        }
        if m.op == CANCEL {
            return;
        }
        let side = if m.side == 0 { Side::Buy } else { Side::Sell };
        if m.op == MARKET {
            let order = NewOrder::Market(MarketOrder::new(Quantity(u64::from(m.qty)), side, false));
            return self.execute(m, CommandKind::Submit(SubmitCmd { order }));
        }
        let time = if m.op == IOC { TimeInForce::Ioc } else { TimeInForce::Gtc };
        let limit = |quantity: u64| {
            let order = NewOrder::Limit(LimitOrder::new(
                Price(u64::from(m.price)),
                QuantityPolicy::Standard { quantity: Quantity(quantity) },
                OrderFlags::new(side, false, time),
            ));
            CommandKind::Submit(SubmitCmd { order })
        };
        let wanted = u64::from(m.qty);
        match within_limit(&self.books[m.sym as usize].book, side, u64::from(m.price), wanted) {
            0 => self.execute(m, limit(wanted)),
            there if there >= wanted => self.execute(m, limit(wanted)),
            there => {
                self.execute(m, limit(there));
                self.execute(m, limit(wanted - there));
            }
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn live(&self) -> Option<u64> {
        None
    }
}

struct OrderbookRs {
    books: Vec<orderbook_rs::OrderBook<()>>,
    stats: Stats,
}

impl OrderbookRs {
    fn count(stats: &mut Stats, taker: u64, result: &pricelevel::MatchResult) {
        for trade in result.trades().as_vec() {
            let pricelevel::Id::Sequential(maker) = trade.maker_order_id() else { continue };
            stats.trade(maker, taker, trade.price().as_u128() as u32, trade.quantity().as_u64() as u32);
        }
    }
}

impl Engine for OrderbookRs {
    const NAME: &'static str = "orderbook-rs";

    fn new(symbols: usize, _: usize) -> Self {
        let books = (0..symbols).map(|at| orderbook_rs::OrderBook::new(&format!("S{at}"))).collect();
        OrderbookRs { books, stats: Stats::default() }
    }

    fn op(&mut self, m: &Msg) {
        use pricelevel::{Id, Side, TimeInForce};
        let book = &self.books[m.sym as usize];
        if m.op == CANCEL || m.op == REPLACE {
            let _ = book.cancel_order(Id::Sequential(m.old_id));
        }
        let side = if m.side == 0 { Side::Buy } else { Side::Sell };
        let (id, qty) = (Id::Sequential(m.id), u64::from(m.qty));
        match m.op {
            CANCEL => {}
            MARKET => {
                if let Ok(result) = book.submit_market_order(id, qty, side) {
                    Self::count(&mut self.stats, m.id, &result);
                }
            }
            IOC => {
                if let Ok(result) = book.match_limit_order(id, qty, side, u128::from(m.price)) {
                    Self::count(&mut self.stats, m.id, &result);
                }
            }
            _ => {
                let added = book.add_limit_order_with_result(
                    id,
                    u128::from(m.price),
                    qty,
                    side,
                    TimeInForce::Gtc,
                    None,
                );
                if let Ok((_, Some(result))) = added {
                    Self::count(&mut self.stats, m.id, &result.match_result);
                }
            }
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn live(&self) -> Option<u64> {
        None
    }
}

struct Lobster {
    books: Vec<lobster::OrderBook>,
    stats: Stats,
}

impl Engine for Lobster {
    const NAME: &'static str = "lobster";

    fn new(symbols: usize, _: usize) -> Self {
        let books = (0..symbols).map(|_| lobster::OrderBook::default()).collect();
        Lobster { books, stats: Stats::default() }
    }

    fn op(&mut self, m: &Msg) {
        use lobster::{OrderEvent, OrderType, Side};
        let book = &mut self.books[m.sym as usize];
        if m.op == CANCEL || m.op == REPLACE {
            book.execute(OrderType::Cancel { id: u128::from(m.old_id) });
        }
        if m.op == CANCEL {
            return;
        }
        let side = if m.side == 0 { Side::Bid } else { Side::Ask };
        let (id, qty) = (u128::from(m.id), u64::from(m.qty));
        let event = if m.op == MARKET {
            book.execute(OrderType::Market { id, side, qty })
        } else {
            book.execute(OrderType::Limit { id, side, qty, price: u64::from(m.price) })
        };
        let rests = matches!(event, OrderEvent::Placed { .. } | OrderEvent::PartiallyFilled { .. });
        if m.op == IOC && rests {
            book.execute(OrderType::Cancel { id });
        }
        if let OrderEvent::Filled { fills, .. } | OrderEvent::PartiallyFilled { fills, .. } = event {
            for fill in fills {
                self.stats.trade(fill.order_2 as u64, m.id, fill.price as u32, fill.qty as u32);
            }
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn live(&self) -> Option<u64> {
        None
    }
}

/// Million operations per CPU-second, and what the replay gave.
fn once<E: Engine>(flow: &Workload) -> (f64, Stats) {
    let (mut engine, seconds) = replay::<E>(flow);
    (flow.h.n_ops as f64 / seconds / 1e6, *engine.stats())
}

fn main() {
    let mut wanted = Vec::new();
    let mut ops = 400_000;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--ops" {
            ops = args.next().and_then(|n| n.parse().ok()).expect("--ops N");
        } else {
            wanted.push(arg);
        }
    }
    if wanted.is_empty() {
        wanted = ["A1k", "A100k", "B100"].map(str::to_owned).to_vec();
    }
    println!("{:<7}{:<22}{:>9}{:>18}  trades", "flow", "engine", "Mop/s", "fafnir is faster");
    for shape in SHAPES.iter().filter(|shape| wanted.iter().any(|name| name == shape.name)) {
        let flow = shape.generate_ops(ops, &mut |_| {});
        type Run = fn(&Workload) -> (f64, Stats);
        let engines: [(&str, Run); 5] = [
            (FafnirEngine::NAME, once::<FafnirEngine>),
            (Naive::NAME, once::<Naive>),
            (Matchcore::NAME, once::<Matchcore>),
            (OrderbookRs::NAME, once::<OrderbookRs>),
            (Lobster::NAME, once::<Lobster>),
        ];
        let mut figures = vec![Vec::new(); engines.len()];
        let expected = Stats { trades: flow.h.trades, volume: flow.h.volume, checksum: flow.h.checksum };
        let mut gave = vec![expected; engines.len()];
        for _ in 0..ROUNDS {
            for (at, (_, run)) in engines.iter().enumerate() {
                let (mops, stats) = run(&flow);
                figures[at].push(mops);
                gave[at] = stats;
            }
        }
        let median: Vec<f64> = figures
            .iter_mut()
            .map(|rounds| {
                rounds.sort_by(f64::total_cmp);
                rounds[ROUNDS / 2]
            })
            .collect();
        for (at, (name, _)) in engines.iter().enumerate() {
            let verdict = if gave[at] == expected {
                "as the flow says".to_owned()
            } else {
                format!(
                    "NOT as the flow says: {} of {}, lots {} of {}",
                    gave[at].trades, expected.trades, gave[at].volume, expected.volume
                )
            };
            println!(
                "{:<7}{name:<22}{:>9.2}{:>17.1}x  {verdict}",
                shape.name,
                median[at],
                median[0] / median[at]
            );
        }
    }
}
