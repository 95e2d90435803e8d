//! The generator of the common flow. The order of random draws is part of the definition.
//!
//! Floats appear here and nowhere else in the crate: they shape the input of the benchmark, no book sees them.

use super::naive::Book;
use super::wl::*;

/// SplitMix64.
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

struct Symbol {
    book: Book,
    live: Vec<(u64, u8)>,
    mid: i64,
}

/// Where the middle price starts and how far it may wander.
const START: i64 = 10_000;
const RANGE: i64 = 1_000;

/// Discrete Pareto, P(d >= k) = (k+1)^-1.3, capped.
fn depth(r: &mut Rng) -> i64 {
    ((r.float().max(1e-12)).powf(-1.0 / 1.3) as i64 - 1).min(999)
}

fn passive(r: &mut Rng, s: &Symbol, side: u8) -> u32 {
    let d = depth(r);
    let p = if side == 0 {
        (s.mid - d).min(s.book.best_ask().map_or(i64::MAX, |x| i64::from(x) - 1))
    } else {
        (s.mid + 1 + d).max(s.book.best_bid().map_or(0, |x| i64::from(x) + 1))
    };
    p.clamp(1, i64::from(MAX_PRICE) - 1) as u32
}

fn add_live(s: &mut Symbol, pos: &mut [u32], id: u64, side: u8) {
    pos[id as usize] = s.live.len() as u32;
    s.live.push((id, side));
}

fn delete_live(s: &mut Symbol, pos: &mut [u32], id: u64) {
    let i = pos[id as usize] as usize;
    s.live.swap_remove(i);
    if i < s.live.len() {
        pos[s.live[i].0 as usize] = i as u32;
    }
}

/// Buyers even, sellers odd: no self-trades.
fn owner(r: &mut Rng, side: u8) -> u16 {
    (r.below(500) * 2) as u16 + u16::from(side)
}

/// Makes the flow `SEED SYMBOLS LIVE_PER_SYMBOL OPS`; `progress` hears how many operations are done, now and then.
pub fn generate(
    seed: u64,
    symbols: usize,
    live: usize,
    ops: usize,
    progress: &mut dyn FnMut(u64),
) -> Workload {
    let mut g = Generator::new(seed, symbols, live, ops);
    g.preload();
    for k in 0..ops {
        let (at, m) = g.next_message();
        g.carry_out(at, m);
        if k % 65_536 == 0 {
            progress(k as u64);
        }
    }
    g.finish(ops)
}

/// A flow in the making.
struct Generator {
    r: Rng,
    symbols: Vec<Symbol>,
    /// Live orders that each symbol is held near.
    live: usize,
    /// By order, its index in its symbol's live orders.
    pos: Vec<u32>,
    /// How often each symbol and those before it are picked: Zipf, s = 1.
    cdf: Vec<f64>,
    msgs: Vec<Msg>,
    next_id: u64,
    stats: Stats,
    live_now: u64,
    max_live: u64,
}

impl Generator {
    fn new(seed: u64, symbols: usize, live: usize, ops: usize) -> Self {
        let mut cdf: Vec<f64> = (1..=symbols).map(|k| 1.0 / k as f64).collect();
        let total: f64 = cdf.iter().sum();
        let mut acc = 0.0;
        for x in &mut cdf {
            acc += *x / total;
            *x = acc;
        }
        Self {
            r: Rng(seed),
            symbols: (0..symbols)
                .map(|_| Symbol { book: Book::default(), live: vec![], mid: START })
                .collect(),
            live,
            pos: vec![u32::MAX; symbols * live + ops * 2 + 2],
            cdf,
            msgs: Vec::with_capacity(symbols * live + ops),
            next_id: 1,
            stats: Stats::default(),
            live_now: 0,
            max_live: 0,
        }
    }

    /// Fills the books, round-robin over the symbols.
    fn preload(&mut self) {
        for i in 0..self.symbols.len() * self.live {
            let at = i % self.symbols.len();
            let side = self.r.below(2) as u8;
            let price = passive(&mut self.r, &self.symbols[at], side);
            let qty = 1 + self.r.below(100) as u32;
            let owner = owner(&mut self.r, side);
            let id = self.next_id;
            let m = Msg { id, price, qty, sym: at as u16, owner, op: ADD, side, ..Default::default() };
            self.next_id += 1;
            self.symbols[at].book.rest(id, side, price, qty);
            add_live(&mut self.symbols[at], &mut self.pos, id, side);
            self.live_now += 1;
            self.msgs.push(m);
        }
    }

