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
    let (ns, l, n) = (symbols, live, ops);
    let mut r = Rng(seed);
    let mut syms: Vec<Symbol> =
        (0..ns).map(|_| Symbol { book: Book::default(), live: vec![], mid: START }).collect();
    let mut pos: Vec<u32> = vec![u32::MAX; ns * l + n * 2 + 2]; // id -> index in its symbol's live vec
    let mut cdf: Vec<f64> = (1..=ns).map(|k| 1.0 / k as f64).collect(); // Zipf s=1
    let total: f64 = cdf.iter().sum();
    let mut acc = 0.0;
    for x in &mut cdf {
        acc += *x / total;
        *x = acc;
    }
    let mut msgs: Vec<Msg> = Vec::with_capacity(ns * l + n);
    let (mut next_id, mut st, mut max_live, mut live_now) = (1u64, Stats::default(), 0u64, 0u64);
    // preload, round-robin over symbols
    for i in 0..ns * l {
        let sy = i % ns;
        let side = r.below(2) as u8;
        let price = passive(&mut r, &syms[sy], side);
        let qty = 1 + r.below(100) as u32;
        let owner = owner(&mut r, side);
        let m = Msg { id: next_id, price, qty, sym: sy as u16, owner, op: ADD, side, ..Default::default() };
        next_id += 1;
        syms[sy].book.rest(m.id, side, price, m.qty);
        add_live(&mut syms[sy], &mut pos, m.id, side);
        live_now += 1;
        msgs.push(m);
    }
    let mut gone = vec![];
    for k in 0..n {
        let u = r.float();
        let sy = cdf.partition_point(|c| *c < u).min(ns - 1);
        let s = &mut syms[sy];
        if r.float() < 0.02 {
            s.mid = (s.mid + if r.next() & 1 == 0 { 1 } else { -1 }).clamp(START - RANGE, START + RANGE);
        }
        let e = ((s.live.len() as f64 - l as f64) / l as f64).clamp(-1.0, 1.0);
        let p_cancel = 0.40 + 0.3 * e;
        let mut x = r.float();
        let mut m = Msg { sym: sy as u16, ..Default::default() };
        let both = s.book.best_bid().zip(s.book.best_ask());
        let mut marketable = None;
        let mut kind = ADD;
        if x < 0.10
            && let Some(touch) = both
        {
            if x < 0.08 {
                marketable = Some(touch);
            } else {
                kind = REPLACE;
            }
        } else {
            x -= 0.10;
            if x < p_cancel && s.live.len() > 2 {
                kind = CANCEL;
            }
        }
        if let Some((bid, ask)) = marketable {
            // pull the book's mid towards s.mid
            let gap = s.mid as f64 + 0.5 - f64::from(bid + ask) / 2.0;
            m.side = u8::from(r.float() >= (0.5 + gap * 0.1).clamp(0.05, 0.95));
            m.qty = 1 + r.below(125) as u32;
            let v = r.below(8);
            m.op = if v < 3 {
                MARKET
            } else if v < 6 {
                IOC
            } else {
                ADD
            };
            if m.op != MARKET {
                let t = r.below(3) as u32;
                m.price =
                    if m.side == 0 { (ask + t).min(MAX_PRICE - 1) } else { bid.saturating_sub(t).max(1) };
            }
        } else {
            m.op = kind;
            if kind == ADD {
                m.side = r.below(2) as u8;
            } else {
                let (id, side) = s.live[r.below(s.live.len() as u64) as usize];
                m.old_id = id;
                m.side = side;
            }
            if kind == REPLACE {
                s.book.cancel(m.old_id);
                delete_live(s, &mut pos, m.old_id);
                live_now -= 1;
            }
            if kind != CANCEL {
                m.price = passive(&mut r, s, m.side);
                m.qty = 1 + r.below(100) as u32;
            }
        }
        m.owner = owner(&mut r, m.side);
        if m.op == CANCEL {
            s.book.cancel(m.old_id);
            delete_live(s, &mut pos, m.old_id);
            live_now -= 1;
        } else {
            m.id = next_id;
            next_id += 1;
            let limit = match (m.op, m.side) {
                (MARKET, 0) => u32::MAX,
                (MARKET, _) => 0,
                _ => m.price,
            };
            gone.clear();
            let left = s.book.cross(m.id, m.side, limit, m.qty, |maker, price, qty, done| {
                st.trade(maker, m.id, price, qty);
                if done {
                    gone.push(maker);
                }
            });
            for &id in &gone {
                delete_live(s, &mut pos, id);
                live_now -= 1;
            }
            if left > 0 && (m.op == ADD || m.op == REPLACE) {
                s.book.rest(m.id, m.side, m.price, left);
                add_live(s, &mut pos, m.id, m.side);
                live_now += 1;
            }
        }
        max_live = max_live.max(live_now);
        msgs.push(m);
        if k % 65_536 == 0 {
            progress(k as u64);
        }
    }
    let h = Header {
        n_symbols: ns as u32,
        max_price: MAX_PRICE,
        n_preload: (ns * l) as u64,
        n_ops: n as u64,
        max_id: next_id,
        trades: st.trades,
        volume: st.volume,
        checksum: st.checksum,
        final_live: live_now,
        max_live,
    };
    Workload { h, msgs }
}
