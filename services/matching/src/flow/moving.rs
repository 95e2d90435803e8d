//! The generator of flows whose price moves: the common flow's mix in one symbol; only the way of the mid and the far
//! orders differ. The order of random draws is part of the definition.

use super::generate::Rng;
use super::naive::Book;
use super::wl::*;

/// Where the mid starts, in ticks.
const START: i64 = 200_000;
/// Ticks between levels of [`Way::Sparse`], and its mid's step.
const SPARSE: i64 = 97;
/// Half the spread of [`Way::Wide`].
const HALF_SPREAD: i64 = 5_000;
/// Levels under the bid of [`Way::Lone`].
const LONE_LEVELS: u32 = 500;

/// How the price of a flow moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The mid walks ± 1 tick every 10 operations.
    Walk,
    /// The mid swings down by this many hundredths and back, five times.
    Swing(u8),
    /// 30 % down within 2 % of the operations, half of it back.
    Crash,
    /// One order in a thousand stands 1,000 to 100,000 ticks away.
    Far,
    /// Levels and the mid's steps are 97 ticks apart.
    Sparse,
    /// A spread of 10,000 ticks, one add in fifty inside it.
    Wide,
    /// One bid this many ticks above 500 levels, placed and canceled.
    Lone(u32),
}

struct Maker {
    way: Way,
    r: Rng,
    book: Book,
    mid: i64,
    live: Vec<(u64, u8)>,
    /// Where in `live` an order is, by its number.
    at: Vec<u32>,
    next_id: u64,
    stats: Stats,
}

/// Makes the flow of one symbol with `live` orders before the first of `ops` operations; `progress` hears how many
/// operations are done, now and then.
pub fn generate_moving(
    way: Way,
    seed: u64,
    live: usize,
    ops: usize,
    progress: &mut dyn FnMut(u64),
) -> Workload {
    if let Way::Lone(above) = way {
        return lone(above, ops);
    }
    let mut maker = Maker {
        way,
        r: Rng(seed),
        book: Book::default(),
        mid: START,
        live: Vec::new(),
        at: vec![u32::MAX; live + ops * 2 + 2],
        next_id: 1,
        stats: Stats::default(),
    };
    let mut msgs = Vec::with_capacity(live + ops);
    for _ in 0..live {
        msgs.push(maker.preloaded());
    }
    let mut max_live = 0;
    for k in 0..ops {
        maker.move_mid(k, ops);
        msgs.push(maker.operation(live));
        max_live = max_live.max(maker.live.len() as u64);
        if k % 65_536 == 0 {
            progress(k as u64);
        }
    }
    let h = Header {
        n_symbols: 1,
        max_price: u32::MAX - 1,
        n_preload: live as u64,
        n_ops: ops as u64,
        max_id: maker.next_id,
        trades: maker.stats.trades,
        volume: maker.stats.volume,
        checksum: maker.stats.checksum,
        final_live: maker.live.len() as u64,
        max_live,
    };
    Workload { h, msgs }
}

/// A bid far above all others comes and goes.
fn lone(above: u32, ops: usize) -> Workload {
    let bid = |id: u64, price: u32| Msg { id, price, qty: 1, op: ADD, ..Msg::default() };
    let best = START as u32;
    let mut msgs: Vec<Msg> = (0..LONE_LEVELS).map(|level| bid(u64::from(level) + 1, best - level)).collect();
    for k in 0..ops as u64 {
        let id = u64::from(LONE_LEVELS) + 1 + k / 2;
        msgs.push(if k % 2 == 0 {
            bid(id, best + above)
        } else {
            Msg { old_id: id, op: CANCEL, ..Msg::default() }
        });
    }
    let left = ops as u64 % 2;
    let h = Header {
        n_symbols: 1,
        max_price: u32::MAX - 1,
        n_preload: u64::from(LONE_LEVELS),
        n_ops: ops as u64,
        max_id: u64::from(LONE_LEVELS) + ops as u64 / 2 + 1,
        final_live: u64::from(LONE_LEVELS) + left,
        max_live: u64::from(LONE_LEVELS) + 1,
        ..Header::default()
    };
    Workload { h, msgs }
}

impl Maker {
    fn move_mid(&mut self, k: usize, ops: usize) {
        let x = k as f64 / ops as f64;
        let start = START as f64;
        self.mid = match self.way {
            Way::Walk if k.is_multiple_of(10) => (self.mid + self.step(1)).clamp(1_000, 4_000_000),
            Way::Far if self.r.float() < 0.02 => {
                (self.mid + self.step(1)).clamp(START - 1_000, START + 1_000)
            }
            Way::Sparse if self.r.float() < 0.02 => {
                (self.mid + self.step(SPARSE)).clamp(START / 2, START * 2)
            }
            Way::Walk | Way::Far | Way::Sparse | Way::Wide | Way::Lone(_) => self.mid,
            Way::Swing(hundredths) => {
                let t = (x * 5.0).fract();
                let triangle = if t < 0.5 { t * 2.0 } else { 2.0 - t * 2.0 };
                let amplitude = f64::from(hundredths) / 100.0;
                START - (start * amplitude * triangle) as i64 + (self.r.next() & 1) as i64
            }
            Way::Crash => {
                let drop = start * 0.30;
                let down = if x < 0.5 {
                    0.0
                } else if x < 0.52 {
                    (x - 0.5) / 0.02 * drop
                } else if x < 0.72 {
                    drop - (x - 0.52) / 0.20 * drop / 2.0
                } else {
                    drop / 2.0
                };
                START - down as i64 + (self.r.next() & 1) as i64
            }
        };
    }