    /// The next operation, and the index of its symbol.
    fn next_message(&mut self) -> (usize, Msg) {
        let drawn = self.r.float();
        let at = self.cdf.partition_point(|share| *share < drawn).min(self.symbols.len() - 1);
        let s = &mut self.symbols[at];
        if self.r.float() < 0.02 {
            s.mid = (s.mid + if self.r.next() & 1 == 0 { 1 } else { -1 }).clamp(START - RANGE, START + RANGE);
        }
        let excess = ((s.live.len() as f64 - self.live as f64) / self.live as f64).clamp(-1.0, 1.0);
        let p_cancel = 0.40 + 0.3 * excess;
        let x = self.r.float();
        let touch = s.book.best_bid().zip(s.book.best_ask()).filter(|_| x < 0.10);
        let mut m = match touch {
            Some(touch) if x < 0.08 => self.marketable(at, touch),
            Some(_) => self.passive(at, REPLACE),
            None => {
                let is_cancel = x - 0.10 < p_cancel && s.live.len() > 2;
                self.passive(at, if is_cancel { CANCEL } else { ADD })
            }
        };
        m.sym = at as u16;
        m.owner = owner(&mut self.r, m.side);
        (at, m)
    }

    /// An order that trades: it pulls the middle of the book towards where the price should be.
    fn marketable(&mut self, at: usize, (bid, ask): (u32, u32)) -> Msg {
        let r = &mut self.r;
        let gap = self.symbols[at].mid as f64 + 0.5 - f64::from(bid + ask) / 2.0;
        let side = u8::from(r.float() >= (0.5 + gap * 0.1).clamp(0.05, 0.95));
        let qty = 1 + r.below(125) as u32;
        let op = match r.below(8) {
            0..3 => MARKET,
            3..6 => IOC,
            _ => ADD,
        };
        let mut m = Msg { qty, op, side, ..Default::default() };
        if op != MARKET {
            let t = r.below(3) as u32;
            m.price = if side == 0 { (ask + t).min(MAX_PRICE - 1) } else { bid.saturating_sub(t).max(1) };
        }
        m
    }

    /// An order that rests, a cancel or a replace; what it cancels has left the book.
    fn passive(&mut self, at: usize, op: u8) -> Msg {
        let mut m = Msg { op, ..Default::default() };
        if op == ADD {
            m.side = self.r.below(2) as u8;
        } else {
            let live = &self.symbols[at].live;
            (m.old_id, m.side) = live[self.r.below(live.len() as u64) as usize];
        }
        if op == REPLACE {
            self.cancel(at, m.old_id);
        }
        if op != CANCEL {
            m.price = passive(&mut self.r, &self.symbols[at], m.side);
            m.qty = 1 + self.r.below(100) as u32;
        }
        m
    }

    fn cancel(&mut self, at: usize, id: u64) {
        self.symbols[at].book.cancel(id);
        delete_live(&mut self.symbols[at], &mut self.pos, id);
        self.live_now -= 1;
    }

    /// Gives the operation to the naive book, which says what it comes to.
    fn carry_out(&mut self, at: usize, mut m: Msg) {
        if m.op == CANCEL {
            self.cancel(at, m.old_id);
        } else {
            m.id = self.next_id;
            self.next_id += 1;
            self.cross(at, &m);
        }
        self.max_live = self.max_live.max(self.live_now);
        self.msgs.push(m);
    }

    fn cross(&mut self, at: usize, m: &Msg) {
        let limit = match (m.op, m.side) {
            (MARKET, 0) => u32::MAX,
            (MARKET, _) => 0,
            _ => m.price,
        };
        let (s, stats, mut gone) = (&mut self.symbols[at], &mut self.stats, vec![]);
        let left = s.book.cross(m.id, m.side, limit, m.qty, |maker, price, qty, done| {
            stats.trade(maker, m.id, price, qty);
            if done {
                gone.push(maker);
            }
        });
        for id in gone {
            delete_live(s, &mut self.pos, id);
            self.live_now -= 1;
        }
        if left > 0 && (m.op == ADD || m.op == REPLACE) {
            s.book.rest(m.id, m.side, m.price, left);
            add_live(s, &mut self.pos, m.id, m.side);
            self.live_now += 1;
        }
    }

    fn finish(self, ops: usize) -> Workload {
        let h = Header {
            n_symbols: self.symbols.len() as u32,
            max_price: MAX_PRICE,
            n_preload: (self.symbols.len() * self.live) as u64,
            n_ops: ops as u64,
            max_id: self.next_id,
            trades: self.stats.trades,
            volume: self.stats.volume,
            checksum: self.stats.checksum,
            final_live: self.live_now,
            max_live: self.max_live,
        };
        Workload { h, msgs: self.msgs }
    }
}