    fn step(&mut self, ticks: i64) -> i64 {
        if self.r.next() & 1 == 0 { ticks } else { -ticks }
    }

    /// A price that does not trade.
    fn passive(&mut self, side: u8, far: bool) -> u32 {
        let r = &mut self.r;
        let mut d = ((r.float().max(1e-12)).powf(-1.0 / 1.3) as i64 - 1).min(999);
        match self.way {
            Way::Wide => {
                d += HALF_SPREAD;
                if r.below(50) == 0 {
                    d = r.below(HALF_SPREAD as u64) as i64;
                }
            }
            Way::Sparse => d = d * SPARSE + r.below(SPARSE as u64) as i64,
            Way::Far if far && r.below(1_000) == 0 => d = 1_000 + r.below(99_001) as i64,
            _ => {}
        }
        let price = if side == 0 {
            (self.mid - d).min(self.book.best_ask().map_or(i64::MAX, |ask| i64::from(ask) - 1))
        } else {
            (self.mid + 1 + d).max(self.book.best_bid().map_or(0, |bid| i64::from(bid) + 1))
        };
        price.clamp(1, i64::from(u32::MAX) - 2) as u32
    }

    /// Buyers even, sellers odd: no self-trades.
    fn owner(&mut self, side: u8) -> u16 {
        (self.r.below(500) * 2) as u16 + u16::from(side)
    }

    fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn come(&mut self, m: &Msg, qty: u32) {
        self.book.rest(m.id, m.side, m.price, qty);
        self.at[m.id as usize] = self.live.len() as u32;
        self.live.push((m.id, m.side));
    }

    fn leave(&mut self, id: u64) {
        let at = self.at[id as usize] as usize;
        self.live.swap_remove(at);
        if let Some(moved) = self.live.get(at) {
            self.at[moved.0 as usize] = at as u32;
        }
    }

    fn preloaded(&mut self) -> Msg {
        let side = self.r.below(2) as u8;
        let price = self.passive(side, false);
        let qty = 1 + self.r.below(100) as u32;
        let owner = self.owner(side);
        let m = Msg { id: self.number(), price, qty, owner, op: ADD, side, ..Msg::default() };
        self.come(&m, qty);
        m
    }

    /// The next operation, applied; there should be about `live` open orders.
    fn operation(&mut self, live: usize) -> Msg {
        let excess = ((self.live.len() as f64 - live as f64) / live as f64).clamp(-1.0, 1.0);
        let p_cancel = 0.40 + 0.3 * excess;
        let x = self.r.float();
        let both = self.book.best_bid().zip(self.book.best_ask());
        let mut m = match both {
            Some(touch) if x < 0.08 => self.marketable(touch),
            Some(_) if x < 0.10 => self.quiet(REPLACE),
            _ if x - 0.10 < p_cancel && self.live.len() > 2 => self.quiet(CANCEL),
            _ => self.quiet(ADD),
        };
        m.owner = self.owner(m.side);
        if m.op == CANCEL {
            self.book.cancel(m.old_id);
            self.leave(m.old_id);
        } else {
            m.id = self.number();
            self.trade(&m);
        }
        m
    }

    /// An add, cancel or replace that trades with nobody.
    fn quiet(&mut self, op: u8) -> Msg {
        let mut m = Msg { op, ..Msg::default() };
        if op == ADD {
            m.side = self.r.below(2) as u8;
        } else {
            (m.old_id, m.side) = self.live[self.r.below(self.live.len() as u64) as usize];
        }
        if op == REPLACE {
            self.book.cancel(m.old_id);
            self.leave(m.old_id);
        }
        if op != CANCEL {
            m.price = self.passive(m.side, true);
            m.qty = 1 + self.r.below(100) as u32;
        }
        m
    }

    /// An order that trades and pulls the book towards the mid; where the mid ran away, its limit reaches for it.
    fn marketable(&mut self, (bid, ask): (u32, u32)) -> Msg {
        let gap = self.mid as f64 + 0.5 - f64::from(bid + ask) / 2.0;
        let wide = self.way == Way::Wide;
        let pull = if wide { 0.0 } else { gap * 0.1 };
        let side = u8::from(self.r.float() >= (0.5 + pull).clamp(0.05, 0.95));
        let qty = 1 + self.r.below(125) as u32;
        let op = match self.r.below(8) {
            0..3 => MARKET,
            3..6 => IOC,
            _ => ADD,
        };
        let mut m = Msg { qty, op, side, ..Msg::default() };
        let ran = if wide { 0 } else { gap.abs() as u32 };
        if m.op != MARKET {
            let reach = self.r.below(3) as u32 + if ran > 2 { ran } else { 0 };
            m.price = if m.side == 0 { ask + reach } else { bid.saturating_sub(reach).max(1) };
        }
        if ran > 2 {
            m.side = u8::from(gap < 0.0);
            if m.op != MARKET {
                m.price = if m.side == 0 {
                    self.mid.max(i64::from(ask)) as u32
                } else {
                    self.mid.min(i64::from(bid)).max(1) as u32
                };
            }
        }
        m
    }

    fn trade(&mut self, m: &Msg) {
        let limit = match (m.op, m.side) {
            (MARKET, 0) => u32::MAX,
            (MARKET, _) => 0,
            _ => m.price,
        };
        let mut gone = Vec::new();
        let stats = &mut self.stats;
        let left = self.book.cross(m.id, m.side, limit, m.qty, |maker, price, qty, done| {
            stats.trade(maker, m.id, price, qty);
            if done {
                gone.push(maker);
            }
        });
        for id in gone {
            self.leave(id);
        }
        if left > 0 && (m.op == ADD || m.op == REPLACE) {
            self.come(m, left);
        }
    }
}
